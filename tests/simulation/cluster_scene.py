"""A simulated cluster for scripts: regions of real nodes, one control plane, clients in regions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import k2store
from k2store.control.map import Keyspace
from k2store.control.ports import change
from k2store.control.transitions import with_keyspaces
from k2store.testing.control import MemoryControl, MemoryPlane
from k2store.testing.simulation import SECOND_NS, Environment, Simulation
from k2store.testing.simulation.cluster import ClusterNode
from k2store.testing.simulation.node import PORT, NodeKnobs
from replication import ReplicaSettings

ZONE = (Keyspace("default", b"", "zone", "fra"),)


class Scene:
    """Nodes by name, their processes, and what scripts do with them."""

    def __init__(
        self,
        simulation: Simulation,
        names: Iterable[str],
        keyspaces: tuple[Keyspace, ...] = ZONE,
        knobs: NodeKnobs | None = None,
        replica: ReplicaSettings | None = None,
        *,
        split_bytes: int = 0,
    ) -> None:
        self.simulation = simulation
        self.plane = MemoryPlane()
        self.keyspaces = keyspaces
        self.nodes: dict[str, ClusterNode] = {}
        self.processes: dict[str, Any] = {}
        for name in names:
            region = name.partition("-")[0]
            node = self.nodes[name] = ClusterNode(
                name, region, self.plane, knobs, replica, split_bytes=split_bytes
            )
            machine = simulation.machine(name, bound_ns=500_000)
            self.processes[name] = simulation.process(machine, node.main)

    def later(self, seconds: float, act: Callable[[], Any]) -> None:
        """Do something to the world after a while."""
        loop = self.simulation.loop
        loop.schedule(loop.now_ns + int(seconds * SECOND_NS), loop.world.context, act)

    def leader(self, key: bytes = b"") -> str:
        """The node that leads the partition of a key, as itself knows."""
        leaders = [
            name
            for name, node in self.nodes.items()
            if node.engine is not None
            and not node.engine.stopped
            and self.processes[name].alive
            and not self.processes[name].paused
            for group in (node.host.groups.get(node.host.route.of(key)),)
            if group is not None and group.serves(node.engine.now)
        ]
        assert len(leaders) == 1, leaders
        return leaders[0]

    async def made(self) -> None:
        """Return when all have joined and the keyspaces are there."""
        while len(self.plane.map.nodes) < len(self.nodes):
            await asyncio.sleep(0.05)
        control = MemoryControl(self.plane)
        await change(control, lambda present: with_keyspaces(present, self.keyspaces))

    def connect(self, environment: Environment, name: str, **settings: Any) -> k2store.Database:
        """A client of one node."""
        return k2store.connect(
            f"k2://{name}:{PORT}",
            dialer=environment.transport,
            monotonic_ns=environment.clock.monotonic_ns,
            rng=environment.random(f"client of {name}"),
            settings=k2store.ClientSettings(**({"timeout_s": 15.0} | settings)),
        )

    def play(self, main: Callable[[Environment], Awaitable[Any]], limit_s: int = 300) -> Any:
        """Run a script to its end, then look that nothing has failed and all copies are equal."""

        async def whole(environment: Environment) -> Any:
            await self.made()
            return await main(environment)

        client = self.simulation.process("client", whole)
        (result,) = self.simulation.wait_for([client], limit_s * SECOND_NS)
        self.simulation.run_for(4 * SECOND_NS)
        self.simulation.check()
        self.check_equal()
        return result

    def check_equal(self) -> None:
        """Every copy of a partition has applied the same history and holds the same rows."""
        seen: dict[int, dict[str, Any]] = {}
        for name, node in self.nodes.items():
            if not self.processes[name].alive:
                continue
            for number, group in node.host.groups.items():
                replica = group.replica
                position = replica.state.log.position(replica.applied_lsn)
                state = group.partition.state
                state.settle()
                rows = [
                    row
                    for batch in state.settled.all_rows(1, state.start, state.end or None)
                    for row in batch
                    if row[1] >= state.horizon
                ]
                seen.setdefault(number, {})[name] = (position, rows)
        for number, copies in seen.items():
            first = next(iter(copies.values()))
            assert all(copy == first for copy in copies.values()), (
                number,
                {name: (copy[0], len(copy[1])) for name, copy in copies.items()},
            )
