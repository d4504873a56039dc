"""What a member of the pool knows about true time: not before this, and not after that.

The lower bound is the client's own (`k2store.client.bounded_time`): each frame of a node says how early true
time can have been. The upper one comes from stamps: a stamp lies at or after the moment at which it
was given, and it was given after the request for it was sent. So true time now is at most the stamp and
what a monotonic clock has counted since, with the largest drift that such a clock can have. Of all
stamps that came back, the one that says most counts.

An expiry is measured from the lower bound, so a lease is asked for no longer than it says; whether
something has *not* run out yet is judged by the upper one.
"""

from __future__ import annotations

from typing import Final

import k2store
from truetime import Interval
from truetime.commit_wait import DRIFT_PPM_DEFAULT
from truetime.timestamp import time_ns

_MILLION: Final = 1_000_000


class Bounds:
    """True time of one connection, between two bounds."""

    __slots__ = ("_bounded", "_latest_ns", "_measured_at_ns")

    def __init__(self, db: k2store.Database) -> None:
        self._bounded = db.session.bounded_time
        self._latest_ns = 0
        self._measured_at_ns = 0

    def mark(self) -> int:
        """The monotonic clock, to be read before a request is sent; see `measure`."""
        return self._bounded.monotonic_ns()

    def measure(self, stamp: int, mark_ns: int) -> None:
        """Learn from a stamp that was given after `mark`."""
        said_ns = time_ns(stamp)
        if not self._latest_ns or said_ns < self._at(mark_ns):
            self._latest_ns, self._measured_at_ns = said_ns, mark_ns

    def earliest_ns(self) -> int:
        """True time now is at least this; nanoseconds since the Unix epoch."""
        return self._bounded.lower_ns()

    def latest_ns(self) -> int:
        """True time now is at most this. There must have been a stamp."""
        assert self._latest_ns, "a pool measures a stamp when it is opened"
        return self._at(self._bounded.monotonic_ns())

    def now(self) -> Interval:
        """True time now lies in here."""
        earliest_ns = self.earliest_ns()
        return Interval(earliest_ns, max(earliest_ns, self.latest_ns()))

    def _at(self, monotonic_ns: int) -> int:
        elapsed_ns = monotonic_ns - self._measured_at_ns
        drift_ns = abs(elapsed_ns) * DRIFT_PPM_DEFAULT // _MILLION
        return self._latest_ns + elapsed_ns + drift_ns + 1
