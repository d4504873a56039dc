"""A run while it lasts, as faults and conductors act on it: processes, nodes, the network, what nobody planned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import k2store
from bench.demo.company import Company
from bench.demo.course import Compared, Links
from bench.demo.member import Member
from k2store.testing.cluster import LocalCluster
from k2store.testing.cluster.node import ClusterNode
from kv_pool.edge.journal import Note, read


class Watch(Protocol):
    """What the learners of all regions say."""

    def views_of(self, worker: str) -> list[tuple[int, bool]]:
        """What each learner says of a worker's life: which one, and whether it lasts."""
        ...

    def staleness_s(self) -> list[float]:
        """By how much each learner says to lag behind."""
        ...

    async def compare(self, region: str, at: int) -> Compared:
        """A region's learner beside the store, when it shows everything up to a stamp (0: as it is).

        One that cannot be compared is a difference as well.
        """
        ...


class Run:
    """See the module.

    db         the store, as from the first region
    incidents  what nobody had planned, for the report
    say        is told what is worth a line
    """

    def __init__(
        self,
        cluster: LocalCluster,
        company: Company,
        db: k2store.Database,
        incidents: list[str],
        say: Callable[[str], None],
    ) -> None:
        self.cluster = cluster
        self.company = company
        self.db = db
        self.say = say
        self._incidents = incidents
        self._wan_lock = asyncio.Lock()
        self._down: set[str] = set()

    @property
    def regions(self) -> Sequence[str]:
        """All of them."""
        return self.cluster.regions

    @property
    def workers(self) -> Sequence[str]:
        """Names of all workers."""
        return list(self.company.workers)

    def kill(self, worker: str) -> None:
        """End a worker as a crash would."""
        self._down.add(worker)
        self.company.workers[worker].kill()

    async def start(self, worker: str) -> None:
        """Start a worker that was killed."""
        await self.company.workers[worker].start()
        self._down.discard(worker)

    async def kill_node(self, node: ClusterNode) -> None:
        """End a node as a crash would."""
        self._down.add(node.name)
        await asyncio.to_thread(node.kill)

    async def start_node(self, node: ClusterNode) -> None:
        """Start a node that was killed."""
        await asyncio.to_thread(node.start)
        self._down.discard(node.name)

    def there(self) -> list[Member]:
        """Routers and workers, but for those that were killed or have ended."""
        return [one for one in self.company.members if one.name not in self._down]

    def look(self) -> None:
        """See whether everybody is there who should be."""
        for member in self.there():
            how = member.ended()
            if how:
                self._surprised(member.name, f"{member.name} {how}, and not by us")
        for node in self.cluster.nodes.values():
            if node.name not in self._down and not node.running:
                self._surprised(node.name, f"node {node.name} ended, and not by us")

    def amiss(self, what: str) -> None:
        """Something that nobody had planned."""
        self._incidents.append(what)

    async def on_wan(self, verb: Callable[[], None]) -> None:
        """Do something to the network, one thing at a time."""
        async with self._wan_lock:
            await asyncio.to_thread(verb)

    async def links(self) -> Links:
        """What the network has counted so far."""
        async with self._wan_lock:
            return await asyncio.to_thread(self.cluster.wan.statistics)

    def notes(self) -> list[Note]:
        """What everybody has taken down so far."""
        return [note for path in self.company.journals() for note in read(path)]

    async def compare_all(self, watch: Watch, at: int = 0) -> Compared:
        """Every learner beside the store, when it shows everything up to a stamp."""
        found = [await watch.compare(region, at) for region in self.regions]
        return Compared(
            sum([one.rows for one in found]),
            sum([one.prompts for one in found]),
            [difference for one in found for difference in one.differences],
        )

    def _surprised(self, name: str, incident: str) -> None:
        self._down.add(name)
        self._incidents.append(incident)
        self.say(incident)
