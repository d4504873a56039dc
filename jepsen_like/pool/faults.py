"""What goes wrong with a pool on a real cluster: faults of its workers, and those of nodes and links.

Each is a driver as those of `jepsen_like.nemesis`: a generator that begins it, yields while it lasts, ends it, and
gives its evidence, or None where nothing shows that it did anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from jepsen_like.nemesis.drivers import DRIVERS
from jepsen_like.nemesis.schedule import Fault, Pair
from jepsen_like.nemesis.world import Unable

if TYPE_CHECKING:
    from jepsen_like.nemesis.world import Running, World
    from jepsen_like.pool.processes import WorkerProcess

NS_PER_S: Final = 1_000_000_000
LASTS_S: Final = (1.0, 3.0)
ZOMBIE_S: Final = 4.0
"""Longer than a lease, and than it takes a router to notice."""


class Victims:
    """Everything that a fault may happen to."""

    def __init__(self, world: World, workers: Sequence[WorkerProcess], rng: random.Random) -> None:
        self.world = world
        self.workers = tuple(workers)
        self.rng = rng

    def lasts_s(self, name: str) -> float:
        """How long a fault of this kind goes on."""
        return ZOMBIE_S if name == "stop-worker" else self.rng.uniform(*LASTS_S)


def kill_worker(victims: Victims) -> Running:
    """SIGKILL, and another life in its place at once: what it had is void before its lease ends."""
    worker = victims.rng.choice(victims.workers)
    process, status = worker.kill()
    worker.start()
    yield
    if status != -9 or not worker.running:
        return None
    return (
        f"process {process} of {worker.name} ended by signal 9; {worker.process} lives in its place"
    )


def stop_worker(victims: Victims) -> Running:
    """Longer than its lease: somebody ends its life, and then it goes on."""
    worker = victims.rng.choice(victims.workers)
    worker.pause()
    yield
    state = worker.resume()
    return f"the kernel says T of {worker.name} after {ZOMBIE_S:g} s" if state == "T" else None


def _on_a_node(name: str) -> Driver:
    def driver(victims: Victims) -> Running:
        return _made(victims, name, target=victims.rng.choice(sorted(victims.world.cluster.nodes)))

    return driver


def kill_leader(victims: Victims) -> Running:
    """SIGKILL of a node that leads something."""
    leaders = sorted(set(victims.world.leads().values()))
    if not leaders:
        raise Unable("nobody leads anything")
    return _made(victims, "kill", target=victims.rng.choice(leaders))


def _on_a_region(name: str, *, amount: float = 0, one_way: bool = False) -> Driver:
    def driver(victims: Victims) -> Running:
        regions = list(victims.world.cluster.regions)
        alone = victims.rng.choice(regions)
        others = [region for region in regions if region != alone]
        away: list[Pair] = [(alone, other) for other in others]
        back: list[Pair] = [(other, alone) for other in others]
        pairs = victims.rng.choice((away, back)) if one_way else [*away, *back]
        return _made(victims, name, pairs=pairs, amount=amount)

    return driver


def _made(
    victims: Victims, name: str, *, target: str = "", pairs: Sequence[Pair] = (), amount: float = 0
) -> Running:
    fault = Fault(0, name, 0, target, tuple(pairs), amount)
    evidence = yield from DRIVERS[name](victims.world, fault)
    return None if evidence is None else f"{target or pairs[0][0]}: {evidence}"


Driver: TypeAlias = Callable[[Victims], "Running"]

FAULTS: Final[Mapping[str, Driver]] = MappingProxyType(
    {
        "cut-region": _on_a_region("cut-region"),
        "cut-region-one-way": _on_a_region("cut-region-one-way", one_way=True),
        "kill-leader": kill_leader,
        "kill-node": _on_a_node("kill"),
        "kill-worker": kill_worker,
        "lossy-link": _on_a_region("lossy-link", amount=0.1),
        "pause-node": _on_a_node("pause"),
        "slow-region": _on_a_region("slow-region", amount=0.2 * NS_PER_S),
        "stop-node": _on_a_node("stop"),
        "stop-worker": stop_worker,
    }
)
"""All kinds, by name."""
FIRST: Final = ("kill-worker", "stop-worker", "kill-node", "kill-leader", "cut-region")
"""Also a short run has these."""
