"""The pool's load on a real cluster: workers as processes that are killed, nodes and leaders, too.

::

    campaign ── routers of all regions (tasks)         kill -9 of a worker, and in its place another life
        │                                              SIGSTOP of one for longer than its lease: a zombie
        └── a process each: fra/w1 fra/w2 iad/w1 ...   kill -9 of a node; of one that leads; a region is cut off
"""

from __future__ import annotations

import asyncio
import collections
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import msgspec

import k2store
from jepsen_like.checking import check
from jepsen_like.history import Recorder
from jepsen_like.nemesis.processes import state_of
from jepsen_like.pool.load import Load
from jepsen_like.pool.member import Member, merged
from jepsen_like.pool.router import RouterLoad
from kv_pool.edge.layout import keyspaces
from kv_pool.edge.pool import Pool
from kv_pool.keys import Worker

if TYPE_CHECKING:
    from k2store.testing.cluster import LocalCluster
    from kv_pool.edge.following import Tree

LEASE_S: Final = 1.5
STEP_S: Final = 0.05
FINDINGS_MAX: Final = 20
REST_S: Final = 5.0
"""Longer than any claim, announcement and task of the load."""
AGAIN_S: Final = 0.3
END_S: Final = 60.0
"""From the end of the faults until workers and routers have ended, and until the last look succeeds."""
LASTS_S: Final = (1.0, 3.0)
ZOMBIE_S: Final = 4.0
RESTS_S: Final = (0.5, 1.5)


