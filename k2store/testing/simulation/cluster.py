"""Nodes of a cluster as programs of the simulator: the real engine, host, links and replicas.

::

    plane = MemoryPlane()                       the control plane; it needs no network of its own
    nodes = [ClusterNode("fra-1", "fra", plane), ...]
    for node in nodes:
        simulation.process(simulation.machine(node.name, bound_ns=500_000), node.main)

Peers dial each other at `PEER_PORT` of the machine with the node's name, clients at `PORT`.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from k2store.control.map import Map, NodeInfo
from k2store.control.ports import join
from k2store.errors import Unavailable
from k2store.node.alarm import LoopAlarm
from k2store.node.cluster.agent import Agent
from k2store.node.cluster.group import Group
from k2store.node.cluster.host import ClusterHost, ClusterSettings
from k2store.node.engine import Engine
from k2store.storage import StorageOptions
from k2store.testing.control import MemoryControl, MemoryPlane
from k2store.testing.simulation.cluster_probes import CLUSTER_CASE_PROBES, CLUSTER_PROBES
from k2store.testing.simulation.node import FAIL_STOP, PORT, Node, NodeKnobs, engine_settings
from k2store.testing.simulation.process import Environment
from mvcc.refusals import Rule
from replication import ReplicaSettings

__all__ = [
    "CLUSTER_EXITS",
    "PATIENCE_STEP_NS",
    "PEER_PORT",
    "PORT",
    "ClusterNode",
    "Stopped",
    "hasty",
    "patient",
]

PEER_PORT = 7402
PATIENCE_NS = 1_200_000_000
PATIENCE_STEP_NS = 300_000_000
"""How much longer the second voter in line waits, and the third again."""
_LOOK_INTERVAL_S = 0.05
_JOIN_AGAIN_S = 0.1


def patient(patience_ns: int) -> ReplicaSettings:
    """Settings of replicas that hear nothing of a leader for so long before the first one acts."""
    return ReplicaSettings(patience_ns=patience_ns)


def hasty(lease_ns: int, patience_ns: int, ahead_ns_max: int) -> ReplicaSettings:
    """Settings of replicas whose leases are short, so that leads change often."""
    return ReplicaSettings(
        lease_ns=lease_ns,
        lease_longest_ns=lease_ns,
        renew_ns=lease_ns // 4,
        resend_ns=lease_ns // 6,
        patience_ns=patience_ns,
        ahead_max_ns=max(ReplicaSettings().ahead_max_ns, ahead_ns_max),
    )


class Stopped(Exception):
    """The node has ended in good order, as it was asked to; a supervisor may start it again."""


CLUSTER_EXITS = (*FAIL_STOP, Stopped)
"""How the main of a cluster's node may end."""


