"""From recorded operations to calls on single objects: what each operation says, and what it does not say.

A failed operation was not applied and says nothing. An operation whose end is unknown may have been applied if it
could change anything. A compare that answered *false* was a completed operation and says a great deal.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

import msgspec

from jepsen_like.history import NEVER, HistoryError, Operation
from jepsen_like.linearizability.objects import Access, Action, State, Step
from jepsen_like.linearizability.search import Call
from jepsen_like.values import freeze, show


class Part(msgspec.Struct, frozen=True):
    """The calls on one object."""

    key: Hashable
    calls: tuple[Call, ...]
    initial: State
    step: Step
    constrained: bool


Reading = Callable[[Operation], Action | None]


def parts_of(
    operations: Iterable[Operation], read: Reading, initial: State, step: Step, *, keyed: bool
) -> list[Part]:
    """The calls by key, in order of the keys' first use. `read` gives None for what constrains nothing."""
    calls: dict[Hashable, list[Call]] = {}
    for operation in operations:
        if operation.outcome == "fail":
            continue
        if keyed and operation.key is None:
            operation = _untuple(operation)
        action = read(operation)
        if action is None:
            continue
        end = None if operation.end == NEVER else operation.end
        call = Call(operation.number, action, operation.start, end)
        calls.setdefault(freeze(operation.key), []).append(call)
    return [
        Part(key, tuple(found), initial, step, any(map(_constrains, found)))
        for key, found in calls.items()
    ]


def _constrains(call: Call) -> bool:
    action = call.action
    if call.end is None or action.verb in ("write", "put", "append"):
        return False
    if action.verb == "txn":
        assert isinstance(action.first, tuple)
        return any(f == "r" for f, _, _ in action.first)
    return True


def is_keyed(operations: Sequence[Operation]) -> bool:
    """Whether every value is a pair `[key value]`, as histories of independent keys write them.

    A compare-and-set of one register is a pair too; with keys its second half is again a pair. Reads whose
    whole answer is a list of elements are no pairs: they must name the key they asked for.
    """
    found = False
    for operation in operations:
        if operation.key is not None:
            return False
        asked = operation.argument if operation.start >= 0 else operation.result
        if asked is None and operation.f not in ("read", "get") and operation.outcome != "ok":
            continue
        if not _is_pair(asked):
            return False
        assert isinstance(asked, Sequence)
        if operation.f == "cas" and not _is_pair(asked[1]):
            return False
        found = True
    return found


def _is_pair(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) == 2


def by_key(operations: Sequence[Operation]) -> dict[Hashable, list[Operation]]:
    """The operations of each key; keys in pairs `[key value]` are taken out of the values."""
    keyed = is_keyed(operations)
    split: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        mine = _untuple(operation) if keyed and operation.key is None else operation
        split.setdefault(freeze(mine.key), []).append(mine)
    return split


def _untuple(operation: Operation) -> Operation:
    """Moves the key of a pair `[key value]` into its own field."""

    def second(value: object) -> object:
        if isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) == 2:
            return value[1]
        return value

    pair = operation.argument if isinstance(operation.argument, Sequence) else operation.result
    if not isinstance(pair, Sequence) or isinstance(pair, str | bytes) or len(pair) != 2:
        raise HistoryError(f"event {operation.index}: {show(pair)} is not a pair of key and value")
    return msgspec.structs.replace(
        operation, key=pair[0], argument=second(operation.argument), result=second(operation.result)
    )


def read_register(*, nil_is_a_value: bool) -> Reading:
    """How to read operations on a register: `read`, `write v`, `cas [old new]`.

    A `cas` that completed with the answer False is a compare that failed. In histories of Jepsen and Knossos a
    read of nil means that the value is not known; `nil_is_a_value` says that here it is a value like others.
    """

    def reading(operation: Operation) -> Action | None:
        match operation.f:
            case "read" | "r":
                if operation.outcome != "ok" or (operation.result is None and not nil_is_a_value):
                    return None
                return Action("read", freeze(operation.result), pure=True)
            case "write" | "w":
                return Action("write", freeze(operation.argument))
            case "cas":
                old, new = _pair_of(operation)
                if operation.outcome == "ok" and operation.result is False:
                    return Action("miss", old, pure=True)
                return Action("cas", old, new)
        raise HistoryError(
            f"event {operation.index}: a register knows no operation {operation.f!r}"
        )

    return reading


def _pair_of(operation: Operation) -> tuple[Hashable, Hashable]:
    value = operation.argument
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) != 2:
        raise HistoryError(
            f"event {operation.index}: cas needs a pair [old new], not {show(value)}"
        )
    return freeze(value[0]), freeze(value[1])


def read_mutex(operation: Operation) -> Action | None:
    """How to read operations on a lock: `acquire` and `release`."""
    if operation.f in ("acquire", "release"):
        return Action(operation.f)
    raise HistoryError(f"event {operation.index}: a mutex knows no operation {operation.f!r}")


def read_string(operation: Operation) -> Action | None:
    """How to read operations on a string: `get`, `put v`, `append v`."""
    match operation.f:
        case "get" | "read":
            if operation.outcome != "ok":
                return None
            return Action("get", _text(operation, operation.result), pure=True)
        case "put" | "write" | "append":
            verb = "append" if operation.f == "append" else "put"
            return Action(verb, _text(operation, operation.argument))
    raise HistoryError(
        f"event {operation.index}: a key-value store knows no operation {operation.f!r}"
    )


def _text(operation: Operation, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise HistoryError(f"event {operation.index}: {show(value)} is not a string")
    return value


def read_multi(*, nil_is_a_value: bool) -> Reading:
    """How to read transactions over registers: `[[f key value], ...]` with f r, read, w or write.

    A plain read or write whose value is a map of keys to values is such a transaction too.
    """

    def reading(operation: Operation) -> Action | None:
        accesses: list[Access] = []
        done = operation.outcome == "ok"
        for f, key, value in _accesses(operation):
            if f == "w":
                accesses.append(("w", key, value))
            elif done and (value is not None or nil_is_a_value):
                accesses.append(("r", key, value))
        if not accesses:
            return None
        pure = all(f == "r" for f, _, _ in accesses)
        return Action("txn", tuple(accesses), pure=pure)

    return reading


_VERBS = {"r": "r", ":r": "r", "read": "r", "w": "w", ":w": "w", "write": "w"}


def _accesses(operation: Operation) -> list[Access]:
    value = operation.value
    if value is None:
        return []
    if isinstance(value, Mapping) and operation.f in _VERBS:
        return [(_VERBS[operation.f], freeze(k), freeze(v)) for k, v in value.items()]
    accesses: list[Access] = []
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for entry in value:
            if (
                isinstance(entry, Sequence)
                and not isinstance(entry, str | bytes)
                and len(entry) == 3
            ):
                verb = _VERBS.get(str(entry[0]))
                if verb is not None:
                    accesses.append((verb, freeze(entry[1]), freeze(entry[2])))
        if len(accesses) == len(value):
            return accesses
    raise HistoryError(f"event {operation.index}: {show(value)} is not a list of [f key value]")


def initial_registers(initial: object) -> State:
    """The state that a map of initial values describes; everything else says nothing of single keys."""
    if isinstance(initial, Mapping):
        # JSON has no keys but strings; a history may mean the number.
        numbers = {int(k): v for k, v in initial.items() if isinstance(k, str) and k.isdigit()}
        return frozenset((freeze(k), freeze(v)) for k, v in {**initial, **numbers}.items())
    return frozenset()
