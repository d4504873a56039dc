"""One seed of a cluster: regions of machines, a control plane, and the same phases as for one node."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import IO, Final

from jepsen_like.history import Recorder
from jepsen_like.sim.agreement import UNJOURNALED
from jepsen_like.sim.cluster.convergence import differences, unsettled
from jepsen_like.sim.cluster.faults import actions
from jepsen_like.sim.cluster.founding import founded
from jepsen_like.sim.cluster.plan import ClusterPlan, draw
from jepsen_like.sim.scene import staged
from jepsen_like.sim.stage import RESTART_NS, Result, Stage, patiently
from jepsen_like.workloads import Workload
from jepsen_like.workloads.roam import Roam
import k2store
from k2store.control.ports import change
from k2store.testing.control import MemoryControl, MemoryPlane
from k2store.testing.simulation import SECOND_NS, Environment, Process, Simulation
from k2store.testing.simulation.cluster import CLUSTER_EXITS, PORT, ClusterNode
from replication import ReplicaSettings

ROAM: Final = "roam"
CONVERGE_LIMIT_NS: Final = 30 * SECOND_NS
"""From the end of all load to equal logs everywhere."""
READ_LIMIT_NS: Final = 30 * SECOND_NS
FINDINGS_MAX: Final = 10


def run(
    seed: int,
    only: Sequence[str] = (),
    *,
    plan: ClusterPlan | None = None,
    trace_sink: IO[str] | None = None,
    honest: bool = True,
) -> Result:
    """Run a seed, or the plan that is given instead of the one drawn from it."""
    return staged(plan or draw(seed, only, honest=honest), ClusterScene, trace_sink)


class ClusterScene(Stage):
    """Some regions, their nodes, clients and watchers."""

    nodes: Sequence[ClusterNode]

    def __init__(self, plan: ClusterPlan, simulation: Simulation) -> None:
        self.plan = plan
        self.plane = MemoryPlane()
        super().__init__(plan, simulation)
        self.actions = actions({node.name: node.control for node in self.nodes})
        keys = [
            key
            for workload in self.workloads.values()
            for key in workload.keys
            if not key.startswith(UNJOURNALED)
        ]
        self.workloads[ROAM] = Roam(Recorder(), keys)

    # ------------------------------------------------------------------------------ the cluster

    def _nodes(self) -> Sequence[ClusterNode]:
        settings = ReplicaSettings(patience_ns=self.plan.patience_ns)
        return [
            ClusterNode(name, region, self.plane, self.plan.node, settings)
            for name, region in self.plan.nodes.items()
        ]

    def _servers(self) -> Sequence[Process]:
        return [
            self.simulation.process(
                self._machine(node.name), node.main, fail_stop=CLUSTER_EXITS, restart_ns=RESTART_NS
            )
            for node in self.nodes
        ]

    def _region(self, name: str) -> str:
        found = self.plan.nodes.get(name) or self.plan.places.get(name)
        return self.plan.regions[0] if found is None else found

    def _address(self, environment: Environment) -> str:
        region = environment.machine.host.region
        names = [node for node, where in self.plan.nodes.items() if where == region]
        environment.random("address").shuffle(names)
        return "k2://" + ",".join(f"{name}:{PORT}" for name in names)

    def _borders(self) -> Sequence[bytes]:
        return sorted(one.start for one in self.plane.map.partitions if one.start)

    async def _prepare(self, environment: Environment) -> None:
        control = MemoryControl(self.plane)
        while len(self.plane.map.nodes) < len(self.nodes):
            await asyncio.sleep(0.05)
        plan = self.plan
        await change(control, lambda present: founded(present, plan.keyspaces, plan.split_keys))

    # ------------------------------------------------------------------------------ in the end

    def _settle(self) -> None:
        simulation = self.simulation
        until_ns = simulation.loop.now_ns + CONVERGE_LIMIT_NS
        while (open_ := unsettled(self.nodes, self.plane.map)) and (
            simulation.loop.now_ns < until_ns
        ):
            simulation.run_for(SECOND_NS // 10)
        self.problems += open_[:FINDINGS_MAX]
        if open_:
            return
        self.problems += differences(self.nodes, keeps_history=self.plan.keeps_history)
        self._read_everywhere()

    def _read_everywhere(self) -> None:
        """Every node shows the same rows at one stamp, out of its own copies."""
        at = min(node.host.safe() for node in self.nodes)
        shown: dict[str, list[tuple[bytes, int, bytes]]] = {}

        async def look(environment: Environment) -> None:
            for node in self.nodes:
                address = f"k2://{node.name}:{PORT}"
                connected = await patiently(
                    lambda address=address: k2store.connect(  # type: ignore[misc]
                        address,
                        dialer=environment.transport,
                        monotonic_ns=environment.clock.monotonic_ns,
                        rng=environment.random("client"),
                    )
                )
                async with connected as database, database.snapshot(at=at) as view:
                    rows = await view.scan(k2store.EVERYTHING).all()
                shown[node.name] = [(row.key, row.version, row.value) for row in rows]

        before = {node.name: node.host.forwarding.forwarded for node in self.nodes}
        looking = self.simulation.process(self._machine("looking"), look)
        self.simulation.wait_for([looking], READ_LIMIT_NS)
        first, *others = self.nodes
        for node in others:
            if shown[node.name] != shown[first.name]:
                differing = set(shown[node.name]) ^ set(shown[first.name])
                self.problems.append(
                    f"at {at} {node.name} and {first.name} show different rows: "
                    f"{sorted(differing)[:3]}"
                )
        for node in self.nodes:
            asked = node.host.forwarding.forwarded - before[node.name]
            if asked:
                self.problems.append(f"{node.name} asked others {asked} times for what is final")

