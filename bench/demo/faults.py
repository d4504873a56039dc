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
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

import k2store
from bench.processes import BenchError

if TYPE_CHECKING:
    from bench.demo.simulated.conductor import Conductor

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


class Faults:
    """All of them, on one run."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self.done: list[Fault] = []

    async def run(self) -> None:
        """One after the other."""
        for inflict in (self._worker, self._restart, self._leader, self._cut):
            await asyncio.sleep(PAUSE_S)
            try:
                await inflict()
            except BenchError as error:
                # What did not recover is a finding, and the next fault another one.
                fault = self.done[-1]
                self._end(fault, f"NOT WELL: {error}")
                self._conductor.raw.incidents.append(f"{fault.what}: {error}")

    async def _worker(self) -> None:
        conductor = self._conductor
        name = conductor.plan.workers[0]
        fault = self._begin("worker", f"worker {name} killed")
        before = conductor.incarnation(name)
        conductor.expect_end(name)
        conductor.company.workers[name].kill()
        await self._until(
            f"{name} is fenced everywhere",
            lambda: all(
                incarnation > before or not live for incarnation, live in conductor.views_of(name)
            ),
        )
        self._end(fault, f"incarnation {before} fenced, no learner believes in its blocks")
        await self._compare(fault)
        await conductor.company.workers[name].start()
        conductor.expect_life(name)

    async def _restart(self) -> None:
        conductor = self._conductor
        name = conductor.plan.workers[-1]
        fault = self._begin("restart", f"worker {name} killed and started in place")
        before = conductor.incarnation(name)
        conductor.expect_end(name)
        conductor.company.workers[name].kill()
        await conductor.company.workers[name].start()
        conductor.expect_life(name)
        await self._until(
            f"{name} lives anew everywhere",
            lambda: all(
                incarnation > before and live for incarnation, live in conductor.views_of(name)
            ),
        )
        after = conductor.incarnation(name)
        self._end(fault, f"incarnation {before} became {after}; one row voided all it had")
        await self._compare(fault)

    async def _leader(self) -> None:
        conductor = self._conductor
        plan = conductor.plan
        region = plan.regions[min(1, len(plan.regions) - 1)]
        node = conductor.cluster.nodes_in(region)[0]
        fault = self._begin(
            "leader", f"node {node.name} killed, leader of the directory of {region}"
        )
        conductor.expect_end(node.name)
        await asyncio.to_thread(node.kill)
        taken_over = asyncio.create_task(self._taken_over(fault)) if len(plan.regions) > 2 else None
        await asyncio.sleep(SUPERVISOR_S)
        await asyncio.to_thread(node.start)
        conductor.expect_life(node.name)
        key = f"d/{region}/".encode()

        async def answers() -> bool:
            async with conductor.db.snapshot(strong=True, timeout=2.0) as view:
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
            await self._conductor.db.put(PROBE, b"%d" % fault.began_ns, timeout=2.0)
            return True

        await self._until("another region leads", writes)
        return (time.monotonic_ns() - fault.began_ns) / 1e9

    async def _cut(self) -> None:
        conductor = self._conductor
        region = conductor.plan.regions[-1]
        if len(conductor.plan.regions) < 2:
            return
        fault = self._begin("cut", f"region {region} cut off for {CUT_S:g} s")
        wan = conductor.cluster.wan
        await conductor.on_wan(lambda: wan.isolate(region))
        stalest_s = 0.0
        healing_at_s = time.monotonic() + CUT_S
        while time.monotonic() < healing_at_s:
            await asyncio.sleep(LOOK_S)
            stalest_s = max(stalest_s, *conductor.staleness_s())
        await conductor.on_wan(wan.heal)
        healed_ns = time.monotonic_ns()
        await self._fresh()
        self._end(fault, f"learners said to lag by up to {stalest_s:.1f} s meanwhile", healed_ns)
        await self._compare(fault)

    # ------------------------------------------------------------------------------ inside

    def _begin(self, kind: str, what: str) -> Fault:
        fault = Fault(kind=kind, what=what, began_ns=time.monotonic_ns())
        self.done.append(fault)
        self._conductor.say(what)
        return fault

    def _end(self, fault: Fault, evidence: str, since_ns: int = 0) -> None:
        fault.ended_ns = time.monotonic_ns()
        fault.recovery_s = (fault.ended_ns - (since_ns or fault.began_ns)) / 1e9
        fault.evidence = evidence
        self._conductor.say(f"well again after {fault.recovery_s:.1f} s: {evidence}")

    async def _compare(self, fault: Fault) -> None:
        """Every learner beside the store."""
        for region in self._conductor.company.routers:
            compared = await self._conductor.compare(region, 0)
            fault.rows += compared.rows
            fault.prompts += compared.prompts
            fault.differences += compared.differences

    async def _fresh(self) -> None:
        """Until every learner is well."""
        await self._until(
            "every learner is fresh", lambda: max(self._conductor.staleness_s()) < FRESH_S
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
