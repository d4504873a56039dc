"""Policies against each other: prefill servers in virtual time, pools that evict, one trace.

Times are *simulated*, by the default cost model; what counts is the order of the policies and their
hits, not the seconds.
"""

from __future__ import annotations

import heapq

from bench.trace import generate
from kv_pool.blocks import NAME_BYTES
from kv_pool.keys import Worker
from kv_pool.pool.block_pool import BlockPool
from kv_pool.pool.eviction import LeastRecent
from kv_pool.routing.cost import CostModel
from kv_pool.routing.facts import Facts, Load, Request
from kv_pool.routing.parts import Setting
from kv_pool.routing.policies import POLICIES
from kv_pool.routing.router import Router
from truetime import Interval

WORKERS = tuple(Worker("fra", f"w{number}") for number in range(6))
SLOTS = 2_000
REQUESTS = 3_000
COST = CostModel()


class Fleet:
    """Servers that take one prefill after the other, and what a router sees of them."""

    def __init__(self) -> None:
        self.pools = {worker: BlockPool([(SLOTS, LeastRecent())]) for worker in WORKERS}
        self.free_at_s = dict.fromkeys(WORKERS, 0.0)
        self.now_s = 0.0

    def facts(self, request: Request, now: Interval) -> Facts:
        """Exact and fresh."""
        depths = {worker: pool.depth(request.names) for worker, pool in self.pools.items()}
        loads = {
            worker: Load(queued_s=max(0.0, at_s - self.now_s))
            for worker, at_s in self.free_at_s.items()
        }
        return Facts(WORKERS, depths, loads)


def simulate(policy: str) -> tuple[float, float]:
    """Mean time to the first token and the share of blocks that were hit."""
    fleet = Fleet()
    router = Router(policy, fleet, Setting(cost=COST))
    waited_s = 0.0
    hits = references = 0
    done: list[tuple[float, int, Worker, bytes]] = []
    requests = generate(1, REQUESTS)
    for number, each in enumerate(requests):
        fleet.now_s = each.timestamp / 1000
        while done and done[0][0] <= fleet.now_s:
            _, _, worker, names = heapq.heappop(done)
            fleet.pools[worker].put(names)
        names = b"".join(block.to_bytes(NAME_BYTES, "big") for block in each.hash_ids)
        # A conversation is known by its second block, where prompts part.
        session = str(each.hash_ids[1])
        request = Request(b"n" * 16, names, each.input_length, session)
        decision = router.route(request, Interval(0, 1))
        assert decision is not None
        depth = decision.depth
        took_s = 0.0
        if decision.pull is not None:
            depth = decision.pull.start + decision.pull.blocks
            took_s = COST.pull_s(decision.pull.blocks)
        took_s += COST.prefill_s(each.input_length, depth)
        begins_s = max(fleet.now_s, fleet.free_at_s[decision.worker])
        fleet.free_at_s[decision.worker] = begins_s + took_s
        heapq.heappush(done, (begins_s + took_s, number, decision.worker, names))
        waited_s += begins_s + took_s - fleet.now_s
        hits += depth
        references += len(each.hash_ids)
    return waited_s / len(requests), hits / references


def test_policies_rank_as_they_should() -> None:
    """Looking at prefixes hits several times as much as not looking, and waits less; fetching blocks
    waits least of all; fresh knowledge is discounted by nothing."""
    results = {name: simulate(name) for name in POLICIES}
    time_s = {name: result[0] for name, result in results.items()}
    hit = {name: result[1] for name, result in results.items()}
    shown = {name: (round(time_s[name], 2), round(hit[name], 3)) for name in results}
    assert time_s["least-load"] < time_s["round-robin"], shown
    for looking in ("longest-prefix", "prefix-unless-unbalanced", "cost", "cost-pull"):
        assert time_s[looking] < time_s["least-load"] / 2, shown
        assert hit[looking] > 1.5 * hit["least-load"], shown
    assert time_s["cost-pull"] == min(time_s.values()), shown
    assert hit["cost-pull"] > hit["cost"], shown
    assert results["cost-pull-stale"] == results["cost-pull"], shown
