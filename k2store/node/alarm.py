"""A timer that keeps microseconds.

Event loops round timers up to a millisecond, which would more than double a commit wait of 0.5 ms.
On Linux a timer file descriptor watched by the loop does not round; elsewhere, and in the
simulator, the loop's own timers serve.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from typing import Protocol


class Alarm(Protocol):
    """Calls back once, at the time last set."""

    def set(self, delay_ns: int) -> None:
        """Ring after ``delay_ns``; an alarm set before is replaced."""

    def close(self) -> None:
        """Never ring again."""


class LoopAlarm:
    """An alarm on the event loop's own timers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None

    def set(self, delay_ns: int) -> None:
        """Ring after ``delay_ns``, as finely as the loop can."""
        self.close()
        self._handle = self._loop.call_later(max(delay_ns, 0) / 1e9, self._ring)

    def close(self) -> None:
        """Cancel it."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000


class DescriptorAlarm:
    """An alarm on a Linux timer file descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop = loop
        self._ring = ring
        self._spec = _Itimerspec()
        self._spec_pointer = ctypes.byref(self._spec)
        loop.add_reader(self._descriptor, self._expired)

    def set(self, delay_ns: int) -> None:
        """Ring after ``delay_ns``."""
        seconds, nanoseconds = divmod(max(delay_ns, 1), 1_000_000_000)
        self._spec.it_value.tv_sec = seconds
        self._spec.it_value.tv_nsec = nanoseconds
        self._libc.timerfd_settime(self._descriptor, 0, self._spec_pointer, None)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _expired(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return  # set again in between
        self._ring()


def make_alarm(loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> Alarm:
    """The finest alarm there is on this loop."""
    try:
        return DescriptorAlarm(loop, ring)
    except (OSError, AttributeError, NotImplementedError):
        return LoopAlarm(loop, ring)
