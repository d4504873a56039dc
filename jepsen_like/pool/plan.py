"""What a seed stands for: regions, workers and routers, and what goes wrong with them."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from jepsen_like.sim.cluster.faults import draw_faults
from jepsen_like.sim.cluster.plan import BOUND_NS, REGIONS, ClusterPlan
from jepsen_like.sim.plan import draw_client
from k2store.testing.simulation import MILLISECOND_NS, SECOND_NS, Fault, stream
from k2store.testing.simulation.node import draw_node_knobs
from k2store.testing.simulation.operating import Keyspace
from kv_pool.edge.layout import keyspaces as layout

WORKER_KINDS: Final = ("kill", "kill", "pause")


class PoolPlan(ClusterPlan, frozen=True, kw_only=True):
    """A run of the pool."""

    workers: dict[str, str]
    """By machine: the worker's name."""
    routers: tuple[str, ...]
    lease_s: float
    """How long a worker lives without a renewal."""
    step_s: float
    """How long workers and routers wait between two things, in the mean."""


def draw(seed: int) -> PoolPlan:
    """The plan of a seed."""
    rng = stream(seed, "pool plan")
    regions = REGIONS[: rng.choice((1, 2, 2, 3))]
    nodes = {
        f"{region}-{number}": region
        for region in regions
        for number in range(1, rng.choice((1, 1, 2, 3)) + 1)
    }
    first = rng.choice(regions)
    keyspaces = tuple(
        Keyspace(one.name, one.prefix.encode(), one.survive, one.home)
        for one in layout([first, *regions])
    )
    workers = {
        f"client-{region}-w{number}": f"w{number}" for region in regions for number in (1, 2)
    }
    routers = tuple(f"client-{region}-r1" for region in regions)
    places = {name: name.split("-")[1] for name in (*workers, *routers)}
    duration_ns = rng.randint(5_000, 9_000) * MILLISECOND_NS
    borders = [f"d/{region}/w2/".encode() for region in regions]
    hosts = [*nodes, *places]
    knobs = draw_node_knobs(rng, ())
    schedule = draw_faults(rng, nodes, places, keyspaces, duration_ns, borders=borders, honest=True)
    for _ in range(rng.choice((1, 2, 3))):
        kind = rng.choice(WORKER_KINDS)
        for_ns = rng.randint(100, 4_000) * MILLISECOND_NS
        schedule.append(Fault(rng.randrange(duration_ns), kind, for_ns, rng.choice([*workers])))
    return PoolPlan(
        seed=seed,
        nodes=nodes,
        places=places,
        keyspaces=keyspaces,
        split_keys=tuple(border for border in borders if rng.random() < 0.5),
        patience_ns=rng.choice((400, 1_200)) * MILLISECOND_NS,
        workloads=(),
        clients=tuple(places),
        watchers=(),
        commits=0,
        duration_ns=duration_ns,
        pause_s=0.0,
        bound_ns=rng.choice((BOUND_NS // 10, BOUND_NS)),
        offsets_ns=tuple(rng.randint(-BOUND_NS // 4, BOUND_NS // 4) for _ in hosts),
        drifts_ppb=tuple(rng.choice((0, -20_000, 20_000)) for _ in hosts),
        near_ns=rng.choice((50_000, 250_000, 500_000)),
        between_ns={
            f"{one}/{other}": rng.randint(20, 80) * MILLISECOND_NS
            for one in regions
            for other in regions
            if one < other
        },
        node=replace(
            knobs,
            lifetime_ns=max(knobs.lifetime_ns, 4 * SECOND_NS),
            expiry_ns=max(knobs.expiry_ns, 1 * SECOND_NS),
            # Learners are compared with the past.
            retention_ns=max(knobs.retention_ns, 60 * SECOND_NS),
            reservation_ns=500 * MILLISECOND_NS,
            scan_page=max(knobs.scan_page, 16),
        ),
        client=replace(draw_client(rng), timeout_s=rng.choice((3.0, 5.0))),
        schedule=tuple(sorted(schedule, key=lambda fault: fault.at_ns)),
        workers=workers,
        routers=routers,
        lease_s=rng.choice((0.6, 1.5, 3.0)),
        step_s=rng.choice((0.02, 0.05, 0.1)),
    )
