"""T3: when the true time is certainly past a stamp."""

from hypothesis import given
from hypothesis import strategies as st

from truetime import Passed, timestamp, wait_ns

STAMP = timestamp.pack(timestamp.EPOCH_NS + 10**15, 5, 2)
AT_NS = timestamp.time_ns(STAMP)


def test_the_wait_is_over_when_lo_is_strictly_above_the_stamp() -> None:
    """At equality another oracle may still give the same tick to a later transaction."""
    assert wait_ns(STAMP, AT_NS - 10) == 11
    assert wait_ns(STAMP, AT_NS) == 1
    assert wait_ns(STAMP, AT_NS + 1) == 0
    assert wait_ns(STAMP, AT_NS + 10**9) == 0


def test_nothing_is_known_before_the_first_report() -> None:
    """A process that was never told the time acknowledges nothing."""
    passed = Passed()
    assert passed.lower_ns(10**18) == 0
    assert not passed.covers(STAMP, 10**18)
    assert passed.wait_ns(STAMP, 0) > 10**18


def test_equality_is_not_yet_past() -> None:
    """A process that knows only UT >= stamp keeps waiting; one nanosecond more is enough."""
    passed = Passed()
    passed.observe(AT_NS, 1_000)
    assert not passed.covers(STAMP, 1_000)
    assert passed.wait_ns(STAMP, 1_000) > 0
    passed.observe(AT_NS + 1, 1_000)
    assert passed.covers(STAMP, 1_000)
    assert passed.wait_ns(STAMP, 1_000) == 0


def test_an_older_report_changes_nothing() -> None:
    """The bound never falls, also when replies arrive out of order."""
    passed = Passed(drift_ppm=0)
    passed.observe(AT_NS, 1_000)
    passed.observe(AT_NS - 500, 1_100)
    assert passed.lower_ns(1_100) == AT_NS + 99
    passed.observe(AT_NS + 500, 1_100)
    assert passed.lower_ns(1_100) == AT_NS + 500


def test_a_monotonic_clock_read_too_early_gives_no_time() -> None:
    """Asking for a moment before the report gives the report, not less and not more."""
    passed = Passed()
    passed.observe(AT_NS, 1_000)
    assert passed.lower_ns(999) == AT_NS


@given(
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), min_size=1, max_size=8),
    st.integers(0, 2_000),
    st.data(),
)
def test_the_bound_never_exceeds_the_true_time(
    reports: list[tuple[int, int]], drift_ppm: int, data: st.DataObject
) -> None:
    """With a monotonic clock wrong by up to rho either way, lower_ns <= UT."""
    rate_ppm = data.draw(st.integers(-drift_ppm, drift_ppm))

    def monotonic(ut_ns: int) -> int:
        return (ut_ns - AT_NS) * (1_000_000 + rate_ppm) // 1_000_000

    passed, ut_ns, before = Passed(drift_ppm), AT_NS, 0
    for gap_ns, delay_ns in reports:
        ut_ns += gap_ns
        passed.observe(ut_ns - delay_ns, monotonic(ut_ns))
        bound = passed.lower_ns(monotonic(ut_ns))
        assert before <= bound + 1
        assert bound <= ut_ns
        before = bound


@given(st.integers(0, 10**9), st.integers(0, 999_999), st.integers(0, 10**12))
def test_after_the_wait_the_stamp_is_covered(
    missing_ns: int, drift_ppm: int, seen_at_ns: int
) -> None:
    """Sleeping for wait_ns on the monotonic clock suffices, whatever the drift."""
    passed = Passed(drift_ppm)
    passed.observe(AT_NS - missing_ns, seen_at_ns)
    needed_ns = passed.wait_ns(STAMP, seen_at_ns)
    assert needed_ns > 0
    assert passed.covers(STAMP, seen_at_ns + needed_ns)
    assert passed.wait_ns(STAMP, seen_at_ns + needed_ns) == 0
