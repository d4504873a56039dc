"""The clients of a run: many workloads at once, in every region, over keys at home there and anywhere.

::

    region fra   clients ── append@fra/ bank@fra/ ... set@fra/    at home: milliseconds
                         └─ append bank ... set                    survives a region: a round trip
                         └─ append@iad/ ...                        a few, from elsewhere
                 watchers ─ everything, and the streams of one home

What each asked and was told goes into its workload's history, and into the journal of all.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import k2store
from jepsen_like.history import Recorder
from jepsen_like.sim.actor import Actor
from jepsen_like.sim.journal import Journal
from jepsen_like.sim.watching import Watcher
from jepsen_like.workloads import WORKLOADS, Workload
from jepsen_like.workloads.sets import Sets
from k2store.testing.simulation.node import stamp_time_ns

if TYPE_CHECKING:
    from k2store.testing.cluster import LocalCluster

KINDS: Final = MappingProxyType({**WORKLOADS, "set": Sets})
LOADS: Final = ("append", "bank", "register", "set", "skew", "watch")
PACE_S: Final = 0.25
"""How long a task rests between two operations, on average."""
BURSTS: Final = MappingProxyType({"set": 24})
"""How many operations a task begins at once; one of all others. They meet nobody, so they travel
together, as requests of a busy service do."""
ELSEWHERE_S: Final = 1.0
"""The same where a task works on keys that are at home in another region."""
RECOVERED: Final = b"recovered/"
BULK: Final = b"bulk/"
BULK_BYTES: Final = 128 << 10
BULK_COUNT: Final = 24
LAG_S: Final = 0.05
"""A loop that is later than this has stalled, and what clients were told late is not the store's doing."""
LOOK_S: Final = 0.01


class Load:
    """Workloads, their clients, and what they have seen."""

    def __init__(self, cluster: LocalCluster, rng: random.Random, clients: int) -> None:
        """`clients`: connections in each region."""
        self.journal = Journal(time.time_ns, stamp_time_ns)
        self.watchers: list[Watcher[str]] = []
        self.stalls: list[tuple[int, int]] = []
        """When the loop of all clients stood still, and for how long; ns."""
        self.databases: dict[str, list[k2store.Database]] = {}
        self._cluster = cluster
        self._rng = rng
        self._clients = clients
        self.prefixes = (b"", *(region.encode() + b"/" for region in cluster.regions))
        self.workloads: dict[str, Workload] = {
            _named(kind, prefix): KINDS[kind](
                Recorder(time.time_ns), random.Random(rng.random()), prefix
            )
            for prefix in self.prefixes
            for kind in LOADS
        }
        self._calm = False
        self._tasks: list[asyncio.Task[None]] = []
        self._watching: list[asyncio.Task[None]] = []
        self._numbers = itertools.count(1)

    @property
    def first(self) -> k2store.Database:
        """The first client of the first region."""
        return self.databases[self._cluster.regions[0]][0]

    @property
    def borders(self) -> list[str]:
        """Keys in the middle of workloads: a split there goes through their transactions."""
        found = (work.keys[len(work.keys) // 2].decode() for work in self.workloads.values())
        return sorted(found)

    async def start(self, stack: AsyncExitStack, pace_s: float) -> None:
        """Connect, prepare all workloads, and let every client begin."""
        for region in self._cluster.regions:
            self.databases[region] = [
                await stack.enter_async_context(self._cluster.connect(region))
                for _ in range(self._clients)
            ]
        for name, workload in self.workloads.items():
            await workload.open(self.actor(self.first, name))
        for region, databases in self.databases.items():
            for database, name in itertools.product(databases, self.workloads):
                rest_s = pace_s if _at_home(name, region) else ELSEWHERE_S
                self._tasks.append(asyncio.create_task(self._work(database, name, rest_s)))
            for where in (b"", region.encode() + b"/stream/"):
                watcher = Watcher[str](
                    k2store.prefix(where), random.Random(self._rng.random()), self._cluster.connect
                )
                self.watchers.append(watcher)
                self._watching.append(asyncio.create_task(watcher.main(region)))
        stalls = asyncio.create_task(self._note_stalls())
        stack.callback(stalls.cancel)

    async def finish(self, limit_s: float) -> None:
        """Let every client end what it is at. TimeoutError when one never does."""
        self._calm = True
        async with asyncio.timeout(limit_s):
            await asyncio.gather(*self._tasks)

    async def catch_up(self, limit_s: float) -> None:
        """Let every watcher see the last commit. TimeoutError when one never does."""
        goal = max((entry.at for entry in self.journal.entries), default=0)
        for watcher in self.watchers:
            watcher.goal = goal
        async with asyncio.timeout(limit_s):
            await asyncio.gather(*self._watching)

    def stop(self) -> None:
        """End all tasks, also those that never end by themselves."""
        for task in (*self._tasks, *self._watching):
            task.cancel()

    def actor(self, database: k2store.Database, name: str) -> Actor:
        """A client that works at a workload."""
        rng = random.Random(self._rng.random())
        return Actor(database, self.journal, self.workloads[name].recorder, rng, name)

    async def recovered(self) -> None:
        """Return when a write from every region to every kind of keys has taken."""
        await asyncio.gather(
            *(
                self._wrote(some[0], prefix)
                for some in self.databases.values()
                for prefix in self.prefixes
            )
        )

    async def _work(self, database: k2store.Database, name: str, rest_s: float) -> None:
        workload, count = self.workloads[name], BURSTS.get(name.partition("@")[0], 1)
        actors = [self.actor(database, name) for _ in range(count)]
        rng = actors[0].random
        await asyncio.sleep(rng.random() * rest_s)
        while not self._calm:
            await asyncio.gather(*(workload.step(actor) for actor in actors))
            await asyncio.sleep(rng.expovariate(1 / rest_s))

    async def bulk(self, region: str) -> None:
        """Write some megabytes at home in a region, which every node keeps a copy of."""
        database = self.databases[region][0]
        value = random.Random(next(self._numbers)).randbytes(BULK_BYTES)

        async def write() -> None:
            key = b"%s/%s%d" % (region.encode(), BULK, next(self._numbers))
            actor = Actor(database, self.journal, Recorder(), random.Random(0), "bulk")
            await actor.one_shot("write", None, writes={key: value})

        await asyncio.gather(*(write() for _ in range(BULK_COUNT)))

    async def _wrote(self, database: k2store.Database, prefix: bytes) -> None:
        actor = Actor(database, self.journal, Recorder(), random.Random(0), "recovered")
        while True:
            key = prefix + RECOVERED + b"%d" % next(self._numbers)
            if await actor.one_shot("write", None, writes={key: 0}):
                return
            await asyncio.sleep(LOOK_S)

    async def _note_stalls(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LOOK_S
            await asyncio.sleep(LOOK_S)
            late_s = loop.time() - due_s
            if late_s > LAG_S:
                self.stalls.append((time.time_ns(), int(late_s * 1e9)))


def _named(kind: str, prefix: bytes) -> str:
    return f"{kind}@{prefix.decode()}" if prefix else kind


def _at_home(name: str, region: str) -> bool:
    home = name.partition("@")[2]
    return home in ("", f"{region}/")


def thin(workloads: Mapping[str, Workload], least: int) -> Sequence[str]:
    """The workloads of which too few operations were answered well to prove anything."""
    return [
        f"{name}: only {count} operations were answered"
        for name, workload in workloads.items()
        if (
            count := sum(
                operation.outcome == "ok" for operation in workload.recorder.history().operations
            )
        )
        < least
    ]
