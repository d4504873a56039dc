"""Intervals and their combination."""

from hypothesis import given
from hypothesis import strategies as st

from truetime import Interval, combine

points = st.integers(0, 60)
intervals = st.tuples(points, points).map(lambda pair: Interval(min(pair), max(pair)))


@given(intervals, intervals)
def test_the_intersection_holds_what_both_hold(one: Interval, other: Interval) -> None:
    """A time lies in the intersection exactly when it lies in both."""
    both = one.intersect(other)
    for time_ns in range(-1, 62):
        expected = one.contains(time_ns) and other.contains(time_ns)
        assert (both is not None and both.contains(time_ns)) == expected


@given(st.lists(intervals, min_size=1, max_size=6), st.integers(0, 6))
def test_combining_agrees_with_counting_every_point(
    sources: list[Interval], faulty_max: int
) -> None:
    """The result runs from the first to the last point in at least n - faulty_max sources."""
    needed = len(sources) - faulty_max
    good = [t for t in range(61) if sum(source.contains(t) for source in sources) >= needed]
    combined = combine(sources, faulty_max)
    if needed < 1 or not good:
        assert combined is None
    else:
        assert combined == Interval(good[0], good[-1])


@given(st.lists(st.tuples(points, points), min_size=1, max_size=5), points, st.data())
def test_the_truth_survives_as_many_liars_as_were_assumed(
    halves: list[tuple[int, int]], truth: int, data: st.DataObject
) -> None:
    """If at most faulty_max sources miss the true time, the combination contains it."""
    honest = [Interval(truth - below, truth + above) for below, above in halves]
    liars = data.draw(st.lists(intervals, max_size=len(honest) - 1))
    combined = combine(honest + liars, faulty_max=len(liars))
    assert combined is not None
    assert combined.contains(truth)


def test_no_source_tells_nothing() -> None:
    """Without a source, or with as many liars as sources, there is no interval."""
    assert combine([]) is None
    assert combine([Interval(1, 2)], faulty_max=1) is None


def test_width_and_widening() -> None:
    """Widening adds the doubt on each side."""
    assert Interval(10, 14).width_ns == 4
    assert Interval(10, 14).widen(3) == Interval(7, 17)
