"""Durations and sizes: what is read, what is written, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2store.config import Duration, Size


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1ns", 1),
        ("500us", 500_000),
        ("1.5ms", 1_500_000),
        (" 5 s ", 5_000_000_000),
        ("1m30s", 90_000_000_000),
        ("1h", 3_600_000_000_000),
        ("2d", 172_800_000_000_000),
    ],
)
def test_durations_are_read_exactly(text: str, nanoseconds: int) -> None:
    """A duration is the exact sum of its parts, in nanoseconds."""
    assert Duration.parse(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "s", "5 parsecs", "-1s", "0.5ns", "1s!", "1e3s", "5S"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A bare number, an unknown unit, a sign or a fraction of a nanosecond is refused."""
    with pytest.raises(ValueError, match="expected a number with a unit"):
        Duration.parse(text)


@given(st.integers(min_value=0, max_value=10**19))
def test_duration_survives_its_text(nanoseconds: int) -> None:
    """Writing a duration and reading it back loses nothing."""
    assert Duration.parse(str(Duration(nanoseconds))) == nanoseconds


@given(st.integers(min_value=0, max_value=1 << 60))
def test_size_survives_its_text(count: int) -> None:
    """Writing a size and reading it back loses nothing."""
    assert Size.parse(str(Size(count))) == count


def test_the_largest_whole_unit_is_written() -> None:
    """The text of a quantity uses the largest unit that leaves a whole number."""
    assert [str(Duration(value)) for value in (0, 1, 1_500_000, 60_000_000_000)] == [
        "0ns",
        "1ns",
        "1500us",
        "1m",
    ]
    assert [str(Size(value)) for value in (4096, 4097, 1 << 30)] == ["4KiB", "4097B", "1GiB"]
