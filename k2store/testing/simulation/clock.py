"""Clocks that go wrong on purpose, inside their contract or outside of it.

A machine has one `HostClock`: true time plus an offset that drifts, is stepped, or grows while the
clock stands still. Each process on it reads through its own `SimClock`, which implements the
`k2store.clock` port and, like the real ones, never steps back while it lives.

`honest` decides which of two experiments a run is. An honest clock's interval always contains
true time, to the nanosecond at its worst: whatever happens to the reading, the interval is
stretched just so far that it stays true, and strict serializability must hold. A dishonest one
keeps its advertised bound and is simply wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from k2store.clock.ports import ClockSource, ClockState
from k2store.clock.steady import Steady
from k2store.testing.simulation.probes import Probes
from truetime import Interval

_BILLION: Final = 1_000_000_000
BOUND_NS_DEFAULT: Final = 1_000_000
"""Advertised `hi - lo`."""


class HostClock:
    """The clock of one machine. It survives its processes, and a power cut."""

    def __init__(
        self,
        true_ns: Callable[[], int],
        probes: Probes,
        *,
        offset_ns: int = 0,
        drift_ppb: int = 0,
        bound_ns: int = BOUND_NS_DEFAULT,
        honest: bool = True,
        boot_ns: int = 0,
        grain_ns: int = 0,
    ) -> None:
        """`true_ns` gives true time; `boot_ns` is what the monotonic clock shows at first.

        `grain_ns` is the smallest step by which the reading moves; 0 for any.
        """
        self.grain_ns = grain_ns
        self.bound_ns = bound_ns
        self.doubt = 1.0
        """The advertised bound is this many times `bound_ns`."""
        self.honest = honest
        self.true_ns = true_ns
        self._probes = probes
        self._anchor_ns = true_ns()
        self._shown_ns = self._anchor_ns + offset_ns
        self._drift_ppb = drift_ppb
        self._frozen = False
        self._counted_ns = boot_ns
        self._counted_at_ns = self._anchor_ns

    def reading_ns(self) -> int:
        """What the clock shows now."""
        if self._frozen:
            self._probes.hit("clock.frozen")
            return self._shown_ns
        elapsed_ns = self.true_ns() - self._anchor_ns
        return self._shown_ns + elapsed_ns + elapsed_ns * self._drift_ppb // _BILLION

    @property
    def offset_ns(self) -> int:
        """How far the reading is ahead of true time."""
        return self.reading_ns() - self.true_ns()

    def edges(self) -> tuple[int, int]:
        """The interval around the reading, made true if the clock is honest."""
        reading_ns, true_ns = self.reading_ns(), self.true_ns()
        if self.grain_ns:
            reading_ns -= reading_ns % self.grain_ns
        half_ns = (int(self.bound_ns * self.doubt) + 1) // 2
        lo_ns, hi_ns = reading_ns - half_ns, reading_ns + half_ns
        if lo_ns <= true_ns <= hi_ns:
            return lo_ns, hi_ns
        if self.honest:
            self._probes.hit("clock.widened")
            return min(lo_ns, true_ns), max(hi_ns, true_ns)
        self._probes.hit("clock.outside_bound")
        return lo_ns, hi_ns

    def set_offset(self, offset_ns: int) -> None:
        """Set the clock to true time plus an offset, as a wrong time server would."""
        self._probes.hit("clock.stepped")
        self._anchor_ns = self.true_ns()
        self._shown_ns = self._anchor_ns + offset_ns

    def set_drift(self, drift_ppb: int) -> None:
        """Run too fast (positive) or too slow from now on, in parts of 10^9."""
        self._count()
        self._shown_ns, self._anchor_ns = self.reading_ns(), self.true_ns()
        self._drift_ppb = drift_ppb

    def freeze(self) -> None:
        """Stand still from now on."""
        self._shown_ns, self._anchor_ns = self.reading_ns(), self.true_ns()
        self._frozen = True

    def thaw(self) -> None:
        """Go on from the frozen reading."""
        self._shown_ns, self._anchor_ns = self._shown_ns, self.true_ns()
        self._frozen = False

    def correct(self) -> None:
        """Show true time, without drift, as after a good synchronisation."""
        self._count()
        self._frozen = False
        self._drift_ppb = 0
        self.doubt = 1.0
        self._anchor_ns = self._shown_ns = self.true_ns()

    def monotonic_ns(self) -> int:
        """Time since the machine was started, in ns; runs at the clock's drift."""
        elapsed_ns = self.true_ns() - self._counted_at_ns
        return self._counted_ns + elapsed_ns + elapsed_ns * self._drift_ppb // _BILLION

    def reboot(self) -> None:
        """The monotonic clock begins again."""
        self._counted_ns, self._counted_at_ns = 0, self.true_ns()

    def _count(self) -> None:
        """Keep what the monotonic clock has counted: a new drift holds from now on only."""
        self._counted_ns, self._counted_at_ns = self.monotonic_ns(), self.true_ns()


class SimClock:
    """A process's clock; implements `k2store.clock.ports.Clock`."""

    def __init__(self, host: HostClock) -> None:
        self._host = host
        self._steady = Steady()
        self._monotonic_ns = 0

    def read(self) -> tuple[int, int]:
        """`(lo_ns, hi_ns)` now."""
        return self._steady.hold(*self._host.edges())

    def now(self) -> Interval:
        """The interval now."""
        return Interval(*self.read())

    def monotonic_ns(self) -> int:
        """Duration clock."""
        self._monotonic_ns = max(self._monotonic_ns, self._host.monotonic_ns())
        return self._monotonic_ns

    @property
    def source(self) -> ClockSource:
        """How this clock is doing."""
        lo_ns, hi_ns = self.read()
        held = self._steady.stepped_back_ns > 0
        return ClockSource(
            name="simulated",
            assumed=True,
            bound_ns=hi_ns - lo_ns,
            state=ClockState.HELD if held else ClockState.OK,
            detail=f"{self._host.offset_ns} ns ahead of true time",
        )
