"""One seed of a cluster: regions of machines, a control plane, and the same phases as for one node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Final

import k2store
from jepsen_like.history import Recorder
from jepsen_like.sim.agreement import UNJOURNALED
from jepsen_like.sim.cluster.faults import actions
from jepsen_like.sim.cluster.plan import ClusterPlan, draw
from jepsen_like.sim.cluster.states import looker, pairs_met
from jepsen_like.sim.scene import staged
from jepsen_like.sim.stage import RESTART_NS, Result, Stage, patiently
from jepsen_like.workloads.roam import Roam
from k2store.testing.control import MemoryPlane
from k2store.testing.simulation import SECOND_NS, Environment, Main, Process, Simulation
from k2store.testing.simulation.cluster import (
    CLUSTER_EXITS,
    PATIENCE_STEP_NS,
    PORT,
    ClusterNode,
    hasty,
    patient,
)
from k2store.testing.simulation.convergence import differences, marks, unsettled
from k2store.testing.simulation.node import stamp_before_ns
from k2store.testing.simulation.operating import found

DAMAGE: Final = ("corrupt", "stale-disk")
LOOKING: Final = "looking-"
ROAM: Final = "roam"
CONVERGE_LIMIT_NS: Final = 30 * SECOND_NS
"""From the end of all load to equal logs everywhere."""
READ_LIMIT_NS: Final = 30 * SECOND_NS
FINDINGS_MAX: Final = 10
MAJORITY_OF_CLOCKS: Final = 3
"""Nodes of which two can tell the third that its clock is wrong."""


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
        self.ordered_by_luck = not plan.honest
        self.actions = actions(self.plane, self.nodes)
        self.look = looker(simulation, self.nodes)
        keys = [
            key
            for workload in self.workloads.values()
            for key in workload.keys
            if not key.startswith(UNJOURNALED)
        ]
        self.workloads[ROAM] = Roam(Recorder(), keys)

    # ------------------------------------------------------------------------------ the cluster

    def _nodes(self) -> Sequence[ClusterNode]:
        plan = self.plan
        if plan.lease_ns:
            replica = hasty(plan.lease_ns, plan.patience_ns, plan.node.ahead_ns_max)
            step_ns = plan.lease_ns // 4
        else:
            replica, step_ns = patient(plan.patience_ns), PATIENCE_STEP_NS
        return [
            ClusterNode(
                name,
                region,
                self.plane,
                plan.node,
                replica,
                copy_page_bytes=plan.copy_page_bytes,
                patience_step_ns=step_ns,
            )
            for name, region in self.plan.nodes.items()
        ]

    def _servers(self) -> Sequence[Process]:
        # Who finds its disk damaged, or old, refuses to serve until an operator brings another one.
        damaged = any(fault.name in DAMAGE for fault in self.plan.schedule)
        exits = (*CLUSTER_EXITS, k2store.Corruption) if damaged else CLUSTER_EXITS
        return [
            self.simulation.process(
                self._machine(node.name), node.main, fail_stop=exits, restart_ns=RESTART_NS
            )
            for node in self.nodes
        ]

    def _region(self, name: str) -> str:
        known = {**self.plan.nodes, **self.plan.places}
        found = known.get(name.removeprefix(LOOKING))
        return self.plan.regions[0] if found is None else found

    def _address(self, environment: Environment) -> str:
        region = environment.machine.host.region
        names = [node for node, where in self.plan.nodes.items() if where == region]
        environment.random("address").shuffle(names)
        return "k2://" + ",".join(f"{name}:{PORT}" for name in names)

    def _borders(self) -> Sequence[bytes]:
        return sorted(one.start for one in self.plane.map.partitions if one.start)

    async def _prepare(self) -> None:
        """Wait until all nodes have joined, and found the keyspaces."""
        plan = self.plan
        await found(self.plane, len(self.nodes), plan.keyspaces, plan.split_keys)

    def count(self, result: Result) -> None:
        """Figures, and whether the fence has noticed clocks outside their bound."""
        super().count(result)
        result.probes |= pairs_met(self.engine.applied if self.engine is not None else ())
        if self.plan.honest or result.failures or len(self.nodes) < MAJORITY_OF_CLOCKS:
            return
        if "clock-violation" in result.fault_kinds and not result.probes["cluster.clock_fenced"]:
            result.failures.append("vacuous: clocks left their bound, and no node was fenced")

    # ------------------------------------------------------------------------------ in the end

    def _settle(self) -> None:
        simulation = self.simulation
        until_ns = simulation.loop.now_ns + CONVERGE_LIMIT_NS
        marked, since = marks(self.nodes), stamp_before_ns(simulation.true_ns())
        while open_ := unsettled(self.nodes, self.plane.map, marked, since):
            if simulation.loop.now_ns >= until_ns:
                break
            simulation.run_for(SECOND_NS // 10)
        self.inside += open_[:FINDINGS_MAX]
        if open_:
            return
        self.inside += differences(self.nodes, keeps_history=self.plan.keeps_history)
        self._read_everywhere()

    def _safe(self) -> int:
        return min(node.host.safe() for node in self.nodes)

    def _horizon(self) -> int:
        return max(
            group.partition.state.horizon
            for node in self.nodes
            for group in node.host.groups.values()
        )

    def _read_everywhere(self) -> None:
        """Every node shows the same rows at one stamp, out of its own copies."""
        until_ns = self.simulation.loop.now_ns + CONVERGE_LIMIT_NS
        # Whoever comes late to rest may know time to be closed only up to what others have collected.
        while (at := self._safe()) < self._horizon():
            if self.simulation.loop.now_ns >= until_ns:
                self.inside.append(f"time is closed up to {at}, below what is kept, for long")
                return
            self.simulation.run_for(SECOND_NS // 10)
        before = [node.host.forwarding.forwarded for node in self.nodes]
        shown: dict[str, set[tuple[bytes, int, bytes]]] = {}
        looking = [
            self.simulation.process(
                self._machine(LOOKING + node.name), _looker(node.name, at, shown)
            )
            for node in self.nodes
        ]
        self.simulation.wait_for(looking, READ_LIMIT_NS)
        first = self.nodes[0].name
        for node, forwarded in zip(self.nodes, before, strict=True):
            differing = sorted(shown[node.name] ^ shown[first])
            if differing:
                self.problems.append(
                    f"at {at} {node.name} and {first} show different rows: {differing[:3]}"
                )
            asked = node.host.forwarding.forwarded - forwarded
            if asked:
                self.inside.append(f"{node.name} asked others {asked} times for what is final")


def _looker(name: str, at: int, shown: dict[str, set[tuple[bytes, int, bytes]]]) -> Main:
    """Reads everything through one node."""

    async def look(environment: Environment) -> None:
        def connect() -> k2store.Database:
            return k2store.connect(
                f"k2://{name}:{PORT}",
                dialer=environment.transport,
                monotonic_ns=environment.clock.monotonic_ns,
                rng=environment.random("client"),
            )

        async with await patiently(connect) as database, database.snapshot(at=at) as view:
            rows = await view.scan(k2store.EVERYTHING).all()
        shown[name] = {(row.key, row.version, row.value) for row in rows}

    return look
