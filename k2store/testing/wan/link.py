"""One direction between two regions: its rule now, and what has happened on it.

Pure: time and chance are arguments. Both engines ask a link of every piece (a packet, or bytes that
were read at once) when it arrives there, through the gate of the engine that carries it.
"""

from __future__ import annotations

import random

import msgspec


class LinkRule(msgspec.Struct, frozen=True, kw_only=True):
    """What a link does to what is sent over it.

    delay_s, jitter_s  each piece takes delay_s plus a uniform part of jitter_s, and never overtakes
    loss               part of the pieces that are lost, 0..1
    double             part of the pieces that arrive twice, 0..1; between namespaces only
    cut                nothing passes
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    double: float = 0.0
    cut: bool = False


class LinkCounts(msgspec.Struct, kw_only=True):
    """What happened on a link since it was made: the evidence that a fault took effect.

    sent        pieces and bytes that came to the link
    delivered   left it at the far end
    lost        by the rule's chance; the proxy counts pieces that were sent again later
    doubled     by the rule's chance; the second one is not counted as sent
    cut         met a cut: gone between namespaces, held back until the cut heals by the proxy
    refused     found the engine's queue full, or the far end gone
    late_s_max  most that a piece left after its time
    """

    sent: int = 0
    sent_bytes: int = 0
    delivered: int = 0
    delivered_bytes: int = 0
    lost: int = 0
    lost_bytes: int = 0
    doubled: int = 0
    doubled_bytes: int = 0
    cut: int = 0
    cut_bytes: int = 0
    refused: int = 0
    refused_bytes: int = 0
    late_s_max: float = 0.0


class Link:
    """See the module. Seconds are of one monotonic clock."""

    __slots__ = ("rule", "counts", "_chance", "_last_due_s")

    def __init__(self, rule: LinkRule, chance: random.Random) -> None:
        self.rule = rule
        self.counts = LinkCounts()
        self._chance = chance
        self._last_due_s = 0.0

    def enter(self, size: int) -> None:
        """Count a piece that came to the link."""
        self.counts.sent += 1
        self.counts.sent_bytes += size

    def stopped(self, size: int) -> bool:
        """Whether a cut stops a piece now, which is then counted."""
        if not self.rule.cut:
            return False
        self.counts.cut += 1
        self.counts.cut_bytes += size
        return True

    def loses(self, size: int) -> bool:
        """Whether chance takes a piece, which is then counted."""
        loss = self.rule.loss
        if loss == 0 or self._chance.random() >= loss:
            return False
        self.counts.lost += 1
        self.counts.lost_bytes += size
        return True

    def doubles(self, size: int) -> bool:
        """Whether a piece arrives twice, which is then counted."""
        double = self.rule.double
        if double == 0 or self._chance.random() >= double:
            return False
        self.counts.doubled += 1
        self.counts.doubled_bytes += size
        return True

    def travel_s(self) -> float:
        """How long the next piece is under way."""
        rule = self.rule
        return rule.delay_s + (rule.jitter_s * self._chance.random() if rule.jitter_s else 0.0)

    def due_s(self, now_s: float) -> float:
        """When a piece sent now leaves at the far end: after every piece sent before it."""
        due_s = now_s + self.travel_s()
        if due_s < self._last_due_s:
            due_s = self._last_due_s
        self._last_due_s = due_s
        return due_s

    def leave(self, size: int, late_s: float) -> None:
        """Count a piece that was delivered, so much after its time."""
        counts = self.counts
        counts.delivered += 1
        counts.delivered_bytes += size
        counts.late_s_max = max(counts.late_s_max, late_s)

    def refuse(self, size: int) -> None:
        """Count a piece that the engine could not carry or hand over."""
        self.counts.refused += 1
        self.counts.refused_bytes += size
