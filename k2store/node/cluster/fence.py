"""Noticing a clock that lies outside its own bound, by what other nodes' clocks say.

Every frame carries the earliest that now may be for its sender. Where that is later than the latest
that now may be here, one of the two clocks breaks its promise. Which one nobody knows; but a node
that finds itself behind most of the others, or is told by most of them that it is ahead, is the one
whose clock is wrong::

    own clock      [lo  hi]
    frame says               lo'         hi < lo': the sender is ahead of us, or we are behind

Such a node gives no stamps, leads nothing and serves nothing that needs a clock, until the others
have agreed with it again for a while. A clock that is too slow by less than the way of a frame is
not noticed so: the bound must hold, this only limits the damage of one that does not.
"""

from __future__ import annotations

from typing import Final

from truetime import Interval

FORGET_NS: Final = 2_000_000_000
"""What a peer has shown of a clock counts for so long."""


class Fence:
    """What peers' clocks say of the own one."""

    def __init__(self) -> None:
        self._ahead_ns: dict[int, int] = {}
        self._accused_ns: dict[int, int] = {}
        self.disagreements = 0
        """Frames whose sender's clock contradicted the own one."""
        self.trips = 0
        self._was_tripped = False

    def hear(
        self, peer: int, lo_ns: int, *, accuses: bool, now: Interval, monotonic_ns: int
    ) -> None:
        """A frame of a peer: its earliest now, and whether it holds our clock to be ahead."""
        if lo_ns > now.hi_ns:
            self.disagreements += 1
            self._ahead_ns[peer] = monotonic_ns
        if accuses:
            self._accused_ns[peer] = monotonic_ns

    def accuses(self, peer: int, monotonic_ns: int) -> bool:
        """Whether the peer's clock was ahead of this one lately."""
        heard_ns = self._ahead_ns.get(peer)
        return heard_ns is not None and monotonic_ns - heard_ns < FORGET_NS

    @property
    def suspicious(self) -> bool:
        """Whether any clock has ever contradicted another."""
        return bool(self._ahead_ns or self._accused_ns)

    def tripped(self, peers: int, monotonic_ns: int) -> bool:
        """Whether the own clock contradicts most of `peers` others."""
        tripped = any(
            2 * sum(monotonic_ns - at_ns < FORGET_NS for at_ns in heard.values()) > peers
            for heard in (self._ahead_ns, self._accused_ns)
        )
        if tripped and not self._was_tripped:
            self.trips += 1
        self._was_tripped = tripped
        return tripped
