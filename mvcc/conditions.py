"""Conditions a write may carry, and how they are evaluated on stored values.

A condition is a read (docs/protocol.md §5.8 case 24): the partition notes it in the read cache
whether it holds or not. Field conditions look into values that are msgpack maps (fields by name) or
msgpack arrays (fields by index), which is what typed records are stored as.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct


class Kind(enum.IntEnum):
    """What a condition states."""

    UNSPECIFIED = 0
    ABSENT = 1
    PRESENT = 2
    VERSION = 3
    """The key's newest version has exactly this stamp."""
    VALUE = 4
    """The key's value is exactly these bytes."""
    FIELD = 5
    """``compare(field, operand)`` holds for the key's value."""
    NO_ROW = 6
    """No row of [key, end) satisfies ``compare(field, operand)``."""


class Compare(enum.IntEnum):
    """The comparison of a field condition: field on the left, operand on the right."""

    UNSPECIFIED = 0
    EQUAL = 1
    NOT_EQUAL = 2
    LESS = 3
    LESS_OR_EQUAL = 4
    GREATER = 5
    GREATER_OR_EQUAL = 6


class Operand(enum.IntEnum):
    """What stands on the right of a comparison."""

    CONSTANT = 0
    OWN_STAMP = 1
    """The transaction's own stamp, as the packed integer."""
    OWN_TIME = 2
    """The transaction's own stamp as nanoseconds since the Unix epoch."""


Scalar = int | float | str | bytes | bool | None


class Condition(Struct, frozen=True, gc=False, array_like=True):
    """One condition on ``key`` (or on the range [key, end)).

    ``constant`` is a :data:`Scalar`; msgspec decodes no union of text and bytes, hence its type.
    """

    kind: int
    key: bytes
    version: int = 0
    value: bytes = b""
    end: bytes = b""
    field: str | int = ""
    compare: int = 0
    operand: int = 0
    constant: Any = None


class FieldError(Exception):
    """The value has no such field, or its type cannot be compared with the operand."""


COMPARISONS: dict[int, Callable[[Any, Any], Any]] = {
    Compare.EQUAL: operator.eq,
    Compare.NOT_EQUAL: operator.ne,
    Compare.LESS: operator.lt,
    Compare.LESS_OR_EQUAL: operator.le,
    Compare.GREATER: operator.gt,
    Compare.GREATER_OR_EQUAL: operator.ge,
}
_decode = msgspec.msgpack.decode


def holds(
    condition: Condition, version: int, value: bytes | None, stamp: int, time_ns: int
) -> bool:
    """Whether a condition on one key holds, given its newest version at the transaction's
    ``stamp``.

    Raises :class:`FieldError` where a field condition cannot be evaluated.  An absent row satisfies
    no field condition.
    """
    kind = condition.kind
    if kind == Kind.VALUE:
        return value is not None and value == condition.value
    if kind == Kind.VERSION:
        return value is not None and version == condition.version
    if kind == Kind.ABSENT:
        return value is None
    if kind == Kind.PRESENT:
        return value is not None
    assert kind == Kind.FIELD, kind
    return value is not None and matches(condition, value, stamp, time_ns)


def matches(condition: Condition, value: bytes, stamp: int, time_ns: int) -> bool:
    """Whether ``compare(field of value, operand)`` holds."""
    left = field_of(record_of(value), condition.field)
    if condition.operand == Operand.OWN_STAMP:
        right: object = stamp
    elif condition.operand == Operand.OWN_TIME:
        right = time_ns
    else:
        right = condition.constant
    try:
        return bool(COMPARISONS[condition.compare](left, right))
    except TypeError as error:
        raise FieldError(f"field {condition.field!r}: {error}") from None


def record_of(value: bytes) -> object:
    """What a value says, decoded; :class:`FieldError` when it is no msgpack."""
    try:
        record: object = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FieldError(f"the value is not a msgpack record: {error}") from None
    return record


def field_of(record: object, field: str | int) -> object:
    """A field of a decoded record; :class:`FieldError` when it has none of that name or place."""
    if isinstance(record, dict) and isinstance(field, str) and field in record:
        return record[field]
    if isinstance(record, list) and isinstance(field, int) and 0 <= field < len(record):
        return record[field]
    raise FieldError(f"the record has no field {field!r}")
