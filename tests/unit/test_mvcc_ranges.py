"""The read cache of ranges against a naive twin that remembers every scan."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mvcc.ranges import UNBOUNDED, RangeMarks

KEYS = [b"", b"a", b"ab", b"b", b"c", b"d", b"e\x00", b"zz"]
key_of = st.sampled_from(KEYS)
scans = st.lists(st.tuples(key_of, key_of, st.integers(1, 20)), max_size=12)


def marked(noted: list[tuple[bytes, bytes, int]], key: bytes) -> int:
    """The largest stamp that has scanned over a key."""
    covering = (
        stamp for start, end, stamp in noted if start <= key and (end == UNBOUNDED or key < end)
    )
    return max(covering, default=0)


@given(noted=scans)
def test_marks_are_the_largest_scan_over_each_key(noted: list[tuple[bytes, bytes, int]]) -> None:
    """Every key has the mark of the latest scan that covers it, and the name of who scanned."""
    marks = RangeMarks()
    for start, end, stamp in noted:
        marks.note(start, end, stamp, b"reader-%d" % stamp)
    for key in KEYS:
        stamp, reader = marks.mark(key)
        assert stamp == marked(noted, key)
        assert reader == (b"reader-%d" % stamp if stamp else b"")
    assert bool(marks) == any(marked(noted, key) for key in KEYS)


@given(noted=scans, closed=st.integers(0, 20))
def test_forgetting_keeps_what_lies_above(
    noted: list[tuple[bytes, bytes, int]], closed: int
) -> None:
    """Marks above the closed timestamp stay exactly, the others are gone, and nothing is split in vain."""
    marks = RangeMarks()
    for start, end, stamp in noted:
        marks.note(start, end, stamp, b"r")
    marks.forget(closed)
    found = [marks.mark(key)[0] for key in KEYS]
    true = [marked(noted, key) for key in KEYS]
    assert found == [stamp if stamp > closed else 0 for stamp in true]
    neighbours = list(zip(found, found[1:], strict=False))
    assert len(marks) <= len(KEYS)
    if not any(found):
        assert len(marks) == 0
        assert not marks
    assert len(marks) >= sum(1 for one, other in neighbours if one != other)


@given(noted=scans)
def test_eviction_names_the_largest_stamp_it_forgets(
    noted: list[tuple[bytes, bytes, int]],
) -> None:
    """The low-water mark that stands for an evicted cache is its largest mark."""
    marks = RangeMarks()
    for start, end, stamp in noted:
        marks.note(start, end, stamp, b"r")
    largest = max((marks.mark(key)[0] for key in KEYS), default=0)
    assert marks.evict() >= largest
    assert not marks
    assert [marks.mark(key) for key in KEYS] == [(0, b"")] * len(KEYS)


def test_an_empty_range_marks_nothing() -> None:
    """A scan whose end is not above its start leaves no trace at all."""
    marks = RangeMarks()
    marks.note(b"c", b"c", 9, b"r")
    marks.note(b"d", b"a", 9, b"r")
    assert len(marks) == 0
    assert not marks
