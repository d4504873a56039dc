"""What a seed stands for: who runs where, doing what, with which knobs, and what goes wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import msgspec

from jepsen_like.history import Recorder
from jepsen_like.workloads import WORKLOADS
from k2store import ClientSettings
from k2store.testing.simulation import (
    MILLISECOND_NS,
    SECOND_NS,
    Conditions,
    Fault,
    Knobs,
    draw_schedule,
    stream,
)
from k2store.testing.simulation.node import NodeKnobs, draw_node_knobs
from k2store.testing.simulation.swarm import DISK_FAULTS, PROCESS_FAULTS

SERVER: Final = "node"
KINDS: Final = (
    "isolate",
    "halves",
    "one-way",
    "flap",
    "slow-link",
    "lossy-link",
    "clog",
    "reset",
    "kill",
    "power-cut",
    "pause",
    "fail-sync",
    "fail-flush",
    "disk-full",
    "slow-disk",
    "clock-step",
    "clock-drift",
    "clock-freeze",
    "clock-doubt",
)
"""Faults after which a single node must have kept everything it acknowledged."""
DRAWN: Final = (
    "append",
    "bank",
    "compare",
    "lease",
    "phantom",
    "register",
    "skew",
    "watch",
)
"""Workloads of which a run draws some. What only replicas can show is not among them."""
SURE: Final = ("kill", "power-cut", "pause", "fail-sync", "reset")
"""Kinds of which one is in every schedule, at a moment when it certainly takes effect."""
VIOLATIONS: Final = ("clock-step",)
"""Kinds that a run with a dishonest clock has beside the others."""

_BOUND_NS: Final = 500_000
OPERATIONS_PER_COMMIT: Final = 1.4
"""How fast clients go: so many operations while faults happen, for each commit that is wanted."""


REPEATING_SHARE: Final = 0.1

SLOW_LENGTH: Final = 12
SLOWER: Final = 6


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is drawn before a run begins, whatever the store consists of."""

    seed: int
    workloads: tuple[str, ...]
    """Each a name of a workload, or name@prefix where its keys begin with a prefix."""
    clients: tuple[str, ...]
    watchers: tuple[bytes, ...]
    """For each watcher the prefix that it watches; empty for everything."""
    commits: int
    duration_ns: int
    pause_s: float
    bound_ns: int
    offsets_ns: tuple[int, ...]
    drifts_ppb: tuple[int, ...]
    near_ns: int
    """One way inside a region."""
    far_ns: int = 15 * MILLISECOND_NS
    """One way between regions that `between_ns` does not list."""
    between_ns: dict[str, int] = {}
    """One way between two regions, as "fra/iad"."""
    grain_ns: int = 0
    """The smallest step of every clock; clocks of equal steps show equal times."""
    node: NodeKnobs
    client: ClientSettings
    schedule: tuple[Fault, ...]
    honest: bool = True
    repeating: bool = False
    """Clients send early writes and commits again that were answered, whatever the seed says."""

    @property
    def repeats(self) -> bool:
        """Whether clients send early writes and commits again that were answered."""
        return self.repeating or stream(self.seed, "echoes").random() < REPEATING_SHARE

    @property
    def keeps_history(self) -> bool:
        """Whether the run is shorter than what the store remembers."""
        return self.node.retention_ns > 600 * SECOND_NS

    def conditions(self) -> Conditions:
        """The network."""
        return Conditions(
            near_ns=self.near_ns,
            far_ns=self.far_ns,
            between_ns=self.between_ns,
            stream_silence_ns=1 * SECOND_NS,
            connect_ns=2 * SECOND_NS,
        )


class Plan(Load, frozen=True, kw_only=True):
    """A run of one node."""

    far: tuple[str, ...]
    """Clients in another region than the node."""


