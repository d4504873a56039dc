"""What is done to a run, one after the other, and how long until all is well again.

worker    a worker is killed (SIGKILL); well when no learner of any region believes in its life. A new one comes later
restart   a worker is killed and started at once under its name, while its old lease still runs; well when every
          learner shows the new life, in which nothing of the old one counts
leader    the node that leads a region's directory is killed, and started again as a supervisor would; well when the
          region's directory answers and every learner is fresh. What survives a region is led by another meanwhile
cut       a region is cut off from all others for some seconds; well when, after that, every learner is fresh

After each of them every learner is compared with a scan of the store (`comparing`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

import k2store
from bench.processes import BenchError
from k2store.testing.cluster import LocalCluster

PATIENCE_S: Final = 30.0
LOOK_S: Final = 0.1
PAUSE_S: Final = 1.0
"""Between two faults."""
SUPERVISOR_S: Final = 1.0
"""After which a node that was killed is started again."""
CUT_S: Final = 4.0
FRESH_S: Final = 1.0
"""A learner that lags behind by less is well."""
PROBE: Final = b"x/demo"
"""A key of the keyspace that survives a region."""


WORKER: Final = "worker"
RESTART: Final = "restart"
LEADER: Final = "leader"
CUT: Final = "cut"
ALL: Final = (WORKER, RESTART, LEADER, CUT)
"""Every kind, in the order in which they are inflicted."""


class Compared(NamedTuple):
    """A learner beside the store: rows and prompts that were looked at, and every difference."""

    rows: int
    prompts: int
    differences: list[str]


class Stage(Protocol):
    """A run, as far as faults look at it and act on it; see `bench.demo.simulated.conductor` for the words."""

    cluster: LocalCluster
    db: k2store.Database

    @property
    def regions(self) -> Sequence[str]: ...

    @property
    def workers(self) -> Sequence[str]: ...

    def kill(self, worker: str) -> None: ...

    async def start(self, worker: str) -> None: ...

    def views_of(self, worker: str) -> list[tuple[int, bool]]: ...

    def incarnation(self, worker: str) -> int: ...

    def staleness_s(self) -> list[float]: ...

    def expect_end(self, name: str) -> None: ...

    def expect_life(self, name: str) -> None: ...

    def amiss(self, what: str) -> None: ...

    def say(self, text: str) -> None: ...

    async def compare(self, region: str, at: int) -> Compared: ...

    async def on_wan(self, verb: Callable[[], None]) -> None: ...


class Fault(Struct, kw_only=True):
    """One fault: from when to when on the machine's monotonic clock (ns), and what was seen.

    recovery_s   until all was well
    rows, prompts, differences  of the comparison afterwards, over all learners
    """

    kind: str
    what: str
    began_ns: int
    ended_ns: int = 0
    recovery_s: float = 0.0
    evidence: str = ""
    rows: int = 0
    prompts: int = 0
    differences: list[str] = []


def troubled(at_ns: int, faults: Sequence[Fault]) -> bool:
    """Whether a fault was going on."""
    return any(one.began_ns <= at_ns <= (one.ended_ns or at_ns) for one in faults)


class Faults:
    """Some kinds of them, on one run."""

    def __init__(self, stage: Stage, kinds: Sequence[str]) -> None:
        self._stage = stage
        self._kinds = kinds
        self.done: list[Fault] = []

    async def run(self) -> None:
        """One after the other."""
        inflict = {
            WORKER: self._worker,
            RESTART: self._restart,
            LEADER: self._leader,
            CUT: self._cut,
        }
        for kind in self._kinds:
            await asyncio.sleep(PAUSE_S)
            try:
                await inflict[kind]()
            except BenchError as error:
                # What did not recover is a finding, and the next fault another one.
                fault = self.done[-1]
                self._end(fault, f"NOT WELL: {error}")
                self._stage.amiss(f"{fault.what}: {error}")

    async def _worker(self) -> None:
        stage = self._stage
        name = stage.workers[0]
        fault = self._begin(WORKER, f"worker {name} killed")
        before = stage.incarnation(name)
        stage.expect_end(name)
        stage.kill(name)
        await self._until(
            f"{name} is fenced everywhere",
            lambda: all(
                incarnation > before or not live for incarnation, live in stage.views_of(name)
            ),
        )
        self._end(fault, f"incarnation {before} fenced, no learner believes in its blocks")
        await self._compare(fault)
        await stage.start(name)
        stage.expect_life(name)

    async def _restart(self) -> None:
        stage = self._stage
        name = stage.workers[-1]
        fault = self._begin(RESTART, f"worker {name} killed and started in place")
        before = stage.incarnation(name)
        stage.expect_end(name)
        stage.kill(name)
        await stage.start(name)
        stage.expect_life(name)
        await self._until(
            f"{name} lives anew everywhere",
            lambda: all(
                incarnation > before and live for incarnation, live in stage.views_of(name)
            ),
        )
        after = stage.incarnation(name)
        self._end(fault, f"incarnation {before} became {after}; one row voided all it had")
        await self._compare(fault)

    async def _leader(self) -> None:
        stage = self._stage
        region = stage.regions[min(1, len(stage.regions) - 1)]
        node = stage.cluster.nodes_in(region)[0]
        fault = self._begin(LEADER, f"node {node.name} killed, leader of the directory of {region}")
        stage.expect_end(node.name)
        await asyncio.to_thread(node.kill)
        taken_over = (
            asyncio.create_task(self._taken_over(fault)) if len(stage.regions) > 2 else None
        )
        await asyncio.sleep(SUPERVISOR_S)
        await asyncio.to_thread(node.start)
        stage.expect_life(node.name)
        key = f"d/{region}/".encode()

        async def answers() -> bool:
            async with stage.db.snapshot(strong=True, timeout=2.0) as view:
                await view.get(key)
            return True

        await self._until(f"the directory of {region} answers", answers)
        back_s = (time.monotonic_ns() - fault.began_ns) / 1e9
        evidence = f"directory of {region} back with the node after {back_s:.1f} s"
        if taken_over is not None:
            evidence += f"; what survives a region was led elsewhere after {await taken_over:.1f} s"
        await self._fresh()
        self._end(fault, evidence)
        await self._compare(fault)

    async def _taken_over(self, fault: Fault) -> float:
        """When a write to what survives a region succeeded, seconds after the fault."""

        async def writes() -> bool:
            await self._stage.db.put(PROBE, b"%d" % fault.began_ns, timeout=2.0)
            return True

        await self._until("another region leads", writes)
        return (time.monotonic_ns() - fault.began_ns) / 1e9

    async def _cut(self) -> None:
        stage = self._stage
        region = stage.regions[-1]
        if len(stage.regions) < 2:
            return
        fault = self._begin(CUT, f"region {region} cut off for {CUT_S:g} s")
        wan = stage.cluster.wan
        await stage.on_wan(lambda: wan.isolate(region))
        stalest_s = 0.0
        healing_at_s = time.monotonic() + CUT_S
        while time.monotonic() < healing_at_s:
            await asyncio.sleep(LOOK_S)
            stalest_s = max(stalest_s, *stage.staleness_s())
        await stage.on_wan(wan.heal)
        healed_ns = time.monotonic_ns()
        await self._fresh()
        self._end(fault, f"learners said to lag by up to {stalest_s:.1f} s meanwhile", healed_ns)
        await self._compare(fault)

    # ------------------------------------------------------------------------------ inside

    def _begin(self, kind: str, what: str) -> Fault:
        fault = Fault(kind=kind, what=what, began_ns=time.monotonic_ns())
        self.done.append(fault)
        self._stage.say(what)
        return fault

    def _end(self, fault: Fault, evidence: str, since_ns: int = 0) -> None:
        fault.ended_ns = time.monotonic_ns()
        fault.recovery_s = (fault.ended_ns - (since_ns or fault.began_ns)) / 1e9
        fault.evidence = evidence
        self._stage.say(f"well again after {fault.recovery_s:.1f} s: {evidence}")

    async def _compare(self, fault: Fault) -> None:
        """Every learner beside the store."""
        for region in self._stage.regions:
            compared = await self._stage.compare(region, 0)
            fault.rows += compared.rows
            fault.prompts += compared.prompts
            fault.differences += compared.differences

    async def _fresh(self) -> None:
        """Until every learner is well."""
        await self._until(
            "every learner is fresh", lambda: max(self._stage.staleness_s()) < FRESH_S
        )

    @staticmethod
    async def _until(what: str, holds: Callable[[], bool | Awaitable[bool]]) -> None:
        """Return when it holds; what the store cannot say yet does not hold yet."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                held = holds()
                if held if isinstance(held, bool) else await held:
                    return
            except (k2store.K2Error, TimeoutError):
                pass
            if time.monotonic() > end_s:
                raise BenchError(f"after {PATIENCE_S:g} s it still did not hold that {what}")
            await asyncio.sleep(LOOK_S)
