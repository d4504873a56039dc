"""What the store asks of a clock."""

from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from truetime import Interval


class ClockState(StrEnum):
    """Whether a clock's word can be taken now."""

    OK = "ok"
    HELD = "held"  # the host's clock stepped back; both edges wait for it to catch up
    UNSYNCHRONISED = "unsynchronised"  # nobody disciplines it: no interval is given


class ClockSource(Struct, frozen=True, kw_only=True):
    """A clock's description of itself.

    name       ``declared``, ``kernel``, ``file`` or ``simulated``
    assumed    True when the bound is somebody's word and not measured
    bound_ns   the present ``hi - lo``; None while there is none
    state      see ``ClockState``
    detail     one sentence for people
    """

    name: str
    assumed: bool
    bound_ns: int | None
    state: ClockState
    detail: str


class Clock(Protocol):
    """An interval that contains the true time, whenever asked; it never steps back.

    ``now`` and ``read`` raise ``ClockUncertain`` when no interval can be promised.
    """

    def now(self) -> Interval:
        """The interval now."""
        ...

    def read(self) -> tuple[int, int]:
        """``(lo_ns, hi_ns)`` now: the same as ``now`` for the hot path."""
        ...

    def monotonic_ns(self) -> int:
        """A clock for durations that counts suspended time and never steps back."""
        ...

    @property
    def source(self) -> ClockSource:
        """How this clock knows, and how well, now."""
        ...
