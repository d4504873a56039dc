"""The monotonic clock that goes on counting while the machine is suspended.

``time.monotonic`` stops during a suspend on Linux; a batch of stamps or a lease measured with
it would look fresh after a night's sleep.
"""

import time
from typing import Final

_BOOTTIME: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime_ns() -> int:
    """Nanoseconds since boot, suspended time included; never steps back."""
    return time.clock_gettime_ns(_BOOTTIME)
