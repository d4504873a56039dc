"""Rule T3: nothing is acknowledged before the true time is past its stamp.

A node asks its own clock: ``wait_ns(stamp, lo_ns)``. A client has no synchronised clock, but
every batch and every reply carries the ``lo`` of a clock that has one, and time only goes on:

      lo read      reply arrives            now
    ─────┼──────────────┼────────────────────┼──────▶  true time
         │              └── elapsed·(1-rho) ─┘
         └─ UT(now) >= lo + elapsed·(1-rho)

``elapsed`` must come from a monotonic clock that keeps counting while the machine sleeps;
``rho`` (``drift_ppm``) bounds how wrong its rate can be.
"""

from typing import Final

from truetime.timestamp import Stamp, time_ns

# Crystals stay within 100 ppm and the kernel slews by at most 500 ppm; this is their sum, and
# some more. It costs a client one microsecond for each millisecond it waits.
DRIFT_PPM_DEFAULT: Final = 1_000

_MILLION: Final = 1_000_000


def wait_ns(stamp: Stamp, lo_ns: int) -> int:
    """How long the true time may still take to pass ``stamp``: 0 when it certainly has.

    ``lo_ns`` is a lower bound of the true time now. The comparison is strict: at equality
    another oracle could still give the same tick to a transaction that begins later.
    """
    return max(0, time_ns(stamp) + 1 - lo_ns)


def elapsed_at_least_ns(monotonic_ns: int, drift_ppm: int) -> int:
    """True time that has certainly passed while a monotonic clock counted ``monotonic_ns``."""
    return monotonic_ns - -(-monotonic_ns * drift_ppm // _MILLION)


class Passed:
    """What one process knows about the true time: the best lower bound it was ever told.

    The bound never falls: an older or worse report changes nothing.
    """

    __slots__ = ("_drift_ppm", "_lo_ns", "_seen_at_ns")

    def __init__(self, drift_ppm: int = DRIFT_PPM_DEFAULT) -> None:
        assert 0 <= drift_ppm < _MILLION, drift_ppm
        self._drift_ppm = drift_ppm
        self._lo_ns = 0
        self._seen_at_ns = 0

    def observe(self, lo_ns: int, arrived_at_ns: int) -> None:
        """Learn from a message that arrived at monotonic time ``arrived_at_ns``."""
        if lo_ns > self.lower_ns(arrived_at_ns):
            self._lo_ns = lo_ns
            self._seen_at_ns = arrived_at_ns

    @property
    def observed_ns(self) -> int:
        """The best bound as it was told, without what has passed since; 0 before the first."""
        return self._lo_ns

    def lower_ns(self, monotonic_ns: int) -> int:
        """The true time now is at least this; 0 before the first observation."""
        elapsed_ns = monotonic_ns - self._seen_at_ns
        if self._lo_ns == 0 or elapsed_ns <= 0:
            return self._lo_ns
        # Two readings in whole nanoseconds can be up to one further apart than the moments.
        return self._lo_ns + elapsed_at_least_ns(elapsed_ns, self._drift_ppm) - 1

    def covers(self, stamp: Stamp, monotonic_ns: int) -> bool:
        """Whether a transaction with this stamp may be acknowledged now."""
        return self.lower_ns(monotonic_ns) > time_ns(stamp)

    def wait_ns(self, stamp: Stamp, monotonic_ns: int) -> int:
        """How long to wait on the monotonic clock until ``covers`` holds; 0 when it does."""
        missing_ns = wait_ns(stamp, self.lower_ns(monotonic_ns))
        if missing_ns == 0:
            return 0
        # Two more for the roundings of lower_ns; the negations round up.
        return -(-(missing_ns + 2) * _MILLION // (_MILLION - self._drift_ppm))
