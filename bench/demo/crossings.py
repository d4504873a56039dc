"""How often a publish in its home region waits for another region: counted, before prompts come.

A publish waits for another region in two ways. The worker's node sends the request on to a leader elsewhere; each
node counts what it sends on. Or the leader's log needs a voter elsewhere before an entry stands; who votes is in what
the leader says. Both are counts, and no latency is in them, however busy the machine is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from bench.demo.leading import Looks, leader_of, look
from kv_pool.keys import Worker

if TYPE_CHECKING:
    from k2store.testing.cluster import LocalCluster

TRIES: Final = 3
"""A node may send something on for others meanwhile; the least count is that of the publish alone."""


async def crossings(
    publish: Mapping[str, Callable[[], Awaitable[object]]], cluster: LocalCluster
) -> int:
    """Round trips between regions that a publish takes at home, at the worker where it takes most.

    publish  by worker: what has it publish once
    """
    found = []
    for worker, once in publish.items():
        counts = []
        for _ in range(TRIES):
            before = await look(cluster)
            await once()
            after = await look(cluster)
            sent = sent_on(before, after, worker.partition("/")[0])
            counts.append(sent + needs_others(after, worker))
        found.append(min(counts))
    return max(found, default=0)


def sent_on(before: Looks, after: Looks, region: str) -> int:
    """Requests that the node of a region has sent on to leaders elsewhere between two looks."""
    return sum(
        after[name].cluster.forwarded - look.cluster.forwarded
        for name, look in before.items()
        if look.region == region
    )


def needs_others(looks: Looks, worker: str) -> int:
    """1 when an entry of a worker's partition stands only with a voter in another region, else 0."""
    region, _, name = worker.partition("/")
    leader, voters = leader_of(looks, Worker(region, name).prefix)
    region_of = {said.cluster.node: said.region for said in looks.values()}
    near = sum(region_of[voter] == looks[leader].region for voter in voters)
    return int(near < len(voters) // 2 + 1)
