"""Answers that are durable but may not be told yet: rule T3, the commit wait (docs/protocol.md §2).

A commit, a failed condition or an outcome reveals data, so it is told only after true time has
certainly passed its stamp. Stamps are taken when a transaction begins, so most answers find their
wait already over; the others queue here, one timer for the head of the queue and none for each.
"""

from __future__ import annotations

from heapq import heappop, heappush

from mvcc.messages import Answer
from truetime.timestamp import TICK_NS, time_ns


class Held:
    """A queue by stamp."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Answer, int]] = []
        self._number = 0
        self.waited_ns_total = 0
        self.waited_ns_max = 0

    def __len__(self) -> int:
        return len(self._heap)

    def hold(self, stamp: int, answer: Answer, now_ns: int) -> None:
        """Keep an answer until true time has passed ``stamp``; ``now_ns`` is the clock's present lower edge."""
        self._number += 1
        heappush(self._heap, (stamp, self._number, answer, now_ns))

    def release(self, lo: int, lo_ns: int) -> list[tuple[Answer, int]]:
        """Answers whose stamps lie below ``lo`` (the lower edge as a stamp), each with the time it was held."""
        heap = self._heap
        released: list[tuple[Answer, int]] = []
        while heap and heap[0][0] < lo:
            _, _, answer, since_ns = heappop(heap)
            waited_ns = max(0, lo_ns - since_ns)
            self.waited_ns_total += waited_ns
            if waited_ns > self.waited_ns_max:
                self.waited_ns_max = waited_ns
            released.append((answer, waited_ns))
        return released

    def next_ns(self) -> int | None:
        """The earliest lower edge of the clock at which something can be released."""
        return time_ns(self._heap[0][0]) + TICK_NS if self._heap else None
