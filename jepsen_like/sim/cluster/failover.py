"""How long a partition without a leader is without one: kills in a quiet network, many of them.

A region of three voters and another one with three replicas, each with a client that writes one
small value after the other. The leader is killed at a moment of chance; what counts is the time
from there to the first write that begins afterwards and is acknowledged, to a client of the home
region and to one far away. Time is virtual, so the figures say what the protocol needs: silence
that is noticed, a lease that ends, an epoch, seals, one entry on a majority.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

import k2store
from k2store.testing.control import MemoryPlane
from k2store.testing.simulation import (
    MILLISECOND_NS,
    SECOND_NS,
    Conditions,
    Environment,
    Main,
    Simulation,
)
from k2store.testing.simulation.cluster import PORT, ClusterNode, patient
from k2store.testing.simulation.operating import DEFAULT, Keyspace, found

KILLS_A_RUN: Final = 15
PATIENCE_NS: Final = 1_100 * MILLISECOND_NS
"""As `cluster.patience` is by default."""
BOUND_NS: Final = 500_000
DOWN_NS: Final = 2 * SECOND_NS
"""A killed node comes back after so long."""
CALM_NS: Final = 2 * SECOND_NS
"""Until the next one is killed it has time to catch up."""
PAUSE_S: Final = 0.02
"""Between a client's writes."""
LIMIT_NS: Final = 20 * SECOND_NS
SETUP_LIMIT_NS: Final = 10 * SECOND_NS
REGIONS: Final = ("fra", "iad")
NODES: Final = 3


class Failover(msgspec.Struct, frozen=True):
    """One kill: who it was, and the seconds until a write took, for each region's client."""

    seed: int
    node: str
    home_s: float
    far_s: float


class Distribution(msgspec.Struct, frozen=True):
    """Seconds, over all kills."""

    kills: int
    p50_s: float
    p99_s: float
    max_s: float


def distribution(seconds: Sequence[float]) -> Distribution:
    """Percentiles by the nearest rank."""
    ordered = sorted(seconds)
    count = len(ordered)
    return Distribution(
        count, ordered[(count - 1) // 2], ordered[-(-99 * count // 100) - 1], ordered[-1]
    )


def measure(seed: int, kills: int = KILLS_A_RUN) -> list[Failover]:
    """Kill the leader so often in one run; raises SimulationError when nobody follows it."""
    conditions = Conditions(between_ns={"fra/iad": 45 * MILLISECOND_NS})
    with Simulation(seed, conditions=conditions) as simulation:
        return _Campaign(simulation, seed).run(kills)


class _Campaign:
    """One run."""

    def __init__(self, simulation: Simulation, seed: int) -> None:
        self.simulation = simulation
        self.seed = seed
        self.random = simulation.random("failover")
        self.plane = MemoryPlane()
        self.nodes = [
            ClusterNode(f"{region}-{number}", region, self.plane, replica=patient(PATIENCE_NS))
            for region in REGIONS
            for number in range(1, NODES + 1)
        ]
        for node in self.nodes:
            machine = simulation.machine(node.name, node.region, bound_ns=BOUND_NS)
            simulation.process(machine, node.main)
        self.writes: dict[str, tuple[int, int]] = dict.fromkeys(REGIONS, (0, 0))
        """For each client when its latest acknowledged write began, and when it was acknowledged."""

    def run(self, kills: int) -> list[Failover]:
        """All kills, one after the other."""
        simulation = self.simulation
        setup = simulation.process(simulation.machine("setup", REGIONS[0]), self._found)
        simulation.wait_for([setup], SETUP_LIMIT_NS)
        for region in REGIONS:
            machine = simulation.machine(f"client-{region}", region)
            simulation.process(machine, self._writer(region))
        return [self._kill() for _ in range(kills)]

    async def _found(self, environment: Environment) -> None:
        home = Keyspace(DEFAULT, b"", "zone", REGIONS[0])
        await found(self.plane, len(self.nodes), [home], ())

    def _writer(self, region: str) -> Main:
        async def write(environment: Environment) -> None:
            nodes = [f"{node.name}:{PORT}" for node in self.nodes if node.region == region]
            database = k2store.connect(
                "k2://" + ",".join(nodes),
                dialer=environment.transport,
                monotonic_ns=environment.clock.monotonic_ns,
                rng=environment.random("client"),
            )
            async with database:
                while True:
                    began_ns = environment.loop.now_ns
                    try:
                        await database.put(region.encode(), b"%d" % began_ns, timeout="300ms")
                    except k2store.K2Error:
                        continue
                    self.writes[region] = began_ns, environment.loop.now_ns
                    await asyncio.sleep(PAUSE_S)

        return write

    def _kill(self) -> Failover:
        """Wait for some calm, kill who leads, wait for writes of all clients."""
        simulation = self.simulation
        simulation.run_for(CALM_NS + self.random.randrange(SECOND_NS))
        process = simulation.processes[self._leader()]
        killed_ns = simulation.loop.now_ns
        process.kill()
        revived_ns, until_ns = killed_ns + DOWN_NS, killed_ns + LIMIT_NS
        while any(began_ns < killed_ns for began_ns, _ in self.writes.values()):
            assert simulation.loop.now_ns < until_ns, f"nobody has followed {process.name}"
            simulation.run_for(MILLISECOND_NS)
            if not process.alive and simulation.loop.now_ns >= revived_ns:
                process.start()
        took = [(acked_ns - killed_ns) / SECOND_NS for _, acked_ns in self.writes.values()]
        if not process.alive:
            process.start()
        return Failover(self.seed, process.name, *took)

    def _leader(self) -> str:
        [name] = [
            node.name
            for node in self.nodes
            if any(group.leading for group in node.host.groups.values())
        ]
        return name
