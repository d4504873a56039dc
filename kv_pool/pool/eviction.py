"""How much a block is worth keeping: policies for making room.

A policy gives a block a *worth* when it comes and whenever it is used; the block with the least goes first. Worths are
compared with each other only, so each policy has its own scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from msgspec import Struct


class Eviction(Protocol):
    """A policy; one object belongs to one tier of one pool."""

    def worth(self, name: bytes, depth: int, uses: int, tick: int) -> float:
        """What a block is worth that is used now.

        depth  how many blocks of the prompt lie before it
        uses   how often it has been used, this time included
        tick   counts the uses of the tier
        """
        ...

    def gone(self, worth: float) -> None:
        """A block of this worth had to go: none with less is left."""
        ...


class LeastRecent:
    """The block that was not used for longest goes first (LRU)."""

    def worth(self, name: bytes, depth: int, uses: int, tick: int) -> float:
        """When it was used."""
        return float(tick)

    def gone(self, worth: float) -> None:
        """Nothing to learn from it."""


class CostAware:
    """A block goes by what it would cost to have it again, how often it was used, and how long ago.

    Greedy-Dual with frequency (Cherkasova, 1998): worth = age + uses * cost. The age is the worth
    of the last block that had to go, so a costly block that nobody uses goes in the end as well.

    cost_s  seconds to compute a block at a depth; computing grows with depth, since it attends to more
    """

    def __init__(self, cost_s: Callable[[int], float]) -> None:
        self._cost_s = cost_s
        self._age = 0.0

    def worth(self, name: bytes, depth: int, uses: int, tick: int) -> float:
        """Age, and cost times uses."""
        return self._age + uses * self._cost_s(depth)

    def gone(self, worth: float) -> None:
        """Everything that is left is worth more."""
        self._age = max(self._age, worth)


class LastCopyAware:
    """Another policy, by which a block that is nowhere else is worth more.

    copies  how many other holders have a block, as a learner says
    grace   by how much it is worth more, on the other policy's scale
    """

    def __init__(self, inner: Eviction, copies: Callable[[bytes], int], grace: float) -> None:
        self._inner = inner
        self._copies = copies
        self._grace = grace

    def worth(self, name: bytes, depth: int, uses: int, tick: int) -> float:
        """As the other policy says, and the grace for the last copy."""
        worth = self._inner.worth(name, depth, uses, tick)
        return worth if self._copies(name) else worth + self._grace

    def gone(self, worth: float) -> None:
        """As the other policy."""
        self._inner.gone(worth)


class Outlook(Struct, frozen=True):
    """What policies are made from: the cost of a block at a depth, seconds; how many other holders
    have a block; and what being the last copy is worth, in uses of the tier and in seconds."""

    cost_s: Callable[[int], float]
    copies: Callable[[bytes], int]
    grace_ticks: float = 1_000.0
    grace_s: float = 0.1


EVICTIONS: Final[Mapping[str, Callable[[Outlook], Eviction]]] = {
    "lru": lambda outlook: LeastRecent(),
    "cost": lambda outlook: CostAware(outlook.cost_s),
    "lru-last-copy": lambda outlook: LastCopyAware(
        LeastRecent(), outlook.copies, outlook.grace_ticks
    ),
    "cost-last-copy": lambda outlook: LastCopyAware(
        CostAware(outlook.cost_s), outlook.copies, outlook.grace_s
    ),
}
"""Makers of all policies by name."""
