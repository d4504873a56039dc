"""All links between some regions, and the outside that sees every region without delay."""

from __future__ import annotations

import random
from collections.abc import Sequence

from k2store.testing.wan.link import Link, LinkCounts, LinkRule
from k2store.testing.wan.orders import Count, Counted, Done, Order, Reply, SetRule

OUTSIDE = 0
"""Index of the machine itself, which stands in no region. Regions are numbered from 1."""


class Network:
    """Links by the indexes of their ends. A rule is set by the names of regions."""

    def __init__(self, regions: Sequence[str], seed: int) -> None:
        self.regions = tuple(regions)
        chance = random.Random(seed)
        ends = range(len(self.regions) + 1)
        self._links = [[Link(LinkRule(), chance) for _ in ends] for _ in ends]

    def index(self, region: str) -> int:
        """Number of a region; "" is the outside."""
        return self.regions.index(region) + 1 if region else OUTSIDE

    def link(self, source: int, target: int) -> Link:
        """The link from one end to another."""
        return self._links[source][target]

    def obey(self, order: Order) -> Reply:
        """Change a rule or tell the counts; what else an order may be is the engine's own."""
        match order:
            case SetRule(source=source, target=target, rule=rule):
                self.link(self.index(source), self.index(target)).rule = rule
                return Done()
            case Count():
                return Counted(links=self._counts())
        raise AssertionError(f"no order of the network: {order}")

    def _counts(self) -> list[tuple[str, str, LinkCounts]]:
        return [
            (source, target, self.link(self.index(source), self.index(target)).counts)
            for source in self.regions
            for target in self.regions
        ]