class Result(msgspec.Struct):
    """What a run came to; `anomalies` are sentences."""

    seconds: float
    operations: int = 0
    done: dict[str, int] = {}
    """Of each kind how many operations were done."""
    unknown: int = 0
    faults: dict[str, int] = {}
    """Of each kind how many took effect."""
    compared: int = 0
    """How often a learner that showed something was compared with the store."""
    anomalies: list[str] = []

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong, and enough has happened to prove anything."""
        tried = bool(self.faults) and self.compared > 0 and self.done.get("acquire", 0) > 0
        return tried and not self.anomalies


def words(regions: tuple[str, ...]) -> tuple[str, ...]:
    """The keyspaces that a cluster needs for this, as `local_cluster` takes them."""
    return tuple([one.word() for one in keyspaces(regions)])


class _Process:
    """A worker's process, over all its lives."""

    def __init__(self, member: Member, log: Path) -> None:
        self._member = member
        self._log = log
        self._lives = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.files: list[Path] = []

    def start(self) -> None:
        """A new process in the place of the last one."""
        self._lives += 1
        member = self._member
        life = f"{member.region}-{member.name}-{self._lives}"
        file = self._log.with_name(f"{life}.jsonl")
        self.files.append(file)
        member = msgspec.structs.replace(
            member, life=life, file=str(file), seed=member.seed + self._lives
        )
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jepsen_like.pool.member"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        _stdin(self._process).write(msgspec.json.encode(member) + b"\n")
        _stdin(self._process).flush()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was started"
        return self._process

    def kill(self) -> bool:
        """SIGKILL; whether it ran."""
        ran = self._running.poll() is None
        self._running.kill()
        self._running.wait()
        _stdin(self._running).close()
        return ran

    def pause(self) -> None:
        """SIGSTOP."""
        os.kill(self._running.pid, signal.SIGSTOP)

    def resume(self) -> bool:
        """SIGCONT; whether it stood still."""
        still = state_of(self._running.pid) == "T"
        os.kill(self._running.pid, signal.SIGCONT)
        return still

    def end(self) -> str:
        """Ask it to end, and wait; what is wrong with how it ended."""
        _stdin(self._running).close()
        try:
            status = self._running.wait(END_S)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()
            return f"{self._member.region}/{self._member.name} does not end"
        if not status:
            return ""
        return f"{self._member.region}/{self._member.name} ended with {status}: " + _end_of(
            self._log
        )

    def close(self) -> None:
        """Leave nothing behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _stdin(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None, "it was opened with a pipe"
    return process.stdin


def _end_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-400:]


class Campaign:
    """One run on one cluster whose keyspaces are those of `words`."""

    def __init__(self, cluster: LocalCluster, rng: random.Random, folder: Path) -> None:
        self._cluster = cluster
        self._rng = rng
        self._load = Load(Recorder(time.monotonic_ns), "router.")
        self._faults: collections.Counter[str] = collections.Counter()
        regions = cluster.regions
        self._workers = (
            Worker(regions[0], "w2"),
            *[Worker(region, "w1") for region in regions],
        )
        self._processes = [
            _Process(
                Member(
                    "k2://"
                    + ",".join([one.seat.address for one in cluster.nodes_in(worker.region)]),
                    worker.region,
                    worker.name,
                    "",
                    "",
                    [(other.region, other.name) for other in self._workers],
                    list(regions),
                    LEASE_S,
                    STEP_S,
                    rng.getrandbits(32),
                ),
                folder / f"{worker.region}-{worker.name}.log",
            )
            for worker in self._workers
        ]

    async def run(self, seconds: float) -> Result:
        """Load and faults for so long, then rest, and the judgement."""
        began_s = time.monotonic()
        over = asyncio.Event()
        problems: list[str] = []
        try:
            for process in self._processes:
                process.start()
            routers = [
                asyncio.ensure_future(self._router(region, over))
                for region in self._cluster.regions
            ]
            await self._disturb(seconds)
            over.set()
            ended = [asyncio.to_thread(process.end) for process in self._processes]
            problems += [what for what in await asyncio.gather(*ended) if what]
            await asyncio.wait_for(asyncio.gather(*routers), END_S)
            await asyncio.sleep(REST_S)
            problems += await asyncio.wait_for(self._close(), END_S)
        finally:
            for process in self._processes:
                process.close()
        return self._judged(time.monotonic() - began_s, problems)

    def _judged(self, seconds: float, problems: list[str]) -> Result:
        files = [file for process in self._processes for file in process.files]
        history = merged(self._load.recorder, files)
        verdict = check(history, model="kv-directory")
        found = [f"{one.name}: {one.why}" for one in verdict.findings[:FINDINGS_MAX]]
        if verdict.valid is not True and not found:
            found.append(f"the history is not valid: {verdict.reason}")
        operations = history.operations
        done = collections.Counter([one.f for one in operations if one.outcome == "ok"])
        return Result(
            round(seconds, 3),
            len(operations),
            dict(sorted(done.items())),
            sum(one.outcome == "info" for one in operations),
            dict(sorted(self._faults.items())),
            self._load.counts.get("compare something", 0),
            [*found, *self._load.problems, *problems],
        )

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

    # ------------------------------------------------------------------------------- faults

    async def _disturb(self, seconds: float) -> None:
        """One fault after the other, each kind in turn before any comes again."""
        kinds: dict[str, tuple[Callable[[], Callable[[], bool]], float]] = {
            "kill-worker": (self._kill_worker, self._rng.uniform(*LASTS_S)),
            "stop-worker": (self._stop_worker, ZOMBIE_S),
            "kill-node": (self._kill_node, self._rng.uniform(*LASTS_S)),
            "kill-leader": (self._kill_leader, self._rng.uniform(*LASTS_S)),
            "cut-region": (self._cut_region, self._rng.uniform(*LASTS_S)),
        }
        until_s = time.monotonic() + seconds
        await asyncio.sleep(RESTS_S[1])
        left: list[str] = []
        while time.monotonic() < until_s:
            if not left:
                left = self._rng.sample(sorted(kinds), len(kinds))
            name = left.pop()
            begin, lasts_s = kinds[name]
            end = await asyncio.to_thread(begin)
            await asyncio.sleep(lasts_s)
            self._faults[name] += await asyncio.to_thread(end)
            await asyncio.sleep(self._rng.uniform(*RESTS_S))
        self._faults = +self._faults

    def _kill_worker(self) -> Callable[[], bool]:
        """SIGKILL, and another life in its place at once: what it had is void before its lease ends."""
        process = self._rng.choice(self._processes)
        ran = process.kill()
        process.start()
        return lambda: ran

    def _stop_worker(self) -> Callable[[], bool]:
        """Longer than its lease: somebody ends its life, and then it goes on."""
        process = self._rng.choice(self._processes)
        process.pause()
        return process.resume

    def _kill_node(self) -> Callable[[], bool]:
        return self._killed(self._rng.choice(list(self._cluster.nodes)))

    def _kill_leader(self) -> Callable[[], bool]:
        leaders = [look.node.name for look in self._cluster.look() if look.leads]
        return self._killed(self._rng.choice(leaders)) if leaders else lambda: False

    def _killed(self, name: str) -> Callable[[], bool]:
        node = self._cluster.node(name)
        status = node.kill()

        def end() -> bool:
            node.start()
            return status is not None

        return end

    def _cut_region(self) -> Callable[[], bool]:
        wan = self._cluster.wan
        before = sum(counts.cut for counts in wan.statistics().values())
        wan.isolate(self._rng.choice(self._cluster.regions))

        def end() -> bool:
            cut = sum(counts.cut for counts in wan.statistics().values()) - before
            wan.heal()
            return cut > 0

        return end
