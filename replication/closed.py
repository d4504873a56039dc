"""Closed timestamps as a replica knows them: each counts from its LSN on.

A leader's promise "no more writes at or below ``closed``" travels with an entry, or alone with the
LSN of the leader's last entry. It says nothing to a replica that has not applied that LSN: a write
below ``closed`` may be among the entries it lacks. A value of an earlier epoch stays true, because
a new leader's low water lies above everything its predecessors closed.
"""

from __future__ import annotations

from heapq import heappop, heappush

from truetime.timestamp import ZERO, Stamp

WAITING_MAX = 1024
"""Beats kept for LSNs not yet applied; a replica further behind gets newer ones in time."""


class Closed:
    """The largest closed timestamp that counts, and those that wait for their LSN."""

    def __init__(self) -> None:
        self.attached: Stamp = ZERO
        """Nothing at or below it is missing from what has been applied."""
        self.known: Stamp = ZERO
        """The largest ever heard of, attached or not."""
        self._waiting: list[tuple[int, Stamp]] = []

    def hear(self, lsn: int, closed: Stamp, applied_lsn: int) -> None:
        """Take a value that counts once ``lsn`` is applied."""
        self.known = max(self.known, closed)
        if lsn <= applied_lsn:
            self.attached = max(self.attached, closed)
        elif len(self._waiting) < WAITING_MAX:
            heappush(self._waiting, (lsn, closed))

    def apply(self, lsn: int, closed: Stamp) -> None:
        """Entries up to ``lsn``, whose own value is ``closed``, have been applied."""
        self.known = max(self.known, closed)
        self.attached = max(self.attached, closed)
        while self._waiting and self._waiting[0][0] <= lsn:
            self.attached = max(self.attached, heappop(self._waiting)[1])

    def safe(self, pending: Stamp | None) -> Stamp:
        """Reads at or below it equal the leader's; ``pending`` is the oldest undecided intent."""
        return self.attached if pending is None else min(self.attached, pending - 1)
