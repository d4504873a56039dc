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

from k2store.control.map import Map
from k2store.control.ports import join
from k2store.errors import Unavailable
from k2store.node.alarm import LoopAlarm
from k2store.node.cluster.agent import Agent
from k2store.node.cluster.host import ClusterHost, ClusterSettings
from k2store.node.engine import Engine
from k2store.storage import StorageOptions
from k2store.testing.control import MemoryControl, MemoryPlane
from k2store.testing.simulation.node import PORT, NodeKnobs, engine_settings
from k2store.testing.simulation.process import Environment, Main
from replication import ReplicaSettings

PEER_PORT = 7402


class ClusterNode:
    """One node over all its incarnations."""

    def __init__(
        self,
        name: str,
        region: str,
        plane: MemoryPlane,
        knobs: NodeKnobs | None = None,
        replica: ReplicaSettings | None = None,
    ) -> None:
        self.name = name
        self.region = region
        self.knobs = NodeKnobs() if knobs is None else knobs
        self.replica = ReplicaSettings(patience_ns=1_200_000_000) if replica is None else replica
        self.control = MemoryControl(plane)
        self.engine: Engine | None = None
        """The engine of the latest incarnation that came up."""
        self.starts = 0
        self._known: Map | None = None

    @property
    def host(self) -> ClusterHost:
        """The host of the latest incarnation."""
        assert self.engine is not None, f"{self.name} has never been up"
        assert isinstance(self.engine.host, ClusterHost)
        return self.engine.host

    @property
    def main(self) -> Main:
        """What a process of the simulator runs."""
        return self._main

    async def _main(self, environment: Environment) -> None:
        store = environment.open_store(StorageOptions(segment_bytes=self.knobs.segment_bytes))
        disk = store.settled.get_meta(b"disk")
        if disk is None:
            disk = environment.entropy(16)
            store.settled.put_meta({b"disk": disk})
            store.settled.flush()
        address = f"{environment.machine.host.name}:{PEER_PORT}"
        while True:
            try:
                info = await join(self.control, self.name, self.region, address, disk)
                break
            except Unavailable:
                if self._known is not None and (known := self._known.node_named(self.name)):
                    info = known
                    break
                await asyncio.sleep(0.1)
        loop = environment.loop
        ended: asyncio.Future[None] = loop.create_future()

        def failed(error: BaseException) -> None:
            if not ended.done():
                ended.set_exception(error)

        settings = ClusterSettings(node=info.id, replica=self.replica)
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
        await engine.start()
        await environment.listen(PEER_PORT, host.links)
        await environment.listen(PORT, engine)
        agent.start(self._known)
        self.starts += 1
        self.engine = engine
        await ended

    def _keep(self, present: Map) -> None:
        self._known = present
