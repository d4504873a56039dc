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
from typing import Final

import k2store
from bench.demo.course import Fault
from bench.demo.leading import leader_of, look
from bench.demo.run import Run, Watch
from bench.processes import BenchError

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


class Faults:
    """Some kinds of them, on one run; `done`: takes each of them as it begins."""

    def __init__(
        self, run: Run, watch: Watch, done: list[Fault], kinds: Sequence[str] = ALL
    ) -> None:
        self._run = run
        self._watch = watch
        self._kinds = kinds
        self.done = done

    async def inflict(self) -> None:
        """One after the other."""
        inflicting = {
            WORKER: self._worker,
            RESTART: self._restart,
            LEADER: self._leader,
            CUT: self._cut,
        }
        for kind in self._kinds:
            await asyncio.sleep(PAUSE_S)
            try:
                await inflicting[kind]()
            except BenchError as error:
                # What did not recover is a finding, and the next fault another one.
                fault = self.done[-1]
                self._end(fault, f"NOT WELL: {error}")
                self._run.amiss(f"{fault.what}: {error}")

    async def _worker(self) -> None:
        run = self._run
        name = run.workers[0]
        fault = self._begin(WORKER, f"worker {name} killed")
        before = self._incarnation(name)
        run.kill(name)
        await self._until(
            f"{name} is fenced everywhere",
            lambda: all(
                incarnation > before or not live for incarnation, live in self._watch.views_of(name)
            ),
        )
        self._end(fault, f"incarnation {before} fenced, no learner believes in its blocks")
        await self._compare(fault)
        await run.start(name)

    async def _restart(self) -> None:
        run = self._run
        name = run.workers[-1]
        fault = self._begin(RESTART, f"worker {name} killed and started in place")
        before = self._incarnation(name)
        run.kill(name)
        await run.start(name)
        await self._until(
            f"{name} lives anew everywhere",
            lambda: all(
                incarnation > before and live for incarnation, live in self._watch.views_of(name)
            ),
        )
        after = self._incarnation(name)
        self._end(fault, f"incarnation {before} became {after}; one row voided all it had")
        await self._compare(fault)

    async def _leader(self) -> None:
        run = self._run
        region = run.regions[min(1, len(run.regions) - 1)]
        key = f"d/{region}/".encode()
        fault = self._begin(LEADER, f"the node that leads the directory of {region} killed")
        node = run.cluster.nodes[leader_of(await look(run.cluster), key)[0]]
        fault.began_ns = time.monotonic_ns()
        await run.kill_node(node)
        taken_over = asyncio.create_task(self._taken_over(fault)) if len(run.regions) > 2 else None
        try:
            await asyncio.sleep(SUPERVISOR_S)
            await run.start_node(node)

            async def answers() -> bool:
                async with run.db.snapshot(strong=True, timeout=2.0) as view:
                    await view.get(key)
                return True

            await self._until(f"the directory of {region} answers", answers)
            back_s = (time.monotonic_ns() - fault.began_ns) / 1e9
            evidence = f"directory of {region} back with {node.name} after {back_s:.1f} s"
            if taken_over is not None:
                elsewhere_s = await taken_over
                evidence += f"; what survives a region was led elsewhere after {elsewhere_s:.1f} s"
        finally:
            if taken_over is not None:
                taken_over.cancel()
                await asyncio.gather(taken_over, return_exceptions=True)
        await self._fresh()
        self._end(fault, evidence)
        await self._compare(fault)

    async def _taken_over(self, fault: Fault) -> float:
        """When a write to what survives a region succeeded, seconds after the fault."""

        async def writes() -> bool:
            await self._run.db.put(PROBE, b"%d" % fault.began_ns, timeout=2.0)
            return True

        await self._until("another region leads", writes)
        return (time.monotonic_ns() - fault.began_ns) / 1e9

    async def _cut(self) -> None:
        run = self._run
        region = run.regions[-1]
        if len(run.regions) < 2:
            return
        fault = self._begin(CUT, f"region {region} cut off for {CUT_S:g} s")
        wan = run.cluster.wan
        await run.on_wan(lambda: wan.isolate(region))
        stalest_s = 0.0
        healing_at_s = time.monotonic() + CUT_S
        while time.monotonic() < healing_at_s:
            await asyncio.sleep(LOOK_S)
            stalest_s = max(stalest_s, *self._watch.staleness_s())
        await run.on_wan(wan.heal)
        healed_ns = time.monotonic_ns()
        await self._fresh()
        self._end(fault, f"learners said to lag by up to {stalest_s:.1f} s meanwhile", healed_ns)
        await self._compare(fault)

    # ------------------------------------------------------------------------------ inside

    def _begin(self, kind: str, what: str) -> Fault:
        fault = Fault(kind=kind, what=what, began_ns=time.monotonic_ns())
        self.done.append(fault)
        self._run.say(what)
        return fault

    def _end(self, fault: Fault, evidence: str, since_ns: int = 0) -> None:
        fault.ended_ns = time.monotonic_ns()
        fault.recovery_s = (fault.ended_ns - (since_ns or fault.began_ns)) / 1e9
        fault.evidence = evidence
        self._run.say(f"well again after {fault.recovery_s:.1f} s: {evidence}")

    async def _compare(self, fault: Fault) -> None:
        fault.compared = await self._run.compare_all(self._watch)

    def _incarnation(self, worker: str) -> int:
        """The newest life of a worker that any learner knows."""
        views = self._watch.views_of(worker)
        return max([incarnation for incarnation, _ in views], default=0)

    async def _fresh(self) -> None:
        """Until every learner is well."""
        await self._until(
            "every learner is fresh", lambda: max(self._watch.staleness_s()) < FRESH_S
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
