"""Rule T3 on the client's side: nothing is told to the caller before true time is past its stamp.

The client has no synchronised clock. Every frame of the node says how early true time can have
been when it left; a monotonic clock that counts suspended time says how much has certainly
passed since. All waits share one timer, set for the earliest stamp.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Final

from truetime import Passed
from truetime.commit_wait import DRIFT_PPM_DEFAULT
from truetime.timestamp import floor

_BILLION: Final = 1_000_000_000
_MILLION: Final = 1_000_000


class BoundedTime:
    """What this process knows about true time, and who waits for it to pass a stamp."""

    __slots__ = (
        "_asked_at_ns",
        "_latest_at_ns",
        "_latest_ns",
        "_loop",
        "_monotonic_ns",
        "_numbers",
        "_passed",
        "_spin_ns",
        "_timer",
        "_told_ns",
        "_waiting",
    )

    def __init__(
        self,
        monotonic_ns: Callable[[], int],
        loop: asyncio.AbstractEventLoop,
        *,
        spin_ns: int,
    ) -> None:
        """`spin_ns`: a wait shorter than this polls on the loop, whose timers count in ms.

        It must be 0 where time stands still while callbacks run.
        """
        self._monotonic_ns = monotonic_ns
        self._loop = loop
        self._spin_ns = spin_ns
        self._passed = Passed()
        self._told_ns = 0
        self._asked_at_ns = 0
        self._latest_ns = 0
        self._latest_at_ns = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.Handle | None = None

    def observe(self, lo_ns: int) -> None:
        """A frame has arrived just now that left when true time was at least `lo_ns`."""
        self._told_ns = lo_ns
        self._passed.observe(lo_ns, self._monotonic_ns())
        if self._waiting:
            self._wake()

    def asked(self) -> None:
        """A question leaves whose answer will say how late true time can be."""
        self._asked_at_ns = self._monotonic_ns()

    def answered(self, width_ns: int) -> None:
        """The answer stands in the latest frame, whose sender was sure of the time to `width_ns`.

        However long it was under way: it is no older than the question.
        """
        latest_ns, elapsed_ns = self._told_ns + width_ns, self._monotonic_ns() - self._asked_at_ns
        known_ns = self.upper_ns()
        if not known_ns or latest_ns + _at_most_ns(elapsed_ns) < known_ns:
            self._latest_ns, self._latest_at_ns = latest_ns, self._asked_at_ns

    def upper_ns(self) -> int:
        """True time now is at most this; 0 before the first answer."""
        if not self._latest_ns:
            return 0
        return self._latest_ns + _at_most_ns(self._monotonic_ns() - self._latest_at_ns)

    def lower_ns(self) -> int:
        """True time now is at least this; 0 before the first frame."""
        return self._passed.lower_ns(self._monotonic_ns())

    def not_before(self) -> int:
        """No stamp that is given from now on lies below this one; costs no look at a clock."""
        observed_ns = self._passed.observed_ns
        return floor(observed_ns) if observed_ns else 0

    def monotonic_ns(self) -> int:
        """The clock for durations."""
        return self._monotonic_ns()

    def covers(self, stamp: int) -> bool:
        """Whether true time has certainly passed the stamp."""
        return self._passed.covers(stamp, self._monotonic_ns())

    async def past(self, stamp: int) -> None:
        """Return once true time has certainly passed the stamp."""
        if self.covers(stamp):
            return
        future: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._waiting, (stamp, next(self._numbers), future))
        if self._timer is None or self._waiting[0][2] is future:
            self._set_timer()
        await future

    def close(self) -> None:
        """Set no timer any more; who still waits is cancelled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for _, _, future in self._waiting:
            future.cancel()
        self._waiting.clear()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left_ns = self._passed.wait_ns(self._waiting[0][0], self._monotonic_ns())
        if left_ns < self._spin_ns:
            self._timer = self._loop.call_soon(self._wake)
        else:
            self._timer = self._loop.call_later(left_ns / _BILLION, self._wake)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, now_ns = self._waiting, self._monotonic_ns()
        while waiting and self._passed.covers(waiting[0][0], now_ns):
            future = heapq.heappop(waiting)[2]
            if not future.done():
                future.set_result(None)
        if waiting:
            self._set_timer()


def _at_most_ns(elapsed_ns: int) -> int:
    """How much true time has passed at most while the clock for durations showed `elapsed_ns`."""
    return elapsed_ns + elapsed_ns * DRIFT_PPM_DEFAULT // (_MILLION - DRIFT_PPM_DEFAULT) + 2
