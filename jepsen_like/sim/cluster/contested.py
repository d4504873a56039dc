"""Plans in which leads are contested and clocks are far apart.

Clocks whose bound is wide show every step that counts on the wrong edge of an interval: what is
early by less than a message takes is never seen. Leases are short, and the faults are those after
which somebody else leads while the one before still believes in itself: it is cut off together with
some of its clients, stalled, or killed, and comes back. Writes and commits are sent again, by clients
and by the network.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from jepsen_like.sim.cluster.plan import REGIONS, ClusterPlan, borders_of
from jepsen_like.sim.cluster.plan import draw as draw_plain
from jepsen_like.sim.plan import OPERATIONS_PER_COMMIT
from k2store.testing.simulation import MILLISECOND_NS, SECOND_NS, Fault, stream
from k2store.testing.simulation.network import Pair
from k2store.testing.simulation.operating import DEFAULT, Keyspace
from k2store.testing.simulation.partitions import between

VOTERS: Final = 3
BOUNDS_NS: Final = (500_000, 20 * MILLISECOND_NS, 60 * MILLISECOND_NS)
EDGE: Final = 0.48
"""How far from the truth the clocks stand, as a share of their bound: nearly at its edges."""
COLLECTING_SHARE: Final = 0.3
"""Runs that forget history and outcomes as soon as they may."""
FAULTS: Final = (14, 24)
STATES: Final = ("leads", "undurable", "open", "leaderless", "behind", "unconfirmed", "queued")
KINDS: Final = (
    "cut",
    "cut",
    "cut",
    "one-way",
    "pause",
    "pause",
    "kill",
    "power-cut",
    "duplicate",
    "slow-link",
    "lossy-link",
    "slow-disk",
    "move",
    "split",
    "stop",
)
DRAWN: Final = (
    "append",
    "bank",
    "compare",
    "fork",
    "guard",
    "phantom",
    "register",
    "reverse",
    "skew",
    "watch",
)


def draw(seed: int, only: Sequence[str] = ()) -> ClusterPlan:
    """The plan of a seed; `only` restricts its workloads to these."""
    rng = stream(seed, "contested plan")
    names = tuple(only) or tuple(rng.sample(DRAWN, rng.randint(2, 3)))
    if not only:
        names = tuple(sorted({*names, "dawdle"}))
    plan = draw_plain(seed, names)
    regions = REGIONS[: rng.choice((1, 1, 2))]
    home = regions[0]
    # A fourth node has no vote, until a lead is moved to it.
    nodes = {f"{home}-{number}": home for number in range(1, rng.choice((3, 3, 4)) + 1)}
    nodes |= {f"{region}-1": region for region in regions[1:]}
    places = {
        f"client-{region}-{number}": region
        for region in regions
        for number in range(1, (4 if region == home else 1) + 1)
    }
    clients = tuple(places)
    watchers = plan.watchers[:1]
    places |= {f"watcher-{number}": home for number in range(len(watchers))}
    hosts = [*nodes, *places]
    bound_ns = rng.choice(BOUNDS_NS)
    edge_ns = int(bound_ns * EDGE)
    lease_ns = rng.choice((200, 400, 1_000)) * MILLISECOND_NS
    timeout_s = rng.choice((0.5, 3.0))
    collects = rng.random() < COLLECTING_SHARE
    # As long as a request may come again, its outcome has to be known.
    memory_ns = 2 * round(timeout_s * SECOND_NS) + SECOND_NS
    duration_ns = rng.randint(7_000, 10_000) * MILLISECOND_NS
    commits = rng.randint(200, 300)
    borders = borders_of(names)
    return replace(
        plan,
        workloads=names,
        nodes=nodes,
        places=places,
        clients=clients,
        watchers=watchers,
        keyspaces=(Keyspace(DEFAULT, b"", "zone", home),),
        split_keys=tuple(sorted(rng.sample(borders, rng.randint(0, 2)))),
        lease_ns=lease_ns,
        # Much shorter than the lease: whoever does not wait for its end is early, and can be seen to be.
        patience_ns=lease_ns // rng.choice((1, 4, 8)),
        repeating=rng.random() < 0.5,
        commits=commits,
        duration_ns=duration_ns,
        pause_s=len(clients) * len(names) * duration_ns / 1e9 / (commits * OPERATIONS_PER_COMMIT),
        bound_ns=bound_ns,
        offsets_ns=tuple(rng.choice((-edge_ns, 0, edge_ns)) for _ in hosts),
        drifts_ppb=(0,) * len(hosts),
        near_ns=rng.choice((50_000, 250_000)),
        between_ns={f"{home}/{region}": 10 * MILLISECOND_NS for region in regions[1:]},
        node=replace(
            plan.node,
            clock_bound_ns=bound_ns,
            tick_ns=min(rng.choice((20, 50)) * MILLISECOND_NS, lease_ns // 8),
            slack_ns=rng.choice((5, 50)) * MILLISECOND_NS,
            expiry_ns=rng.choice((300, 1_000)) * MILLISECOND_NS,
            lifetime_ns=rng.choice((1_500, 4_000)) * MILLISECOND_NS,
            retention_ns=memory_ns if collects else 3_600 * SECOND_NS,
            collect_every_ns=(300 if collects else 60_000) * MILLISECOND_NS,
            segment_bytes=1 << 14,
        ),
        client=replace(
            plan.client,
            early_write_count=rng.choice((1, 1, 128)),
            timeout_s=timeout_s,
        ),
        schedule=_draw_schedule(rng, nodes, clients, borders, duration_ns),
    )


def _draw_schedule(
    rng: random.Random,
    nodes: dict[str, str],
    clients: Sequence[str],
    borders: Sequence[bytes],
    duration_ns: int,
) -> tuple[Fault, ...]:
    found: list[Fault] = []
    for _ in range(rng.randint(*FAULTS)):
        kind = rng.choice(KINDS)
        fault = Fault(
            rng.randrange(duration_ns),
            kind,
            rng.randint(100, 1_500) * MILLISECOND_NS,
            when=rng.choice(STATES),
        )
        found.append(_placed(rng, list(nodes), clients, borders, fault))
    for _ in range(rng.choice((0, 1, 2))):
        found += _blackout(rng, list(nodes), duration_ns)
    for _ in range(rng.choice((0, 2, 4))):
        found += _detour(rng, list(nodes), clients, duration_ns)
    for _ in range(rng.choice((0, 1, 2))):
        found += _between_two(rng, list(nodes)[:VOTERS], duration_ns)
    return tuple(sorted(found, key=lambda fault: fault.at_ns))


def _blackout(rng: random.Random, nodes: Sequence[str], duration_ns: int) -> list[Fault]:
    """Power fails at several nodes at one moment; what one of them had is on no other disk yet, and it
    comes back later than the others."""
    at_ns = rng.randrange(duration_ns)
    late, *early = rng.sample(nodes[:VOTERS], rng.choice((2, VOTERS)))
    slow_ns = rng.choice((5, 20, 50)) * MILLISECOND_NS
    before_ns, down_ns = 400 * MILLISECOND_NS, rng.randint(50, 600) * MILLISECOND_NS
    later_ns = down_ns + rng.choice((0, 500, 1_500)) * MILLISECOND_NS
    return [
        *(
            Fault(max(0, at_ns - before_ns), "slow-disk", before_ns, one, amount=slow_ns)
            for one in early
        ),
        *(Fault(at_ns, "power-cut", down_ns, one, amount=1) for one in early),
        Fault(at_ns, "power-cut", later_ns, late, amount=1),
    ]


def _between_two(rng: random.Random, voters: Sequence[str], duration_ns: int) -> list[Fault]:
    """Two voters do not hear each other; the third hears both, has a slow disk, and its power fails. In
    half of the cases one of the two is silent for a while first, so that the other one may want to lead."""
    one, other, middle = rng.sample(voters, len(voters))
    at_ns, for_ns = rng.randrange(duration_ns), rng.randint(800, 2_000) * MILLISECOND_NS
    found = [
        Fault(at_ns, "isolate", for_ns, pairs=tuple(between([one], [other]))),
        Fault(at_ns, "slow-disk", for_ns, middle, amount=rng.choice((20, 50)) * MILLISECOND_NS),
    ]
    if rng.random() < 0.5:
        silent_ns = rng.randint(150, 600) * MILLISECOND_NS
        found.append(Fault(at_ns, "pause", silent_ns, one, when="leads"))
    for _ in range(rng.randint(1, 2)):
        dark_ns = at_ns + rng.randrange(for_ns // 2)
        when = rng.choice(("leaderless", "leaderless", "undurable", "behind"))
        down_ns = rng.randint(20, 200) * MILLISECOND_NS
        found.append(Fault(dark_ns, "power-cut", down_ns, middle, amount=1, when=when))
    return found


def _detour(
    rng: random.Random, nodes: Sequence[str], clients: Sequence[str], duration_ns: int
) -> list[Fault]:
    """What a node says to others is on its way for long; its clients go to other nodes meanwhile, say it
    again there, and are faster."""
    at_ns, for_ns = rng.randrange(duration_ns), rng.randint(400, 1_500) * MILLISECOND_NS
    one = rng.choice(nodes)
    others = [name for name in nodes if name != one]
    slow = Fault(
        at_ns,
        "slow-link",
        for_ns,
        pairs=tuple((one, other) for other in others),
        amount=rng.choice((50, 150, 300)) * MILLISECOND_NS,
    )
    found = [slow]
    for _ in range(2):
        # Streams that break are noticed at once, those that are silent after a second.
        away_ns = at_ns + rng.randrange(for_ns)
        broken = tuple((client, one) for client in clients)
        found += [
            Fault(away_ns, "reset", MILLISECOND_NS, pairs=broken),
            Fault(
                away_ns,
                "isolate",
                rng.randint(100, 400) * MILLISECOND_NS,
                pairs=tuple(between([one], list(clients))),
            ),
        ]
    return found


def _placed(
    rng: random.Random,
    nodes: Sequence[str],
    clients: Sequence[str],
    borders: Sequence[bytes],
    fault: Fault,
) -> Fault:
    match fault.name:
        case "cut" | "one-way":
            return replace(fault, name="isolate", pairs=_cut(rng, nodes, clients, fault.name))
        case "duplicate" | "slow-link" | "lossy-link":
            one = rng.choice(nodes)
            others = [name for name in (*nodes, *clients) if name != one]
            amount = {
                "duplicate": 0.0,
                "slow-link": rng.choice((5, 50, 300)) * MILLISECOND_NS,
                "lossy-link": 0.2,
            }[fault.name]
            return replace(fault, pairs=tuple((other, one) for other in others), amount=amount)
        case "move":
            return replace(fault, amount=rng.randrange(1 << 20))
        case "split":
            return replace(fault, target=rng.choice(borders).decode())
        case "slow-disk":
            return replace(fault, target=rng.choice(nodes), amount=50 * MILLISECOND_NS)
    target = (
        rng.choice(clients) if fault.name == "kill" and rng.random() < 0.2 else rng.choice(nodes)
    )
    return replace(fault, target=target)


def _cut(
    rng: random.Random, nodes: Sequence[str], clients: Sequence[str], kind: str
) -> tuple[Pair, ...]:
    """A node is cut off from the others: for them alone, or with some clients, who go on talking to it."""
    alone = rng.choice(nodes)
    suffering = nodes if rng.random() < 0.6 else (*nodes, *clients)
    inside = [alone, *(name for name in suffering if name in clients and rng.random() < 0.4)]
    outside = [name for name in suffering if name not in inside]
    if kind == "one-way":
        sides = [inside, outside]
        rng.shuffle(sides)
        return tuple((one, other) for one in sides[0] for other in sides[1])
    return tuple(between(inside, outside))