class ClusterNode(Node):
    """One node over all its incarnations."""

    def __init__(
        self,
        name: str,
        region: str,
        plane: MemoryPlane,
        knobs: NodeKnobs | None = None,
        replica: ReplicaSettings | None = None,
        *,
        split_bytes: int = 0,
        copy_page_bytes: int = 1 << 20,
        patience_step_ns: int = PATIENCE_STEP_NS,
    ) -> None:
        super().__init__(NodeKnobs() if knobs is None else knobs)
        self.patience_step_ns = patience_step_ns
        self.split_bytes = split_bytes
        self.copy_page_bytes = copy_page_bytes
        self.name = name
        self.region = region
        self.replica = patient(PATIENCE_NS) if replica is None else replica
        self.control = MemoryControl(plane)
        self._known: Map | None = None
        self._agents: list[Agent] = []
        self._hosts: list[ClusterHost] = []
        self._identities: set[int] = set()

    @property
    def host(self) -> ClusterHost:
        """The host of the latest incarnation."""
        assert self.engine is not None, f"{self.name} has never been up"
        assert isinstance(self.engine.host, ClusterHost)
        return self.engine.host

    async def _main(self, environment: Environment) -> None:
        store = environment.open_store(StorageOptions(segment_bytes=self.knobs.segment_bytes))
        disk = store.settled.get_meta(b"disk")
        if disk is None:
            disk = environment.entropy(16)
            self._known = None  # it was on the disk
            store.settled.put_meta({b"disk": disk})
            store.settled.flush()
        address = f"{environment.machine.host.name}:{PEER_PORT}"
        info = await self._join(address, disk)
        loop = environment.loop
        ended: asyncio.Future[None] = loop.create_future()

        def failed(error: BaseException) -> None:
            if not ended.done():
                ended.set_exception(error)

        settings = ClusterSettings(
            node=info.id,
            replica=self.replica,
            split_bytes=self.split_bytes,
            copy_page_bytes=self.copy_page_bytes,
            patience_step_ns=self.patience_step_ns,
        )
        engine = Engine(
            store,
            environment.clock,
            engine_settings(self.knobs),
            incarnation=environment.entropy(8),
            alarm=LoopAlarm,
            on_failure=failed,
            host=lambda engine: ClusterHost(engine, settings, environment.transport),
        )
        host = engine.host
        assert isinstance(host, ClusterHost)
        agent = Agent(self.control, host, keep=self._keep)
        self._engines.append(engine)
        self._hosts.append(host)
        self._agents.append(agent)
        self._identities.add(info.id)
        if engine.replayed:
            self.probes["node.recovered"] += 1
        if store.log.checkpoint_lsn > 0:
            self.probes["node.checkpoint_restored"] += 1
        await engine.start()
        await environment.listen(PEER_PORT, host.links)
        await environment.listen(PORT, engine)
        agent.start(self._known)
        self.starts += 1
        self.engine = engine
        looking = loop.create_task(self._look_on(host))
        stopping = loop.create_task(environment.stopping.wait())
        stopping.add_done_callback(lambda _: failed(Stopped(self.name)))
        try:
            await ended
        except Stopped:
            self.probes["cluster.stopped_in_order"] += 1
            agent.stop()
            engine.close()
            raise
        finally:
            looking.cancel()

    async def _join(self, address: str, disk: bytes) -> NodeInfo:
        """Who this node is; from the map on its disk, as long as the control plane is away."""
        while True:
            try:
                return await join(self.control, self.name, self.region, address, disk)
            except Unavailable:
                known = None if self._known is None else self._known.node_named(self.name)
                if known is not None:
                    return known
                await asyncio.sleep(_JOIN_AGAIN_S)

    def _keep(self, present: Map) -> None:
        self._known = present

    async def _look_on(self, host: ClusterHost) -> None:
        while True:
            self._look(host)
            await asyncio.sleep(_LOOK_INTERVAL_S)

    def _look(self, host: ClusterHost) -> None:
        """Note what can only be seen while it is so."""
        for group in host.groups.values():
            self.probes["cluster.waited_for_leader"] += bool(group.waiting)
            self.probes["cluster.held"] += bool(group.held)

    # ------------------------------------------------------------------ questions from outside

    def _open_things(self, engine: Engine) -> list[str]:
        host = self.host
        found = super()._open_things(engine)
        if len(host.forwarding):
            found.append(f"{len(host.forwarding)} requests at other nodes")
        if len(host.pulls):
            found.append(f"{len(host.pulls)} partitions being copied")
        for group in host.groups.values():
            found += _unfinished(group)
        return [f"{self.name}: {what}" for what in found]

    def harvest(self, exits: int) -> dict[str, int]:
        """Hits of all probes of a node, and of `CLUSTER_PROBES`."""
        mine = Counter({name: self.probes.pop(name, 0) for name in CLUSTER_PROBES})
        found = super().harvest(exits - mine["cluster.stopped_in_order"])
        for host in self._hosts:
            groups = host.groups.values()
            mine["cluster.answer_lost"] += host.forwarding.lost
            mine["cluster.clock_fenced"] += host.fence.trips
            mine["cluster.copied"] += host.pulls.finished
            mine["cluster.deposed"] += sum(one.rebuilt for one in groups)
            mine["cluster.forwarded"] += host.forwarding.forwarded
            mine["cluster.served_by_replica"] += host.final_reads
            mine["cluster.took_over"] += sum(
                one.taken_over for one in groups if one.replica.epoch > 1
            )
        mine["cluster.epoch_refused"] += sum(agent.refused for agent in self._agents)
        for state in self._states():
            for case, name in CLUSTER_CASE_PROBES.items():
                mine[name] += state.cases[case]
        mine["cluster.refused_low_water"] += sum(
            state.refusals[Rule.LOW_WATER] for state in self._states()
        )
        mine["cluster.joined_again"] += max(0, len(self._identities) - 1)
        return {**found, **{name: mine[name] for name in CLUSTER_PROBES}}


def _unfinished(group: Group) -> list[str]:
    return [
        f"partition {group.number}: {len(things)} requests {what}"
        for what, things in (
            ("without a leader", group.waiting),
            ("that wait for a checkpoint or an heir", group.held),
        )
        if things
    ]
