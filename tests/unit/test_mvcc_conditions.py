"""Conditions: each kind means what it says, and no stored value can break the one who looks."""

from __future__ import annotations

import operator
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mvcc.conditions import Compare, Condition, FieldError, Kind, Operand, holds, matches

STAMP = 7 << 20
TIME_NS = 1_800_000_000_000_000_000

OPERATORS = {
    Compare.EQUAL: operator.eq,
    Compare.NOT_EQUAL: operator.ne,
    Compare.LESS: operator.lt,
    Compare.LESS_OR_EQUAL: operator.le,
    Compare.GREATER: operator.gt,
    Compare.GREATER_OR_EQUAL: operator.ge,
}


def holds_on(condition: Condition, version: int, value: bytes | None) -> bool:
    """Evaluate at the fixed stamp."""
    return holds(condition, version, value, STAMP, TIME_NS)


def encoded(record: object) -> bytes:
    """A typed record as it is stored."""
    return msgspec.msgpack.encode(record)


@pytest.mark.parametrize("value", [None, b"", b"x"])
def test_absent_and_present_ask_for_a_value(value: bytes | None) -> None:
    """A deletion and a key never written are absent; an empty value is present."""
    assert holds_on(Condition(Kind.ABSENT, b"k"), 5, value) == (value is None)
    assert holds_on(Condition(Kind.PRESENT, b"k"), 5, value) == (value is not None)


def test_version_and_value_compare_exactly() -> None:
    """VERSION wants this stamp and VALUE these bytes; neither holds for a deletion."""
    version = Condition(Kind.VERSION, b"k", version=5)
    assert holds_on(version, 5, b"x")
    assert not holds_on(version, 6, b"x")
    assert not holds_on(version, 5, None)
    assert not holds_on(Condition(Kind.VERSION, b"k", version=0), 0, None)
    value = Condition(Kind.VALUE, b"k", value=b"")
    assert holds_on(value, 5, b"")
    assert not holds_on(value, 5, b"x")
    assert not holds_on(value, 5, None)


@given(
    left=st.integers(-(2**63), 2**64 - 1),
    right=st.integers(-(2**63), 2**64 - 1),
    compare=st.sampled_from(list(OPERATORS)),
    by_name=st.booleans(),
)
def test_a_field_is_compared_with_a_constant(
    left: int, right: int, compare: Compare, by_name: bool
) -> None:
    """Fields by name of maps and by index of arrays, with every comparison, field on the left."""
    record: Any = {"size": left} if by_name else ["other", left]
    field: str | int = "size" if by_name else 1
    condition = Condition(Kind.FIELD, b"k", field=field, compare=compare, constant=right)
    assert holds_on(condition, 5, encoded(record)) == OPERATORS[compare](left, right)
    assert not holds_on(condition, 0, None), "an absent row satisfies no field condition"


@pytest.mark.parametrize("by_ns", [-1, 0, 1])
def test_a_field_is_compared_with_the_own_stamp_or_time(by_ns: int) -> None:
    """The own stamp is the packed number, the own time is nanoseconds since the Unix epoch."""
    record = encoded({"until": TIME_NS + by_ns, "stamp": STAMP + by_ns})
    time = Condition(
        Kind.FIELD, b"k", field="until", compare=Compare.LESS, operand=Operand.OWN_TIME
    )
    stamp = Condition(
        Kind.FIELD, b"k", field="stamp", compare=Compare.GREATER, operand=Operand.OWN_STAMP
    )
    assert holds_on(time, 5, record) == (by_ns < 0)
    assert holds_on(stamp, 5, record) == (by_ns > 0)


@pytest.mark.parametrize(
    ("field", "record"),
    [
        ("size", {"weight": 1}),
        ("size", [1, 2]),
        (2, [1, 2]),
        (-1, [1, 2]),
        (0, {"size": 1}),
        ("size", 7),
        ("size", None),
        ("size", {"size": "large"}),
        ("size", {"size": None}),
        ("size", {"size": [1]}),
    ],
)
def test_a_field_that_cannot_be_compared_is_an_error(field: str | int, record: object) -> None:
    """A missing field and one of another type are FieldErrors, not failed conditions."""
    condition = Condition(Kind.FIELD, b"k", field=field, compare=Compare.LESS, constant=5)
    with pytest.raises(FieldError):
        holds_on(condition, 5, encoded(record))


@given(
    value=st.one_of(st.binary(max_size=40), st.binary(max_size=20).map(b"\x81\xa4size".__add__)),
    field=st.sampled_from(["size", 0]),
    compare=st.sampled_from(list(OPERATORS)),
    constant=st.one_of(st.none(), st.integers(0, 9), st.text(max_size=2), st.binary(max_size=2)),
)
@example(b"\x91" * 100_000, 0, Compare.LESS, 1)
@example(b"\xa1\xff", "size", Compare.LESS, 1)
@example(b"\x81\x90\x01", "size", Compare.LESS, 1)
@example(b"\xd6\xff\xff\xff\xff\xff", "size", Compare.EQUAL, 1)
def test_any_bytes_give_an_answer_or_a_field_error(
    value: bytes, field: str | int, compare: Compare, constant: int | str | bytes | None
) -> None:
    """No stored value, however malformed, raises anything else."""
    condition = Condition(Kind.FIELD, b"k", field=field, compare=compare, constant=constant)
    try:
        answer: bool | None = matches(condition, value, STAMP, TIME_NS)
    except FieldError:
        answer = None
    assert answer in (True, False, None)
