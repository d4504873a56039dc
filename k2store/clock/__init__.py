"""Clocks: where the intervals of ``truetime`` come from.

A clock promises ``lo <= UT <= hi`` (UT: true time). The store is as right as that promise, so
each source says how it knows:

    source       the interval                              whom to believe
    ──────────   ───────────────────────────────────────   ─────────────────────────────────────
    declared     the host's time, plus and minus half of   whoever wrote the bound into the
                 a bound from the settings                 settings: it is **assumed**, and shown so
    kernel       the host's time, plus and minus the       the NTP or PTP daemon that disciplines
                 kernel's own ``maxerror``                 the kernel's clock
    file         what a small shared file says: offset,    a test that wants clocks to go wrong
                 drift, bound, frozen

``declared`` suits one machine (or several that share one clock): all stamps then come from one
time line and the bound only costs commit wait. ``kernel`` suits several machines; it refuses,
with ``ClockUncertain``, on a host whose clock nobody disciplines.

No clock here ever steps back. When the host's clock does, both edges stand still until it has
caught up, and the oracle stops giving stamps as soon as they would lie too far ahead.
"""

from k2store.clock.boottime import boottime_ns
from k2store.clock.declared import DECLARED_BOUND_NS_DEFAULT, DeclaredClock
from k2store.clock.file import ClockFile, FileClock
from k2store.clock.kernel import KernelClock, KernelEstimate
from k2store.clock.ports import Clock, ClockSource, ClockState
from k2store.clock.selection import SOURCES, open_clock

__all__ = [
    "DECLARED_BOUND_NS_DEFAULT",
    "SOURCES",
    "Clock",
    "ClockFile",
    "ClockSource",
    "ClockState",
    "DeclaredClock",
    "FileClock",
    "KernelClock",
    "KernelEstimate",
    "boottime_ns",
    "open_clock",
]
