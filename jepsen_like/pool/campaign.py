"""The pool's load on a real cluster: workers as processes that are killed, nodes and leaders, too.

::

    campaign ── routers of all regions (tasks)         kill -9 of a worker, and in its place another life
        │          │ claim, read, release, fence       SIGSTOP of one for longer than its lease: a zombie
        │          ╎ slots of workers, mapped          kill -9, SIGTERM, SIGSTOP of a node; of one that leads
        └── a process each: fra/w1 fra/w2 iad/w1 ...   a region cut off, in one direction, slow, losing packets

After each fault the learner of every region must come to show what is committed by then, and equal a scan.
"""

from __future__ import annotations

import asyncio
import collections
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

import k2store
from jepsen_like.checking import check
from jepsen_like.formats.write import write
from jepsen_like.history import History, Recorder
from jepsen_like.nemesis.schedule import Schedule
from jepsen_like.nemesis.world import Broken, Unable, World
from jepsen_like.pool.faults import FAULTS, FIRST, NS_PER_S, Victims
from jepsen_like.pool.load import Load, Memories
from jepsen_like.pool.member import Member, merged
from jepsen_like.pool.processes import WorkerProcess
from jepsen_like.pool.router import RouterLoad
from k2store.testing.keeper import Keeper
from kv_pool.edge.layout import keyspaces
from kv_pool.edge.pool import Pool
from kv_pool.keys import Worker

if TYPE_CHECKING:
    from jepsen_like.nemesis.world import Running
    from k2store.testing.cluster import LocalCluster
    from kv_pool.edge.following import Tree

LEASE_S: Final = 1.5
STEP_S: Final = 0.05
FINDINGS_MAX: Final = 20
REST_S: Final = 5.0
"""Longer than any claim, announcement and task of the load."""
AGAIN_S: Final = 0.3
END_S: Final = 60.0
"""From the end of the faults until routers have ended, and until the last look succeeds."""
AGREE_S: Final = 60.0
"""From the end of a fault until every region's learner has been found equal to the store."""
RESTS_S: Final = (0.5, 1.5)
OPERATIONS_PER_S_MIN: Final = 4.0
"""Fewer that were done prove little. One commit across the regions takes a tenth of a second."""
READS_MIN: Final = 5
NEEDED: Final = ("register", "publish", "acquire", "release", "renew", "evict", "report", "fence")
MOVES: Final = ("migrate", "land")
"""At least one of them."""
HISTORY: Final = "history.k2h"


