"""What goes wrong in a cluster: everything that goes wrong with one node, and whole regions."""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from jepsen_like.sim.cluster.old_disk import old_disk
from k2store.testing.simulation import (
    ACTIONS,
    MILLISECOND_NS,
    SECOND_NS,
    Action,
    Fault,
    Knobs,
    Simulation,
    draw_schedule,
)
from k2store.testing.simulation.operating import Keyspace, move, split_at
from k2store.testing.simulation.partitions import between
from k2store.testing.simulation.swarm import PROCESS_FAULTS

if TYPE_CHECKING:
    from k2store.testing.control import MemoryPlane
    from k2store.testing.simulation.cluster import ClusterNode
    from k2store.testing.simulation.network import Pair

NODE_KINDS: Final = (
    "isolate",
    "halves",
    "one-way",
    "bridge",
    "ring",
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
"""Kinds that `draw_schedule` draws by itself."""
REGION_KINDS: Final = ("cut-region", "cut-region-one-way", "slow-region")
CLUSTER_KINDS: Final = ("stop", "control-away", "lose-disk", "move", "split")
KINDS: Final = (*NODE_KINDS, *REGION_KINDS, *CLUSTER_KINDS)
"""Faults after which a cluster must have kept everything that it acknowledged."""
SURE: Final = ("kill", "power-cut", "pause", "cut-region", "stop")
"""Kinds of which one is in every schedule."""
VOTERS_TO_LOSE_ONE: Final = 3

Running = Generator[None, None, str | None]


def draw_faults(
    rng: random.Random,
    nodes: Mapping[str, str],
    places: Mapping[str, str],
    keyspaces: Sequence[Keyspace],
    duration_ns: int,
    *,
    borders: Sequence[bytes],
    honest: bool,
) -> list[Fault]:
    """A schedule for nodes and for others, each given with its region.

    `borders` are keys at which partitions may be split.
    """
    knobs = Knobs(
        kinds=tuple(kind for kind in NODE_KINDS if rng.random() < 0.35)
        or (rng.choice(NODE_KINDS),),
        every_ns=rng.choice((500, 1_000, 2_500)) * MILLISECOND_NS,
        lasts_ns=rng.choice((500, 2_000, 5_000)) * MILLISECOND_NS,
    )
    servers, hosts = list(nodes), [*nodes, *places]
    # Who suffers: nodes among themselves, or clients, too.
    suffering = servers if len(servers) > 1 and rng.random() < 0.5 else hosts
    schedule = [_tamed(one) for one in draw_schedule(rng, servers, suffering, duration_ns, knobs)]
    regions = {**nodes, **places}
    schedule += [_draw_region(rng, regions, duration_ns) for _ in range(rng.choice((0, 1, 1, 2)))]
    if rng.random() < 0.3:
        at_ns = rng.randrange(duration_ns)
        target = rng.choice(("", rng.choice(servers)))
        schedule.append(
            Fault(at_ns, "control-away", rng.randint(500, 5_000) * MILLISECOND_NS, target)
        )
    if rng.random() < 0.3:
        at_ns = rng.randrange(duration_ns)
        clients = [name for name in places if name.startswith("client")]
        schedule.append(Fault(at_ns, "kill", 200 * MILLISECOND_NS, rng.choice(clients)))
    sure = _sure(rng, nodes, regions, duration_ns)
    schedule = [one for one in schedule if not _in_the_way(one, sure)]
    schedule.append(sure)
    schedule += _draw_loss(rng, nodes, keyspaces, duration_ns)
    schedule += _draw_operations(rng, borders, duration_ns)
    if not honest:
        for _ in range(3):
            amount = rng.choice((-1, 1)) * rng.randint(50, 2_000) * MILLISECOND_NS
            at_ns, for_ns = rng.randrange(duration_ns), 2_000 * MILLISECOND_NS
            schedule.append(Fault(at_ns, "clock-step", for_ns, rng.choice(servers), (), amount))
    return sorted(schedule, key=lambda fault: fault.at_ns)


def _tamed(fault: Fault) -> Fault:
    """A second for each sync would only be a standstill; a tenth already holds everybody up."""
    if fault.name == "slow-disk":
        return msgspec.structs.replace(fault, amount=min(fault.amount, 50 * MILLISECOND_NS))
    return fault


def _draw_region(rng: random.Random, regions: Mapping[str, str], duration_ns: int) -> Fault:
    at_ns, for_ns = rng.randrange(duration_ns), rng.randint(300, 5_000) * MILLISECOND_NS
    kind = rng.choice(REGION_KINDS)
    pairs = region_pairs(rng, regions, one_way=kind == "cut-region-one-way")
    return Fault(at_ns, kind, for_ns, "", pairs, rng.choice((50, 200, 800)) * MILLISECOND_NS)


def region_pairs(
    rng: random.Random, regions: Mapping[str, str], *, one_way: bool
) -> tuple[Pair, ...]:
    """A region against all others, or where there is one only, a node of it against the rest."""
    names = sorted(set(regions.values()))
    region = rng.choice(names)
    inside = [name for name, where in regions.items() if where == region]
    if len(names) == 1:
        inside = [rng.choice(inside)]
    outside = [name for name in regions if name not in inside]
    if one_way:
        groups = [inside, outside]
        rng.shuffle(groups)
        return tuple((one, other) for one in groups[0] for other in groups[1])
    return tuple(between(inside, outside))


def _sure(
    rng: random.Random, nodes: Mapping[str, str], regions: Mapping[str, str], duration_ns: int
) -> Fault:
    kind = rng.choice(SURE)
    at_ns = rng.randrange(duration_ns // 4, duration_ns // 2)
    for_ns = rng.randint(300, 4_000) * MILLISECOND_NS
    if kind == "cut-region":
        return Fault(at_ns, kind, for_ns, pairs=region_pairs(rng, regions, one_way=False))
    return Fault(at_ns, kind, for_ns, rng.choice(list(nodes)))


def _in_the_way(fault: Fault, sure: Fault) -> bool:
    """Whether a fault would keep the sure one from taking effect."""
    return (
        fault.target == sure.target != ""
        and fault.name in (*PROCESS_FAULTS, "stop", "fail-sync", "fail-flush", "disk-full")
        and fault.at_ns <= sure.at_ns + sure.for_ns
        and sure.at_ns <= fault.at_ns + fault.for_ns + SECOND_NS // 2
    )


def _draw_loss(
    rng: random.Random,
    nodes: Mapping[str, str],
    keyspaces: Sequence[Keyspace],
    duration_ns: int,
) -> list[Fault]:
    """At most one node loses its disk, and only where no log can lose its majority by that.

    A disk that refuses a write has not lost anything, so other faults may meet it.
    """
    able = [node for node in nodes if spare(node, nodes, keyspaces)]
    if not able or rng.random() < 0.6:
        return []
    at_ns = rng.randrange(duration_ns)
    return [Fault(at_ns, "lose-disk", rng.randint(100, 3_000) * MILLISECOND_NS, rng.choice(able))]


def _draw_operations(rng: random.Random, borders: Sequence[bytes], duration_ns: int) -> list[Fault]:
    """What operators do meanwhile: it goes wrong with whatever else does."""
    found: list[Fault] = []
    for kind in ("move", "split"):
        for _ in range(rng.choice((0, 0, 1, 2))):
            at_ns = rng.randrange(duration_ns)
            target = rng.choice(borders).decode() if kind == "split" else ""
            found.append(Fault(at_ns, kind, 3 * SECOND_NS, target, (), rng.randrange(1 << 20)))
    return found


def spare(node: str, nodes: Mapping[str, str], keyspaces: Sequence[Keyspace]) -> bool:
    """Whether every log in which the node may vote has three voters."""
    region = nodes[node]
    count = list(nodes.values()).count(region)
    for keyspace in keyspaces:
        if keyspace.survive == "zone" and keyspace.home == region and count < VOTERS_TO_LOSE_ONE:
            return False
        if keyspace.survive == "region" and len(set(nodes.values())) < VOTERS_TO_LOSE_ONE:
            return False
    return True


# -- what only a cluster has ---------------------------------------------------------------------


def actions(plane: MemoryPlane, nodes: Sequence[ClusterNode]) -> dict[str, Action]:
    """Actions beside those that the simulator has."""
    controls = {node.name: node.control for node in nodes}

    def leads(number: int) -> list[int]:
        """Who leads a partition, as these nodes know of themselves."""
        return [
            node.host.node
            for node in nodes
            if node.engine is not None and node.engine.handler_ready()
            for group in (node.host.groups.get(number),)
            if group is not None and group.leading
        ]

    def move_lead(simulation: Simulation, fault: Fault) -> Running:
        del simulation
        wanted = move(plane, int(fault.amount))
        yield
        if wanted is None or wanted[1] not in leads(wanted[0]):
            return None
        return f"node {wanted[1]} leads partition {wanted[0]}"

    def split(simulation: Simulation, fault: Fault) -> Running:
        del simulation
        number = split_at(plane, fault.target.encode())
        yield
        return f"partition {number} is led" if number is not None and leads(number) else None

    def away(simulation: Simulation, fault: Fault) -> Running:
        del simulation
        some = [controls[fault.target]] if fault.target else list(controls.values())
        before = sum(control.refused for control in some)
        for control in some:
            control.away = True
        yield
        for control in some:
            control.away = False
        refused = sum(control.refused for control in some) - before
        return f"{refused} calls refused" if refused else None

    return {
        "stale-disk": old_disk(plane),
        "control-away": away,
        "cut-region": ACTIONS["isolate"],
        "cut-region-one-way": ACTIONS["one-way"],
        "slow-region": ACTIONS["slow-link"],
        "move": move_lead,
        "split": split,
        "stop": _stop,
    }


def _stop(simulation: Simulation, fault: Fault) -> Running:
    """Ask a node to end in good order (SIGTERM); its supervisor starts it again."""
    process = simulation.processes[fault.target]
    incarnation, running = process.incarnation, process.alive
    process.stop()
    yield
    if not running or (process.alive and process.incarnation == incarnation):
        return None
    if not process.alive:
        process.start()
    return f"incarnation {process.incarnation}"
