"""Who should hold which partition: a policy, as a pure function of the map.

::

    survive = zone      voters    up to three nodes of the home region
    survive = region    voters    one node in each of up to three regions: the home, regions that
                                  vote already, then the others, oldest first
                                  a region that was declared off only where there is no other
    both                learners  every other node: all can serve reads of everything

Present voters stay wherever the policy allows them, so that a newcomer moves nothing that is in
order. A member that has left the map leaves here; but a partition never loses the last of its
voters this way, since nobody could carry its log on: that is what a promotion is for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from k2store.control.map import Keyspace, Map, NodeInfo, PartitionInfo

VOTERS_MAX: Final = 3
"""Voters that the policy wants of a partition: one may be lost."""


def placed(present: Map) -> Map:
    """The map with the members of every partition as the policy wants them now."""
    keyspaces = {one.name: one for one in present.keyspaces}
    return msgspec.structs.replace(
        present,
        partitions=tuple(
            placed_partition(present, keyspaces[one.keyspace], one) for one in present.partitions
        ),
    )


def placed_partition(present: Map, keyspace: Keyspace, partition: PartitionInfo) -> PartitionInfo:
    """One partition with the members that the policy wants."""
    chosen = voters(present, keyspace, partition.voters)
    if partition.voters and not any(present.node(one) for one in partition.voters):
        chosen = partition.voters
    return msgspec.structs.replace(
        partition,
        voters=chosen,
        learners=tuple(sorted(one.id for one in present.nodes if one.id not in chosen)),
        leader=partition.leader if partition.leader in chosen else 0,
    )


def voters(present: Map, keyspace: Keyspace, voting: Iterable[int]) -> tuple[int, ...]:
    """The wanted voters of a partition where `voting` ones do so now, by id."""
    standing = frozenset(voting)
    at_home = [one for one in present.nodes if one.region == keyspace.home]
    if keyspace.survive == "zone":
        ranked = sorted(at_home, key=lambda one: (one.id not in standing, one.id))
        if not ranked:  # Nobody is at home: who votes now goes on doing so.
            ranked = [one for one in present.nodes if one.id in standing]
        return tuple(sorted(one.id for one in ranked[:VOTERS_MAX]))
    return tuple(sorted(_one_a_region(present, keyspace, standing)))


def _one_a_region(present: Map, keyspace: Keyspace, standing: frozenset[int]) -> Iterable[int]:
    best: dict[str, NodeInfo] = {}
    for node in sorted(present.nodes, key=lambda one: (one.id not in standing, one.id)):
        best.setdefault(node.region, node)
    regions = [one.name for one in present.regions if one.name in best]
    off = {one.name for one in present.regions if one.off}
    regions.sort(
        key=lambda name: (name in off, name != keyspace.home, best[name].id not in standing)
    )
    return (best[name].id for name in regions[:VOTERS_MAX])
