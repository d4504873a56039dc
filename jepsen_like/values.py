"""Recorded values in a form that can be compared, hashed and shown.

Files bring lists and maps, which Python cannot put into sets. `freeze` turns them into tuples and `Map`s; the
order of a map's entries and the kind of a sequence do not matter.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set
from typing import TypeAlias

Map: TypeAlias = frozenset[tuple[str, Hashable, Hashable]]


def freeze(value: object) -> Hashable:
    """A hashable value equal for equal contents."""
    if isinstance(value, str | bytes | int | float | bool | None):
        return value
    if isinstance(value, Mapping):
        return frozenset(("entry", freeze(k), freeze(v)) for k, v in value.items())
    if isinstance(value, Set):
        return frozenset(freeze(v) for v in value)
    if isinstance(value, Sequence):
        return tuple(freeze(v) for v in value)
    if isinstance(value, Hashable):
        return value
    raise TypeError(f"a history cannot hold a {type(value).__name__}")


def show(value: object) -> str:
    """A value as people write it: `nil` for nothing, lists in brackets."""
    if value is None:
        return "nil"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return value if value and value.isprintable() and " " not in value else repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{show(k)} {show(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Set):
        return "#{" + " ".join(sorted(show(v) for v in value)) + "}"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return "[" + " ".join(show(v) for v in value) + "]"
    return str(value)