class Result(msgspec.Struct):
    """What a run came to. `anomalies` are sentences about the store, `flaws` about the run."""

    seconds: float
    seed: int = 0
    operations: int = 0
    done: dict[str, int] = {}
    """Of each kind how many operations were done."""
    unknown: int = 0
    faults: dict[str, int] = {}
    """Of each kind how many took effect."""
    evidence: list[str] = []
    """Of each fault in turn what shows that it did."""
    agreed_s_max: float = 0.0
    """From the end of a fault until all learners had been found equal to the store, at most."""
    compared: int = 0
    """How often a learner that showed something was compared with the store."""
    reads: int = 0
    """How often the bytes under a claim that held were looked at."""
    voided: int = 0
    """Claims that engines broke, and named."""
    anomalies: list[str] = []
    flaws: list[str] = []

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong, and enough has happened to prove anything."""
        return not self.anomalies and not self.flaws


def words(regions: tuple[str, ...]) -> tuple[str, ...]:
    """The keyspaces that a cluster needs for this, as `local_cluster` takes them."""
    return tuple([one.word() for one in keyspaces(regions)])


class Campaign:
    """One run on one cluster whose keyspaces are those of `words`."""

    def __init__(
        self,
        cluster: LocalCluster,
        rng: random.Random,
        folder: Path,
        kinds: tuple[str, ...] = tuple(FAULTS),
    ) -> None:
        self._cluster = cluster
        self._rng = rng
        self._folder = folder
        self._kinds = kinds
        self._load = Load(Recorder(time.monotonic_ns), "router.", Memories(folder))
        self._routers: dict[str, RouterLoad] = {}
        self._result = Result(0.0, done={}, faults={}, evidence=[], anomalies=[], flaws=[])
        self._effective: collections.Counter[str] = collections.Counter()
        regions = cluster.regions
        self._workers = (
            Worker(regions[0], "w2"),
            *[Worker(region, "w1") for region in regions],
        )

    def _member(self, worker: Worker) -> Member:
        near = [(other.region, other.name) for other in self._workers if other != worker]
        return Member(
            "k2://" + ",".join([one.seat.address for one in self._cluster.nodes_in(worker.region)]),
            worker.region,
            worker.name,
            "",
            "",
            # Those beside it several times: so moves inside a region are not rare.
            [*near, *[one for one in near if one[0] == worker.region] * 2],
            list(self._cluster.regions),
            LEASE_S,
            STEP_S,
            self._rng.getrandbits(32),
            str(self._folder),
        )

    async def run(self, seconds: float) -> Result:
        """Load and faults for so long, then rest, and the judgement."""
        began_s = time.monotonic()
        over = asyncio.Event()
        result = self._result
        with Keeper() as keeper:
            processes = [
                WorkerProcess(
                    self._member(worker),
                    self._folder / f"{worker.region}-{worker.name}.log",
                    keeper,
                )
                for worker in self._workers
            ]
            try:
                for process in processes:
                    process.start()
                routers = [
                    asyncio.ensure_future(self._router(region, over))
                    for region in self._cluster.regions
                ]
                await self._disturb(seconds, processes)
                over.set()
                ended = [asyncio.to_thread(process.end) for process in processes]
                result.anomalies += [what for what in await asyncio.gather(*ended) if what]
                await asyncio.wait_for(asyncio.gather(*routers), END_S)
                await asyncio.sleep(REST_S)
                result.anomalies += await asyncio.wait_for(self._close(), END_S)
            finally:
                for process in processes:
                    process.close()
        result.seconds = round(time.monotonic() - began_s, 3)
        files = [file for process in processes for file in process.files]
        self._judge(merged(self._load.recorder, files), seconds)
        return result

    def _judge(self, history: History, seconds: float) -> None:
        write(self._folder / HISTORY, history, "native")
        result, counts = self._result, self._load.counts
        verdict = check(history, model="kv-directory")
        found = [f"{one.name}: {one.why}" for one in verdict.findings[:FINDINGS_MAX]]
        if verdict.valid is not True and not found:
            found.append(f"the history is not valid: {verdict.reason}")
        result.anomalies = [*found, *self._load.problems, *result.anomalies]
        operations = history.operations
        done = [one for one in operations if one.outcome == "ok"]
        result.operations = len(operations)
        result.done = dict(sorted(collections.Counter([one.f for one in done]).items()))
        result.unknown = sum(one.outcome == "info" for one in operations)
        result.faults = dict(sorted(self._effective.items()))
        result.compared = counts.get("compare something", 0)
        result.reads = counts.get("read", 0)
        result.voided = sum(
            len(one.result.get("voided", ()))
            for one in done
            if one.f == "report" and isinstance(one.result, Mapping)
        )
        result.flaws += thin(result, seconds)

    # ------------------------------------------------------------------------------ routers

    async def _open(self, stack: AsyncExitStack, region: str) -> RouterLoad:
        database = await stack.enter_async_context(self._cluster.connect(region))
        pool = await stack.enter_async_context(Pool(database, region, name=f"router-{region}"))
        tree: Tree = await stack.enter_async_context(pool.learner(regions=self._cluster.regions))
        self._load.trees[region] = tree
        rng = random.Random(self._rng.getrandbits(32))
        return RouterLoad(self._load, pool, tree, rng, pause_s=STEP_S, workers=self._workers)

    async def _router(self, region: str, over: asyncio.Event) -> None:
        while not over.is_set():
            try:
                async with AsyncExitStack() as stack:
                    router = await self._open(stack, region)
                    self._routers[region] = router
                    stack.callback(self._routers.pop, region)
                    await router.run(over.is_set)
            except k2store.K2Error:
                await asyncio.sleep(AGAIN_S)

    async def _close(self) -> list[str]:
        while True:
            try:
                async with AsyncExitStack() as stack:
                    router = await self._open(stack, self._cluster.regions[0])
                    return await router.close()
            except k2store.K2Error:
                await asyncio.sleep(AGAIN_S)

    async def _agree(self, region: str) -> None:
        """Return when a region's learner shows what was committed by now, and has been compared."""
        while True:
            router = self._routers.get(region)
            try:
                if router is not None:
                    await router.agree()
                    return
            except k2store.K2Error:
                pass
            await asyncio.sleep(AGAIN_S)

    # ------------------------------------------------------------------------------- faults

    async def _disturb(self, seconds: float, processes: list[WorkerProcess]) -> None:
        """One fault after the other, each kind in turn before any comes again."""
        hosts = {name: node.region for name, node in self._cluster.nodes.items()}
        schedule = Schedule(duration_ns=int(seconds * NS_PER_S), hosts=hosts, faults=())
        victims = Victims(World(self._cluster, schedule), processes, self._rng)
        until_s = time.monotonic() + seconds
        await asyncio.sleep(RESTS_S[1])
        for name in self._turns():
            if time.monotonic() >= until_s:
                return
            await self._one(victims, name)
            await asyncio.sleep(self._rng.uniform(*RESTS_S))

    def _turns(self) -> Iterator[str]:
        first = [name for name in FIRST if name in self._kinds]
        others = [name for name in self._kinds if name not in FIRST]
        yield from self._rng.sample(first, len(first))
        yield from self._rng.sample(others, len(others))
        while True:
            yield from self._rng.sample(self._kinds, len(self._kinds))

    async def _one(self, victims: Victims, name: str) -> None:
        result = self._result
        running = FAULTS[name](victims)
        lasts_s = victims.lasts_s(name)
        try:
            await asyncio.to_thread(next, running)
            await asyncio.sleep(lasts_s)
            evidence = await asyncio.to_thread(_ended, running)
        except Unable as unable:
            result.flaws.append(f"{name} could not be made: {unable}")
            return
        except (Broken, OSError, k2store.K2Error) as error:
            result.anomalies.append(f"{name}: {error}")
            return
        if evidence is None:
            result.flaws.append(f"{name} left no evidence")
            return
        self._effective[name] += 1
        result.evidence.append(f"{name} for {lasts_s:.1f} s: {evidence}")
        began_s = time.monotonic()
        regions = self._cluster.regions
        try:
            async with asyncio.timeout(AGREE_S):
                await asyncio.gather(*[self._agree(region) for region in regions])
        except TimeoutError:
            result.anomalies.append(
                f"after {name} ({evidence}) not every learner had shown what is there in {AGREE_S:g} s"
            )
        agreed_s = round(time.monotonic() - began_s, 3)
        result.agreed_s_max = max(result.agreed_s_max, agreed_s)


def thin(result: Result, seconds: float) -> list[str]:
    """Why a run proves nothing, or not what it should."""
    found = []
    if not result.faults:
        found.append("no fault took effect")
    missing = [f for f in NEEDED if not result.done.get(f)]
    if not any(result.done.get(f) for f in MOVES):
        missing.append(" or ".join(MOVES))
    if missing:
        found.append(f"nothing was done of {', '.join(missing)}")
    done = sum(result.done.values())
    if done < OPERATIONS_PER_S_MIN * seconds:
        found.append(f"only {done} operations were done in {seconds:.0f} s")
    if not result.compared:
        found.append("no learner that showed anything was compared")
    if result.reads < READS_MIN:
        found.append(f"only {result.reads} looks at bytes under claims")
    return found


def _ended(running: Running) -> str | None:
    try:
        next(running)
    except StopIteration as over:
        evidence: str | None = over.value
        return evidence
    raise AssertionError("a fault has two halves")
