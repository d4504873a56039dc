"""The kernel's clock with the kernel's own estimate of its error.

An NTP or PTP daemon tells the kernel, through ``adjtimex``, the largest error its clock can
have; between two such messages the kernel lets that figure grow at 500 ppm. A host without a
daemon carries the flag ``STA_UNSYNC``, and then there is no estimate to be had.
"""

import ctypes
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from k2store.clock.boottime import boottime_ns
from k2store.clock.ports import ClockSource, ClockState
from k2store.clock.steady import Steady
from k2store.errors import ClockUncertain
from truetime import Interval

# Asking the kernel costs a system call; in between the error is taken as if it had grown
# for the whole time at the largest rate the kernel assumes.
REFRESH_NS: Final = 100_000_000
_GROWTH_PPM: Final = 500
_GROWTH_NS: Final = REFRESH_NS * _GROWTH_PPM // 1_000_000

_SECOND_NS: Final = 1_000_000_000
_DAY_NS: Final = 86_400 * _SECOND_NS
_LEAP_MARGIN_NS: Final = 2 * _SECOND_NS

_STA_UNSYNC: Final = 0x0040
_TIME_INS: Final = 1  # a leap second will be inserted at the end of the day
_TIME_DEL: Final = 2
_TIME_OOP: Final = 3  # it is being inserted now
_TIME_ERROR: Final = 5


class KernelEstimate(Struct, frozen=True, gc=False):
    """What ``adjtimex`` says.

    error_max_ns    the true time is at most this far from the host's time
    error_ns        the daemon's own estimate, for people
    synchronised    whether anybody disciplines the clock
    leap_pending    a leap second is due at the end of this UTC day
    leap_now        a leap second is being inserted
    """

    error_max_ns: int
    error_ns: int
    synchronised: bool
    leap_pending: bool = False
    leap_now: bool = False


class _Timeval(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_long))


class _Timex(ctypes.Structure):
    """``struct timex`` of Linux on 64-bit machines; see adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),  # microseconds
        ("esterror", ctypes.c_long),  # microseconds
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", _Timeval),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("padding", ctypes.c_int * 11),
    )


def ask_kernel() -> KernelEstimate:
    """The kernel's present estimate; reading it needs no privilege.

    ``ClockUncertain`` where the system has no such call or refuses it.
    """
    try:
        call = ctypes.CDLL(None, use_errno=True).ntp_adjtime
    except AttributeError as error:
        raise ClockUncertain("this system has no ntp_adjtime; " + _advice()) from error
    timex = _Timex(modes=0)  # modes 0: read, change nothing
    state = call(ctypes.byref(timex))
    if state < 0:
        raise ClockUncertain(
            f"the kernel refused ntp_adjtime (errno {ctypes.get_errno()}); " + _advice()
        )
    return KernelEstimate(
        error_max_ns=timex.maxerror * 1_000,
        error_ns=timex.esterror * 1_000,
        synchronised=state != _TIME_ERROR and not timex.status & _STA_UNSYNC,
        leap_pending=state in {_TIME_INS, _TIME_DEL},
        leap_now=state == _TIME_OOP,
    )


class KernelClock:
    """``lo`` and ``hi`` lie the kernel's ``maxerror`` below and above the host's time."""

    __slots__ = (
        "_ask",
        "_asked_at_ns",
        "_estimate",
        "_half_ns",
        "_realtime_ns",
        "_steady",
        "monotonic_ns",
    )

    def __init__(
        self,
        *,
        ask: Callable[[], KernelEstimate] = ask_kernel,
        realtime_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = boottime_ns,
    ) -> None:
        self._ask = ask
        self._realtime_ns = realtime_ns
        self.monotonic_ns = monotonic_ns
        self._steady = Steady()
        self._estimate = KernelEstimate(0, 0, synchronised=False)
        self._half_ns = 0
        self._asked_at_ns = -REFRESH_NS  # long ago: ask at the first reading

    def read(self) -> tuple[int, int]:
        """See ``Clock.read``."""
        now_ns = self._realtime_ns()
        if not 0 <= now_ns - self._asked_at_ns < REFRESH_NS:
            self._refresh(now_ns)
            now_ns = self._realtime_ns()
        if not self._estimate.synchronised:
            raise ClockUncertain(
                "the kernel says that its clock is not synchronised; " + _advice(),
                retry_after_s=REFRESH_NS / _SECOND_NS,
            )
        return self._steady.hold(now_ns - self._half_ns, now_ns + self._half_ns)

    def now(self) -> Interval:
        """See ``Clock.now``."""
        return Interval(*self.read())

    @property
    def source(self) -> ClockSource:
        """See ``Clock.source``."""
        try:
            lo_ns, hi_ns = self.read()
        except ClockUncertain as error:
            return ClockSource(
                name="kernel",
                assumed=False,
                bound_ns=None,
                state=ClockState.UNSYNCHRONISED,
                detail=error.message,
            )
        behind_ns = self._steady.stepped_back_ns
        if behind_ns > 0:
            detail = (
                f"the host's clock was set back and is {behind_ns} ns behind; time stands still"
            )
            return ClockSource(
                name="kernel",
                assumed=False,
                bound_ns=hi_ns - lo_ns,
                state=ClockState.HELD,
                detail=detail,
            )
        detail = (
            f"the kernel's largest error is {self._estimate.error_max_ns} ns, "
            f"its estimated one {self._estimate.error_ns} ns"
        )
        return ClockSource(
            name="kernel", assumed=False, bound_ns=hi_ns - lo_ns, state=ClockState.OK, detail=detail
        )

    def _refresh(self, now_ns: int) -> None:
        self._asked_at_ns = now_ns
        self._estimate = estimate = self._ask()
        half_ns = estimate.error_max_ns + _GROWTH_NS
        to_midnight_ns = -now_ns % _DAY_NS
        if estimate.leap_now or (estimate.leap_pending and to_midnight_ns < _LEAP_MARGIN_NS):
            half_ns += _SECOND_NS  # UTC repeats or skips a second: admit it, and be refused
        self._half_ns = half_ns


def _advice() -> str:
    return (
        "run chrony or another NTP or PTP daemon on this host, or, where all nodes share one "
        'clock, declare the bound with clock.source = "declared"'
    )
