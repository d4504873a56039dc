"""Where the nodes and clients of a cluster stand in its emulated network.

::

    apart = regions     fra: fra-1 fra-2 fra-3      iad: iad-1 ...      a link for each pair of regions
    apart = nodes       fra-1 │ fra-2 │ fra-3 │ iad-1 │ ...             a link for each pair of nodes,
                        fra │ iad │ sin                                 and for the clients of a region

With links between regions nothing can come between two nodes of one region, and that costs nothing.
With links between nodes every packet passes the emulator, and each node can be cut off by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

from k2store.testing.wan import round_trip_ms

Apart = Literal["regions", "nodes"]
"""What has links of its own."""


class Place(NamedTuple):
    """Where a node stands: the name in the network, and its number there."""

    name: str
    number: int


def node_name(region: str, number: int) -> str:
    """The name of a node."""
    return f"{region}-{number}"


def place_of(region: str, number: int, apart: Apart) -> Place:
    """The place of a node."""
    return Place(node_name(region, number), 1) if apart == "nodes" else Place(region, number)


def places_apart(
    regions: Sequence[str], nodes_per_region: int
) -> tuple[tuple[str, ...], Mapping[frozenset[str], float]]:
    """All places where nodes are apart, and the round trips between them in milliseconds."""
    region_of = {
        node_name(region, number): region
        for region in regions
        for number in range(1, nodes_per_region + 1)
    }
    region_of |= {region: region for region in regions}
    round_trips = {
        frozenset((one, other)): round_trip_ms(region_of[one], region_of[other])
        for one, other in combinations(region_of, 2)
    }
    return tuple(region_of), round_trips
