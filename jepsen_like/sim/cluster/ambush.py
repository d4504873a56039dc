"""Plans whose faults wait for their moment: each is told in which state of the protocol to strike.

What random times meet once in a thousand seeds, such a plan meets in a few: a kill while a verdict
is not confirmed, a cut while a lead is handed over. Beside that it draws faults that other plans do
not have, and what makes rare cases frequent: clocks of coarse steps, which give equal stamps, short
lives, a short memory, transactions that take their time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from jepsen_like.sim.cluster.faults import REGION_KINDS, region_pairs, spare
from jepsen_like.sim.cluster.plan import ClusterPlan, borders_of
from jepsen_like.sim.cluster.plan import draw as draw_plain
from jepsen_like.sim.cluster.states import FAULT_GROUPS, STATES
from jepsen_like.sim.plan import OPERATIONS_PER_COMMIT
from k2store.testing.simulation import MILLISECOND_NS, SECOND_NS, Fault, stream
from k2store.testing.simulation.network import Pair
from k2store.testing.simulation.partitions import SHAPES, between

FAULTS: Final = (6, 12)
GRAIN_NS: Final = 100_000
LOSSES: Final = ("lose-disk", "corrupt")
"""Faults of which a plan has one at most, at a node whose logs can spare it."""
CLIENT_SHARE: Final = 0.4
"""How often a kill hits a client instead of a node."""
SLOW_DISK_NS: Final = 50 * MILLISECOND_NS
BAITS: Final = ("copying", "handing-over", "unconfirmed")
"""States that seldom come by themselves."""
BAITED: Final = 4
LAGGING_SHARE: Final = 0.4
LAG_EVERY_NS: Final = 1_500 * MILLISECOND_NS
LAGS_NS: Final = (100 * MILLISECOND_NS, 200 * MILLISECOND_NS)
LASTS_NS: Final = {
    "break": (200, 800),
    "clock": (300, 3_000),
    "crash": (100, 2_500),
    "cut": (300, 4_000),
    "order": (3_000, 3_000),
    "slow": (300, 3_000),
    "stall": (100, 2_500),
}
"""Shortest and longest duration of each group, in ms."""


def draw(seed: int, only: Sequence[str] = (), *, lags: bool = True) -> ClusterPlan:
    """The plan of a seed; `only` restricts its workloads to these, `lags` lets ways be slow by turns."""
    rng = stream(seed, "ambush plan")
    plan = _lighter(rng, draw_plain(seed, only))
    workloads = plan.workloads
    if not only:
        prefixes = [one.prefix.decode() for one in plan.keyspaces]
        place = rng.choice(prefixes)
        workloads = tuple(sorted({*workloads, f"dawdle@{place}" if place else "dawdle"}))
    borders = borders_of(workloads)
    slow = borders_of([name for name in workloads if name.startswith("dawdle")])[:1]
    duration_ns = rng.randint(6_000, 10_000) * MILLISECOND_NS
    commits = rng.randint(120, 160)
    pause_s = len(plan.clients) * len(workloads) * duration_ns / 1e9
    coarse = rng.random() < 0.5
    collects = rng.random() < 0.4
    timeout_s = rng.choice((0.5, plan.client.timeout_s))
    # As long as a request may come again, its outcome has to be known.
    memory_ns = 2 * round(timeout_s * SECOND_NS) + rng.choice((2, 5)) * SECOND_NS
    retention_ns = memory_ns if collects else plan.node.retention_ns
    hosts = len(plan.offsets_ns)
    lagging = _lags(plan, duration_ns) if lags else []
    return replace(
        plan,
        workloads=workloads,
        duration_ns=duration_ns,
        commits=commits,
        pause_s=pause_s / (commits * OPERATIONS_PER_COMMIT),
        # In the middle of the slow transactions' keys in any case: they have two participants then.
        split_keys=tuple(sorted({*rng.sample(borders, rng.randint(0, 2)), *slow})),
        patience_ns=400 * MILLISECOND_NS,
        grain_ns=GRAIN_NS if coarse else 0,
        bound_ns=5 * GRAIN_NS if coarse else plan.bound_ns,
        offsets_ns=(0,) * hosts if coarse else plan.offsets_ns,
        drifts_ppb=(0,) * hosts if coarse else plan.drifts_ppb,
        node=replace(
            plan.node,
            tick_ns=50 * MILLISECOND_NS,
            expiry_ns=rng.choice((300, 1_000)) * MILLISECOND_NS,
            lifetime_ns=rng.choice((1_500, 4_000)) * MILLISECOND_NS,
            retention_ns=retention_ns,
            collect_every_ns=(500 * MILLISECOND_NS if collects else plan.node.collect_every_ns),
            segment_bytes=1 << 14,
        ),
        client=replace(plan.client, early_write_count=1, timeout_s=timeout_s),
        schedule=tuple(
            sorted(
                [*_draw_schedule(rng, plan, borders, duration_ns), *lagging],
                key=lambda fault: fault.at_ns,
            )
        ),
    )


def _lighter(rng: random.Random, plan: ClusterPlan) -> ClusterPlan:
    """The plan with few nodes: three in one region, one or two in the others."""
    wide = rng.choice(plan.regions)
    left: dict[str, int] = {
        region: 3 if region == wide else rng.choice((1, 1, 2)) for region in plan.regions
    }
    nodes: dict[str, str] = {}
    for name, region in plan.nodes.items():
        if left[region]:
            left[region] -= 1
            nodes[name] = region
    return replace(plan, nodes=nodes)


def _draw_schedule(
    rng: random.Random, plan: ClusterPlan, borders: Sequence[bytes], duration_ns: int
) -> list[Fault]:
    found: list[Fault] = []
    lost = False
    able = [node for node in plan.nodes if spare(node, plan.nodes, plan.keyspaces)]
    states = sorted(STATES)
    for _ in range(rng.randint(*FAULTS)):
        group = rng.choice(sorted(LASTS_NS))
        kind = rng.choice(FAULT_GROUPS[group])
        if kind in LOSSES:
            if lost or not able:
                continue
            lost = True
        fault = Fault(
            rng.randrange(duration_ns),
            kind,
            rng.randint(*LASTS_NS[group]) * MILLISECOND_NS,
            amount=_amount(rng, kind),
            when=rng.choice(states),
        )
        if kind in LOSSES:
            found.append(replace(fault, target=rng.choice(able)))
        else:
            found.append(_placed(rng, plan, borders, fault, group))
    found += _bait(rng, plan, able, duration_ns, lost=lost)
    if any(one.name in LOSSES for one in found):
        found = [one for one in found if one.name != "stale-disk"]
    return sorted(found, key=lambda fault: fault.at_ns)


def _bait(
    rng: random.Random,
    plan: ClusterPlan,
    able: Sequence[str],
    duration_ns: int,
    *,
    lost: bool,
) -> list[Fault]:
    """Something that brings about a rare state, and faults at once that wait for it."""
    state = rng.choice(BAITS)
    at_ns = rng.randrange(duration_ns // 2)
    names = [*plan.nodes]
    if state == "copying":
        if lost or not able:
            return []
        victim = rng.choice(able)
        found = [Fault(at_ns, "lose-disk", 200 * MILLISECOND_NS, victim)]
        names = [victim]
    elif state == "handing-over":
        found = [
            Fault(at_ns + number * SECOND_NS, "move", 3 * SECOND_NS, amount=rng.randrange(1 << 20))
            for number in range(4)
        ]
    else:
        found = []
    for number in range(BAITED):
        group = rng.choice(sorted(LASTS_NS))
        kinds = [kind for kind in FAULT_GROUPS[group] if kind not in (*LOSSES, "stale-disk")]
        fault = Fault(
            at_ns + 100 * MILLISECOND_NS + number * SECOND_NS // 2,
            (kind := rng.choice(kinds)),
            rng.randint(*LASTS_NS[group]) * MILLISECOND_NS,
            amount=_amount(rng, kind),
            when=state,
        )
        fault = _placed(rng, plan, [b"dawdle/3"], fault, group)
        found.append(
            replace(fault, target=rng.choice(names)) if fault.target in plan.nodes else fault
        )
    return found


def _lags(plan: ClusterPlan, duration_ns: int) -> list[Fault]:
    """In some plans: ways between single nodes of regions that are slow by turns, so that of two messages
    that belong together the second one, over another node, is there first."""
    rng = stream(plan.seed, "lags")
    if rng.random() >= LAGGING_SHARE:
        return []
    ways = [
        (one, other)
        for one, region in plan.nodes.items()
        for other, there in plan.nodes.items()
        if region != there
    ]
    return [
        Fault(
            at_ns,
            "slow-link",
            LAG_EVERY_NS,
            amount=rng.choice(LAGS_NS),
            pairs=tuple(rng.sample(ways, len(ways) // 2)),
        )
        for at_ns in range(LAG_EVERY_NS, duration_ns - LAG_EVERY_NS, LAG_EVERY_NS)
    ]


def _placed(
    rng: random.Random, plan: ClusterPlan, borders: Sequence[bytes], fault: Fault, group: str
) -> Fault:
    """The fault with those to whom it happens."""
    nodes = list(plan.nodes)
    if fault.name == "split":
        return replace(fault, target=rng.choice(borders).decode())
    if fault.name == "move":
        return fault
    if group in ("cut", "slow", "break") and fault.name != "slow-disk":
        return replace(fault, pairs=_pairs(rng, plan, fault.name))
    if fault.name == "kill" and rng.random() < CLIENT_SHARE:
        return replace(fault, target=rng.choice(plan.clients))
    return replace(fault, target=rng.choice(nodes))


def _pairs(rng: random.Random, plan: ClusterPlan, kind: str) -> tuple[Pair, ...]:
    nodes, everybody = list(plan.nodes), [*plan.nodes, *plan.places]
    hosts = nodes if len(nodes) > 1 and rng.random() < 0.7 else everybody
    if kind in REGION_KINDS:
        regions = {**plan.nodes, **plan.places}
        return region_pairs(rng, regions, one_way=kind == "cut-region-one-way")
    if kind == "majority":
        few = rng.sample(nodes, max(1, (len(nodes) - 1) // 2))
        return tuple(between(few, [name for name in everybody if name not in few]))
    if kind in SHAPES:
        return tuple(SHAPES[kind](hosts, rng))
    if kind in ("reset", "duplicate"):
        one = rng.choice(nodes)
        others = [name for name in everybody if name != one]
        return tuple((other, one) for other in others)
    return tuple(SHAPES[rng.choice(sorted(SHAPES))](hosts, rng))


def _amount(rng: random.Random, kind: str) -> float:
    match kind:
        case "flap":
            return rng.choice((20, 200, 1_000)) * MILLISECOND_NS
        case "slow-link" | "slow-region":
            return rng.choice((20, 100, 500)) * MILLISECOND_NS
        case "lossy-link":
            return rng.choice((0.05, 0.2, 0.5))
        case "slow-disk":
            return SLOW_DISK_NS
        case "starve-cpu":
            return rng.choice((0.05, 0.3))
        case "fail-sync" | "corrupt":
            return rng.choice((1, 4))
        case "clock-step" | "clock-strobe":
            return rng.choice((-1, 1)) * rng.choice((0.1, 1, 20)) * MILLISECOND_NS
        case "clock-drift":
            return rng.choice((-1, 1)) * rng.choice((10_000, 200_000, 10_000_000))
        case "clock-doubt":
            return rng.choice((10, 100))
        case "move":
            return rng.randrange(1 << 20)
        case _:
            return 0
