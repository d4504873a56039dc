"""What a seed stands for in a cluster: the regions, who holds what, and what goes wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from jepsen_like.history import Recorder
from jepsen_like.sim.cluster.faults import draw_faults
from jepsen_like.sim.plan import OPERATIONS_PER_COMMIT, Load, draw_client
from jepsen_like.workloads import WORKLOADS
from k2store import ClientSettings
from k2store.testing.simulation import MILLISECOND_NS, SECOND_NS, stream
from k2store.testing.simulation.node import NodeKnobs, draw_node_knobs
from k2store.testing.simulation.operating import DEFAULT, Keyspace

REGIONS: Final = ("fra", "iad", "sin")
GLOBAL: Final = "global"
BOUND_NS: Final = 500_000
DRAWN: Final = (
    "append",
    "bank",
    "compare",
    "fork",
    "lease",
    "phantom",
    "register",
    "reverse",
    "skew",
    "watch",
)
"""Workloads of which a run draws some."""
COPY_PAGE_BYTES: Final = (1, 64, 500, 1 << 20)
PLAIN: Final = ("lease",)
"""Workloads whose keys begin with no prefix."""


class ClusterPlan(Load, frozen=True, kw_only=True):
    """A run of a cluster."""

    nodes: dict[str, str]
    """Name to region."""
    places: dict[str, str]
    """The region of every client and watcher."""
    keyspaces: tuple[Keyspace, ...]
    split_keys: tuple[bytes, ...]
    """Borders of partitions inside keyspaces."""
    patience_ns: int
    """How long voters hear nothing of a leader before one of them wants to follow it."""
    lease_ns: int = 0
    """How long leases are, and with them how often they are renewed; 0: as they are."""
    copy_page_bytes: int = 1 << 20
    """Where a page of a whole copy ends: with small ones a copy is caught in the middle."""

    @property
    def regions(self) -> tuple[str, ...]:
        """Those with nodes."""
        return tuple(dict.fromkeys(self.nodes.values()))


def draw(seed: int, only: Sequence[str] = (), *, honest: bool = True) -> ClusterPlan:
    """The plan of a seed; `only` restricts its workloads to these."""
    rng = stream(seed, "cluster plan")
    for name in only:
        if name not in WORKLOADS:
            raise ValueError(f"no workload {name!r}; there are {', '.join(sorted(WORKLOADS))}")
    regions = REGIONS[: rng.choice((1, 2, 3, 3))]
    nodes = {
        f"{region}-{number}": region
        for region in regions
        for number in range(1, rng.choice((1, 2, 3, 3)) + 1)
    }
    keyspaces = _draw_keyspaces(rng, regions)
    workloads = _draw_workloads(rng, only, [one.prefix.decode() for one in keyspaces])
    places = {
        f"client-{region}-{number}": region
        for region in regions
        for number in range(1, rng.randint(1, 3) + 1)
    }
    clients = tuple(places)
    watched = any(name.startswith("watch") for name in workloads)
    watchers = (b"",) * rng.randint(1, 2) if watched else ()
    places |= {f"watcher-{number}": rng.choice(regions) for number in range(len(watchers))}
    duration_ns = rng.randint(6_000, 12_000) * MILLISECOND_NS
    commits = rng.randint(105, 150)
    hosts = [*nodes, *places]
    return ClusterPlan(
        seed=seed,
        nodes=nodes,
        places=places,
        keyspaces=keyspaces,
        split_keys=_draw_splits(rng, workloads),
        patience_ns=rng.choice((400, 1_200, 1_200)) * MILLISECOND_NS,
        copy_page_bytes=stream(seed, "copies").choice(COPY_PAGE_BYTES),
        workloads=workloads,
        clients=clients,
        watchers=watchers,
        commits=commits,
        duration_ns=duration_ns,
        pause_s=len(clients)
        * len(workloads)
        * duration_ns
        / 1e9
        / (commits * OPERATIONS_PER_COMMIT),
        bound_ns=rng.choice((BOUND_NS // 10, BOUND_NS)),
        offsets_ns=tuple(rng.randint(-BOUND_NS // 4, BOUND_NS // 4) for _ in hosts),
        drifts_ppb=tuple(rng.choice((0, -20_000, 20_000)) for _ in hosts),
        near_ns=rng.choice((50_000, 250_000, 500_000)),
        between_ns={
            f"{one}/{other}": rng.randint(40, 100) * MILLISECOND_NS
            for one in regions
            for other in regions
            if one < other
        },
        node=_draw_knobs(rng),
        client=_draw_client(rng),
        schedule=tuple(
            draw_faults(
                rng,
                nodes,
                places,
                keyspaces,
                duration_ns,
                borders=borders_of(workloads),
                honest=honest,
            )
        ),
        honest=honest,
    )


def _draw_keyspaces(rng: random.Random, regions: Sequence[str]) -> tuple[Keyspace, ...]:
    found = [Keyspace(DEFAULT, b"", "zone", rng.choice(regions))]
    found += [
        Keyspace(region, region.encode() + b"/", "zone", region)
        for region in regions
        if rng.random() < 0.5
    ]
    if rng.random() < 0.6:
        found.append(Keyspace(GLOBAL, b"global/", "region", rng.choice(regions)))
    return tuple(found)


def _draw_workloads(
    rng: random.Random, only: Sequence[str], prefixes: Sequence[str]
) -> tuple[str, ...]:
    names = only or rng.sample(DRAWN, rng.randint(2, 3))
    if set(names) <= {"lease", "watch", "register", "reverse", "fork"}:
        # Runs are measured in commits of the journal, and in conflicts.
        names = [*names, "bank"]
    found = {_placed(name, rng.choice(prefixes)) for name in names}
    if not only:
        found.add(_placed(rng.choice(DRAWN), rng.choice(prefixes)))
    return tuple(sorted(found))


def _placed(name: str, prefix: str) -> str:
    return name if not prefix or name in PLAIN else f"{name}@{prefix}"


def _draw_splits(rng: random.Random, workloads: Sequence[str]) -> tuple[bytes, ...]:
    candidates = borders_of(workloads)
    return tuple(sorted(rng.sample(candidates, rng.randint(0, min(3, len(candidates))))))


def borders_of(workloads: Sequence[str]) -> list[bytes]:
    """Keys at which a partition may begin: in the middle of a workload's, and the first of them."""
    fixed = random.Random(0)
    found: list[bytes] = []
    for workload in workloads:
        name, _, prefix = workload.partition("@")
        keys = WORKLOADS[name](Recorder(), fixed, prefix.encode()).keys
        found += (keys[len(keys) // 2], keys[0])
    return found


def _draw_knobs(rng: random.Random) -> NodeKnobs:
    """What a node by itself may have, as far as it makes sense between regions."""
    knobs = draw_node_knobs(rng, ())
    return replace(
        knobs,
        lifetime_ns=max(knobs.lifetime_ns, 4 * SECOND_NS),
        expiry_ns=max(knobs.expiry_ns, 1 * SECOND_NS),
        retention_ns=max(knobs.retention_ns, 10 * SECOND_NS),
        reservation_ns=500 * MILLISECOND_NS,
        # Each page of a scan may cost a round trip between regions.
        scan_page=max(knobs.scan_page, 16),
    )


def _draw_client(rng: random.Random) -> ClientSettings:
    settings = draw_client(rng)
    return replace(settings, timeout_s=rng.choice((3.0, 5.0, 10.0)))
