"""Sequential specifications: what one object may answer when operations come one at a time.

A specification is a function `step(state, action)` that gives the next state, or `ILLEGAL` when the action could
not have had its recorded outcome in that state. States and actions are hashable. An action that can never change
any state it is legal in is *pure* (a read, a compare known to have failed): the search may place it as soon as
it is legal and needs to keep no alternative.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, TypeAlias

import msgspec

State: TypeAlias = Hashable


class Illegal:
    """The type of `ILLEGAL`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ILLEGAL"


ILLEGAL: Final = Illegal()


class Unset:
    """The type of `UNSET`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()
"""An initial value that nobody told us."""


class Action(msgspec.Struct, frozen=True):
    """What an operation did, as far as it is known. `verb` says what `first` and `second` mean."""

    verb: str
    first: Hashable = None
    second: Hashable = None
    pure: bool = False


Step: TypeAlias = Callable[[State, Action], State | Illegal]


def register_step(state: State, action: Action) -> State | Illegal:
    """A compare-and-set register. Verbs: read, write, cas (first to second), miss (a compare that failed).

    A state that is `UNSET` lets nothing be concluded: a read of it is legal and pins the value.
    """
    verb = action.verb
    if verb == "read":
        return state if state == action.first else ILLEGAL
    if verb == "write":
        return action.first
    if verb == "cas":
        return action.second if state == action.first else ILLEGAL
    assert verb == "miss"
    return state if state != action.first else ILLEGAL


def mutex_step(state: State, action: Action) -> State | Illegal:
    """A lock without owners, as in Knossos: acquire needs it free, release needs it held."""
    if action.verb == "acquire":
        return True if state is False else ILLEGAL
    assert action.verb == "release"
    return False if state is True else ILLEGAL


def string_step(state: State, action: Action) -> State | Illegal:
    """A string that can be put, got and appended to."""
    assert isinstance(state, str)
    verb = action.verb
    if verb == "get":
        return state if state == action.first else ILLEGAL
    assert isinstance(action.first, str)
    if verb == "put":
        return action.first
    assert verb == "append"
    return state + action.first


Access: TypeAlias = tuple[str, Hashable, Hashable]
"""One part of a transaction over registers: `("r" | "w", key, value)`."""


def multi_step(default: Hashable) -> Step:
    """Registers by key, read and written together; keys never written hold `default`.

    Verb: txn, with a tuple of accesses as `first`. A state is a frozenset of (key, value).
    """

    def step(state: State, action: Action) -> State | Illegal:
        assert isinstance(state, frozenset)
        assert isinstance(action.first, tuple)
        registers: dict[Hashable, Hashable] = dict(state)
        for f, key, value in action.first:
            if f == "w":
                registers[key] = value
            elif registers.get(key, default) != value:
                return ILLEGAL
        return state if action.pure else frozenset(registers.items())

    return step
