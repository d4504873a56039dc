"""Conditions of one-shot transactions: what must hold at the transaction's own stamp.

A condition is a read: whether it held is part of the serial order, also when it failed. Fields
are looked up in values that are msgpack records, by name in maps and by position in arrays,
which is how collections store them.
"""

from __future__ import annotations

import enum
from typing import Final

from msgspec import Struct

from k2store.client.ranges import KeyRange, range_of
from k2store.errors import Rejected

Scalar = int | float | str | bytes | bool | None

# The numbers of k2store.v1.ConditionKind and k2store.v1.Comparison, without importing protobuf.
ABSENT: Final = 1
PRESENT: Final = 2
VERSION: Final = 3
VALUE: Final = 4
FIELD: Final = 5
NO_ROW: Final = 6

EQUAL: Final = 1
NOT_EQUAL: Final = 2
LESS: Final = 3
LESS_OR_EQUAL: Final = 4
GREATER: Final = 5
GREATER_OR_EQUAL: Final = 6


class Own(enum.IntEnum):
    """The transaction's own place in time, as the right side of a comparison."""

    STAMP = 1
    TIME_NS = 2


class Predicate(Struct, frozen=True):
    """A comparison of one field; ``end`` is the exclusive end of the range of `no_row`."""

    field: str | int
    comparison: int
    right: Scalar | Own
    end: bytes = b""


class Condition(Struct, frozen=True):
    """One condition on ``key``, or on the range that begins with it."""

    kind: int
    key: bytes
    version: int = 0
    value: bytes = b""
    predicate: Predicate | None = None


class FieldOf:
    """A field of the value at a key; comparing it makes a condition."""

    __slots__ = ("_end", "_key", "_kind", "_name")

    def __init__(self, kind: int, key: bytes, end: bytes, name: str | int) -> None:
        if isinstance(name, int):
            if not 0 <= name < 2**32:
                raise Rejected(f"{name} is not a position in a record", field="field")
        elif not isinstance(name, str):
            raise Rejected("a field is named by a str or by its position", field="field")
        self._kind = kind
        self._key = key
        self._end = end
        self._name = name

    def _compare(self, comparison: int, right: Scalar | Own) -> Condition:
        if right is not None and not isinstance(right, int | float | str | bytes):
            raise Rejected(f"no record holds a {type(right).__name__}", field="constant")
        if isinstance(right, int) and not -(2**63) <= right < 2**63:
            raise Rejected(f"{right} does not fit 64 bits", field="constant")
        predicate = Predicate(self._name, comparison, right, self._end)
        return Condition(self._kind, self._key, predicate=predicate)

    def equals(self, right: Scalar | Own) -> Condition:
        """The field equals the right side."""
        return self._compare(EQUAL, right)

    def differs(self, right: Scalar | Own) -> Condition:
        """The field is there and does not equal the right side."""
        return self._compare(NOT_EQUAL, right)

    def less_than(self, right: Scalar | Own) -> Condition:
        """The field is less than the right side."""
        return self._compare(LESS, right)

    def at_most(self, right: Scalar | Own) -> Condition:
        """The field is less than or equal to the right side."""
        return self._compare(LESS_OR_EQUAL, right)

    def greater_than(self, right: Scalar | Own) -> Condition:
        """The field is greater than the right side."""
        return self._compare(GREATER, right)

    def at_least(self, right: Scalar | Own) -> Condition:
        """The field is greater than or equal to the right side."""
        return self._compare(GREATER_OR_EQUAL, right)

    # For stamps and times, in the words one uses for them.
    earlier_than = less_than
    later_than = greater_than


def absent(key: bytes) -> Condition:
    """The key has no value."""
    return Condition(ABSENT, _key(key))


def present(key: bytes) -> Condition:
    """The key has a value."""
    return Condition(PRESENT, _key(key))


def version_is(key: bytes, stamp: int) -> Condition:
    """The key's value was written by the commit with exactly this stamp."""
    if type(stamp) is not int or not 0 < stamp < 2**64:
        raise Rejected(f"{stamp!r} is not the stamp of a version", field="version")
    return Condition(VERSION, _key(key), version=stamp)


def value_is(key: bytes, value: bytes) -> Condition:
    """The key has exactly this value."""
    if type(value) is not bytes:
        raise Rejected(f"a value is bytes, not {type(value).__name__}", field="value")
    return Condition(VALUE, _key(key), value=value)


def field(key: bytes, name: str | int) -> FieldOf:
    """A field of the record at a key, by name or by position; an absent row satisfies nothing."""
    return FieldOf(FIELD, _key(key), b"", name)


def no_row(where: KeyRange | bytes, name: str | int) -> FieldOf:
    """No row of the range (or prefix) has a field that compares as said."""
    rows = range_of(where)
    return FieldOf(NO_ROW, rows.start, rows.end, name)


def own_stamp() -> Own:
    """The stamp of the transaction itself."""
    return Own.STAMP


def own_time() -> Own:
    """The stamp of the transaction itself as nanoseconds since the Unix epoch."""
    return Own.TIME_NS


def _key(key: bytes) -> bytes:
    if type(key) is not bytes:
        raise Rejected(f"a key is bytes, not {type(key).__name__}", field="key")
    return key