def draw(seed: int, only: Sequence[str] = (), *, honest: bool = True, length: int = 1) -> Plan:
    """The plan of a seed; `only` restricts its workloads to these.

    `length`: how many times as long, with as many times more commits and faults.
    """
    rng = stream(seed, "plan")
    names = tuple(only) or _draw_workloads(rng, honest=honest)
    if set(names) == {"lease"}:
        # The client library takes leases by itself: runs are measured in commits of the journal.
        names = ("bank", "lease")
    for name in names:
        if name not in WORKLOADS:
            raise ValueError(f"no workload {name!r}; there are {', '.join(sorted(WORKLOADS))}")
    clients = tuple(f"client-{number}" for number in range(rng.randint(3, 8)))
    watchers = (b"", b"stream/")[: rng.randint(1, 2)] if "watch" in names else ()
    duration_ns = rng.randint(1_500, 3_500) * MILLISECOND_NS * length
    commits = rng.randint(105, 125) * length
    hosts = [SERVER, *clients, *(f"watcher-{number}" for number in range(len(watchers)))]
    return Plan(
        seed=seed,
        workloads=names,
        clients=clients,
        watchers=watchers,
        commits=commits,
        duration_ns=duration_ns,
        pause_s=len(clients) * len(names) * duration_ns / 1e9 / (commits * OPERATIONS_PER_COMMIT),
        bound_ns=rng.choice((_BOUND_NS // 10, _BOUND_NS)),
        offsets_ns=tuple(rng.randint(-_BOUND_NS // 4, _BOUND_NS // 4) for _ in hosts),
        # A node's clock that nobody sets right must not leave its bound in the time of a run.
        drifts_ppb=(
            rng.choice((0, -20_000, 20_000)) // length,
            *(rng.choice((0, -50_000, 50_000, 400_000)) for _ in hosts[1:]),
        ),
        near_ns=rng.choice((50_000, 250_000, 2_000_000)),
        far=tuple(name for name in clients if rng.random() < 0.2),
        node=_lasting(draw_node_knobs(rng, _split_candidates(names)), length),
        client=draw_client(rng),
        schedule=tuple(_draw_faults(rng, hosts, clients, duration_ns, honest=honest)),
        honest=honest,
    )


def draw_slow(seed: int) -> Plan:
    """The plan of a seed in which much time passes between transactions.

    So it meets what needs minutes: reservations and checkpoints, history that is collected, clocks
    that drift, clients that were silent for long.
    """
    plan = draw(seed, length=SLOW_LENGTH)
    schedule = tuple(
        msgspec.structs.replace(
            fault, at_ns=fault.at_ns * SLOWER, for_ns=min(fault.for_ns * 2, 4 * SECOND_NS)
        )
        for fault in plan.schedule
    )
    return msgspec.structs.replace(
        plan,
        duration_ns=plan.duration_ns * SLOWER,
        pause_s=plan.pause_s * SLOWER,
        drifts_ppb=(plan.drifts_ppb[0] // SLOWER, *plan.drifts_ppb[1:]),
        node=_lasting(plan.node, SLOWER),
        schedule=schedule,
    )


def _lasting(knobs: NodeKnobs, length: int) -> NodeKnobs:
    """History is kept for as much longer: what is there in the end is read at one stamp."""
    return msgspec.structs.replace(knobs, retention_ns=knobs.retention_ns * length)


def _draw_workloads(rng: random.Random, *, honest: bool) -> tuple[str, ...]:
    names = rng.sample(DRAWN, rng.randint(2, 3))
    if not honest and "lease" not in names:
        # Leases depend on true time; without a second node nothing else does.
        names[0] = "lease"
    if set(names) <= {"lease", "watch", "register"}:
        names.append("bank")
    return tuple(sorted(names))


def _split_candidates(names: Sequence[str]) -> tuple[bytes, ...]:
    rng = random.Random(0)
    keys = [WORKLOADS[name](Recorder(), rng).keys for name in names]
    # In the middle of a workload's keys, so that its transactions cross the boundary.
    return tuple(sorted({some[len(some) // 2] for some in keys}))


def draw_client(rng: random.Random) -> ClientSettings:
    """Each setting tiny, as it is, or large."""
    return ClientSettings(
        timeout_s=rng.choice((1.0, 3.0, 5.0)),
        early_write_count=rng.choice((1, 2, 128)),
        frame_bytes=rng.choice((64, 1024 * 1024)),
        reconnect_pause_max_s=rng.choice((0.1, 1.0)),
        connect_timeout_s=1.0,
        watch_events_max=rng.choice((8, 65_536)),
    )


def _draw_faults(
    rng: random.Random,
    hosts: Sequence[str],
    clients: Sequence[str],
    duration_ns: int,
    *,
    honest: bool,
) -> list[Fault]:
    kinds = tuple(kind for kind in KINDS if rng.random() < 0.35) or (rng.choice(KINDS),)
    knobs = Knobs(
        kinds=kinds,
        every_ns=rng.choice((400, 1_000, 2_000)) * MILLISECOND_NS,
        lasts_ns=rng.choice((100, 500, 1_500)) * MILLISECOND_NS,
    )
    sure = _sure(rng, clients, duration_ns)
    schedule = [
        _tamed(one)
        for one in draw_schedule(rng, [SERVER], hosts, duration_ns, knobs)
        if not _in_the_way(one, sure)
    ]
    schedule.append(sure)
    if rng.random() < 0.3:
        at_ns = rng.randrange(duration_ns)
        schedule.append(Fault(at_ns, "kill", 200 * MILLISECOND_NS, rng.choice(clients)))
    if not honest:
        for _ in range(3):
            amount = rng.choice((-1, 1)) * rng.randint(50, 2_000) * MILLISECOND_NS
            at_ns = rng.randrange(duration_ns)
            schedule.append(Fault(at_ns, "clock-step", 500 * MILLISECOND_NS, SERVER, (), amount))
    return sorted(schedule, key=lambda fault: fault.at_ns)


def _tamed(fault: Fault) -> Fault:
    """A second for each sync would only be a standstill; a tenth already holds everybody up."""
    if fault.name == "slow-disk":
        return msgspec.structs.replace(fault, amount=min(fault.amount, 50 * MILLISECOND_NS))
    return fault


def _sure(rng: random.Random, clients: Sequence[str], duration_ns: int) -> Fault:
    kind = rng.choice(SURE)
    at_ns = rng.randrange(duration_ns // 4, duration_ns // 2)
    for_ns = rng.randint(100, 600) * MILLISECOND_NS
    if kind == "fail-sync":
        # Long enough for somebody to write something.
        for_ns *= 4
    if kind == "reset":
        return Fault(at_ns, kind, for_ns, pairs=((SERVER, rng.choice(clients)),))
    return Fault(at_ns, kind, for_ns, SERVER, (), 1)


def _in_the_way(fault: Fault, sure: Fault) -> bool:
    """Whether a fault would keep the sure one from taking effect."""
    return (
        fault.name in PROCESS_FAULTS + DISK_FAULTS
        and fault.at_ns <= sure.at_ns + sure.for_ns
        and sure.at_ns <= fault.at_ns + fault.for_ns + SECOND_NS // 2
    )
