"""Who leads what, as the nodes of a run say themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from bench.geo.scene import statuses
from bench.processes import BenchError
from k2store.testing.cluster.told import REPLICA_ROLE_LEADER

if TYPE_CHECKING:
    from k2store.testing.cluster import LocalCluster
    from k2store.testing.cluster.told import GetStatusResponse

LOOKS: Final = 20
"""On a busy machine a node may not answer in time; then it is asked again."""

Looks: TypeAlias = Mapping[str, "GetStatusResponse"]
"""What nodes say of themselves, by name."""


async def look(cluster: LocalCluster) -> Looks:
    """What every node says; `BenchError` when one of them does not answer."""
    for _ in range(LOOKS):
        found = await asyncio.to_thread(statuses, cluster)
        if len(found) == len(cluster.nodes):
            return found
    raise BenchError(f"of {len(cluster.nodes)} nodes only {', '.join(found) or 'none'} answer")


def leader_of(looks: Looks, key: bytes) -> tuple[str, tuple[int, ...]]:
    """The name of the node that leads a key's partition, and the numbers of those who vote there."""
    for name, said in looks.items():
        for one in said.partitions:
            leads = one.replica.role == REPLICA_ROLE_LEADER
            if leads and one.start <= key and (not one.end or key < one.end):
                return name, tuple(one.replica.voters)
    raise BenchError(f"nobody leads the partition of {key!r}")
