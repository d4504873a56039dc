"""Which clock a node uses: from a setting to a clock."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from k2store.clock.declared import DECLARED_BOUND_NS_DEFAULT, DeclaredClock
from k2store.clock.file import FileClock
from k2store.clock.kernel import KernelClock
from k2store.clock.ports import Clock
from k2store.errors import Rejected

# Name of the source, and what it is good for; the documentation and the help text show it.
SOURCES: Final = {
    "declared": "the host's time with a bound you declare: one machine, one clock",
    "kernel": "the host's time with the kernel's own error estimate: needs an NTP or PTP daemon",
    "file": "a file says offset, drift and bound: fault injection in tests",
}


def open_clock(
    source: str,
    *,
    bound_ns: int = DECLARED_BOUND_NS_DEFAULT,
    path: Path | None = None,
) -> Clock:
    """The clock for setting ``clock.source``.

    ``bound_ns`` is used by ``declared``, ``path`` by ``file``. ``Rejected`` for an unknown name,
    a bound that is not positive or a missing path; ``ClockUncertain`` for an unusable file.
    """
    if bound_ns <= 0:
        raise Rejected(f"clock.bound is {bound_ns} ns; it must be positive", field="clock.bound")
    if source == "file" and path is None:
        raise Rejected('clock.source = "file" needs clock.file', field="clock.file")
    build: dict[str, Callable[[], Clock]] = {
        "declared": lambda: DeclaredClock(bound_ns),
        "kernel": KernelClock,
        "file": lambda: FileClock(path or Path()),
    }
    if source not in build:
        names = ", ".join(SOURCES)
        raise Rejected(f"clock.source is {source!r}; known are: {names}", field="clock.source")
    return build[source]()
