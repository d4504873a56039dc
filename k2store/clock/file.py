"""A clock that a file drives, so that tests can make time wrong on purpose.

    K2CLOCK1 │ sequence │ flags │ anchor │ shown │ drift │ bound
    8 bytes    u32        u32     i64      i64     i64     i64     little endian

At host time ``anchor`` the clock showed ``shown``; from there it runs ``drift`` parts in 10^9
too fast, or stands still when frozen. The sequence is odd while somebody writes, so a reader
in another process never mixes two states. The clock itself never steps back (``steady``): a
file that says so makes it stand still, and shows the step only after a restart.
"""

import mmap
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct, structs

from k2store.clock.boottime import boottime_ns
from k2store.clock.declared import DECLARED_BOUND_NS_DEFAULT
from k2store.clock.ports import ClockSource, ClockState
from k2store.clock.steady import Steady
from k2store.errors import ClockUncertain
from truetime import Interval

_MAGIC: Final = b"K2CLOCK1"
_SEQUENCE: Final = struct.Struct("<I")
_SEQUENCE_AT: Final = 8
_BODY: Final = struct.Struct("<Iqqqq")
_BODY_AT: Final = 12
_SIZE: Final = 64
_FROZEN: Final = 1
_TRIES_MAX: Final = 1_000
_BILLION: Final = 1_000_000_000


class _Setting(Struct, frozen=True, gc=False):
    frozen: bool
    anchor_ns: int
    shown_ns: int
    drift_ppb: int
    bound_ns: int

    def shown_at(self, host_ns: int) -> int:
        """What the clock shows when the host's clock shows ``host_ns``."""
        if self.frozen:
            return self.shown_ns
        elapsed_ns = host_ns - self.anchor_ns
        return self.shown_ns + elapsed_ns + elapsed_ns * self.drift_ppb // _BILLION


class ClockFile:
    """The writer's end: creates the file and changes what it says, for all who read it."""

    def __init__(self, path: Path, *, realtime_ns: Callable[[], int] = time.time_ns) -> None:
        """Open an existing clock file; ``ClockUncertain`` if it is none."""
        self._realtime_ns = realtime_ns
        self._map = _open(path, writable=True)

    @classmethod
    def create(
        cls,
        path: Path,
        bound_ns: int = DECLARED_BOUND_NS_DEFAULT,
        *,
        realtime_ns: Callable[[], int] = time.time_ns,
    ) -> "ClockFile":
        """A new file whose clock is right: offset 0, no drift, ``hi - lo = bound_ns``."""
        now_ns = realtime_ns()
        body = _BODY.pack(0, now_ns, now_ns, 0, bound_ns)
        image = _MAGIC + _SEQUENCE.pack(0) + body
        path.write_bytes(image.ljust(_SIZE, b"\0"))
        return cls(path, realtime_ns=realtime_ns)

    def change(
        self,
        *,
        offset_ns: int | None = None,
        drift_ppm: float | None = None,
        bound_ns: int | None = None,
        frozen: bool | None = None,
    ) -> None:
        """Change some of what the clock does; the rest goes on from where it is.

        ``offset_ns`` sets the clock to the host's time plus the offset: a step. ``drift_ppm``
        is positive for a clock that runs too fast. Thawing continues from the frozen reading;
        give ``offset_ns=0`` as well to put the clock right.
        """
        now_ns = self._realtime_ns()
        old = _load(self._map)
        new = _Setting(
            frozen=old.frozen if frozen is None else frozen,
            anchor_ns=now_ns,
            shown_ns=old.shown_at(now_ns) if offset_ns is None else now_ns + offset_ns,
            drift_ppb=old.drift_ppb if drift_ppm is None else round(drift_ppm * 1_000),
            bound_ns=old.bound_ns if bound_ns is None else bound_ns,
        )
        assert new.bound_ns > 0, new.bound_ns
        (sequence,) = _SEQUENCE.unpack_from(self._map, _SEQUENCE_AT)
        _SEQUENCE.pack_into(self._map, _SEQUENCE_AT, (sequence | 1) & 0xFFFF_FFFF)
        _BODY.pack_into(
            self._map,
            _BODY_AT,
            _FROZEN if new.frozen else 0,
            *structs.astuple(new)[1:],
        )
        _SEQUENCE.pack_into(self._map, _SEQUENCE_AT, ((sequence | 1) + 1) & 0xFFFF_FFFF)

    def close(self) -> None:
        """Unmap the file; readers keep what it says."""
        self._map.close()


class FileClock:
    """``lo`` and ``hi`` lie half of the file's bound below and above the time it shows."""

    __slots__ = ("_map", "_realtime_ns", "_steady", "monotonic_ns")

    def __init__(
        self,
        path: Path,
        *,
        realtime_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = boottime_ns,
    ) -> None:
        """``ClockUncertain`` if there is no clock file at ``path``."""
        self._map = _open(path, writable=False)
        self._realtime_ns = realtime_ns
        self._steady = Steady()
        self.monotonic_ns = monotonic_ns

    def read(self) -> tuple[int, int]:
        """See ``Clock.read``."""
        setting = _load(self._map)
        shown_ns = setting.shown_at(self._realtime_ns())
        half_ns = (setting.bound_ns + 1) // 2
        return self._steady.hold(shown_ns - half_ns, shown_ns + half_ns)

    def now(self) -> Interval:
        """See ``Clock.now``."""
        return Interval(*self.read())

    @property
    def source(self) -> ClockSource:
        """See ``Clock.source``."""
        lo_ns, hi_ns = self.read()
        setting = _load(self._map)
        offset_ns = setting.shown_at(host_ns := self._realtime_ns()) - host_ns
        state = ClockState.HELD if self._steady.stepped_back_ns else ClockState.OK
        detail = (
            f"offset {offset_ns} ns, drift {setting.drift_ppb / 1_000:g} ppm"
            f"{', frozen' if setting.frozen else ''}, as a file says"
        )
        return ClockSource(
            name="file", assumed=True, bound_ns=hi_ns - lo_ns, state=state, detail=detail
        )

    def close(self) -> None:
        """Unmap the file; the clock must not be read any more."""
        self._map.close()


def _open(path: Path, *, writable: bool) -> mmap.mmap:
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    try:
        with path.open("r+b" if writable else "rb") as file:
            view = mmap.mmap(file.fileno(), _SIZE, access=access)
    except (OSError, ValueError) as error:
        raise ClockUncertain(f"cannot use {path} as a clock file: {error}") from error
    if view[: len(_MAGIC)] != _MAGIC:
        view.close()
        raise ClockUncertain(f"{path} is not a clock file: it does not begin with {_MAGIC!r}")
    return view


def _load(view: mmap.mmap) -> _Setting:
    for _ in range(_TRIES_MAX):
        (before,) = _SEQUENCE.unpack_from(view, _SEQUENCE_AT)
        flags, anchor_ns, shown_ns, drift_ppb, bound_ns = _BODY.unpack_from(view, _BODY_AT)
        (after,) = _SEQUENCE.unpack_from(view, _SEQUENCE_AT)
        if before == after and before % 2 == 0:
            return _Setting(bool(flags & _FROZEN), anchor_ns, shown_ns, drift_ppb, bound_ns)
    raise ClockUncertain("the clock file is being written without end; did its writer die?")
