"""The clock with a declared bound: the host's time, and somebody's word for how good it is."""

import time
from collections.abc import Callable
from typing import Final

from k2store.clock.boottime import boottime_ns
from k2store.clock.ports import ClockSource, ClockState
from truetime import Interval

DECLARED_BOUND_NS_DEFAULT: Final = 500_000  # hi - lo


class DeclaredClock:
    """``lo`` and ``hi`` lie half of ``bound_ns`` below and above the host's time.

    ``monotonic_ns`` of the instance is the clock for durations. The edges follow one reading
    at a fixed distance, so it is enough to keep that reading from stepping back.
    """

    __slots__ = ("_half_ns", "_latest_ns", "_realtime_ns", "monotonic_ns")

    def __init__(
        self,
        bound_ns: int = DECLARED_BOUND_NS_DEFAULT,
        *,
        realtime_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = boottime_ns,
    ) -> None:
        assert bound_ns > 0, bound_ns
        self._half_ns = (bound_ns + 1) // 2
        self._latest_ns = 0
        self._realtime_ns = realtime_ns
        self.monotonic_ns = monotonic_ns

    def read(self) -> tuple[int, int]:
        """See ``Clock.read``."""
        now_ns = self._realtime_ns()
        if now_ns < self._latest_ns:
            now_ns = self._latest_ns
        else:
            self._latest_ns = now_ns
        half_ns = self._half_ns
        return now_ns - half_ns, now_ns + half_ns

    def now(self) -> Interval:
        """See ``Clock.now``."""
        return Interval(*self.read())

    @property
    def source(self) -> ClockSource:
        """See ``Clock.source``."""
        behind_ns = self._latest_ns - self._realtime_ns()
        if behind_ns > 0:
            state = ClockState.HELD
            detail = (
                f"the host's clock was set back and is {behind_ns} ns behind; time stands still"
            )
        else:
            state = ClockState.OK
            detail = "the bound is taken from the settings and not measured"
        return ClockSource(
            name="declared", assumed=True, bound_ns=2 * self._half_ns, state=state, detail=detail
        )
