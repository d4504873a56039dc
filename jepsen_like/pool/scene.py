"""One seed of the pool: regions of nodes, workers and routers, faults; then rest, and the judgement."""

from __future__ import annotations

import asyncio
from typing import IO, Final

import k2store
from jepsen_like.history import Recorder
from jepsen_like.pool.load import Load
from jepsen_like.pool.plan import PoolPlan, draw
from jepsen_like.pool.router import RouterLoad
from jepsen_like.pool.worker import WorkerLoad
from jepsen_like.sim.cluster.scene import ClusterScene
from jepsen_like.sim.scene import staged
from jepsen_like.sim.stage import Result
from jepsen_like.workloads.judging import judged
from k2store.testing.simulation import Environment, Main, Simulation
from kv_pool.edge.pool import Pool
from kv_pool.keys import Worker

ACQUIRES_MIN: Final = 5
REST_S: Final = 5.0
"""Longer than any claim, announcement and task of the load: what is left then is swept."""
AGAIN_S: Final = 0.2
LOOKS: Final = 3
VACUOUS: Final = "vacuous"
"""How failures begin that say only that too little has happened."""


def run(seed: int, *, plan: PoolPlan | None = None, trace_sink: IO[str] | None = None) -> Result:
    """Run a seed, or the plan that is given instead of the one drawn from it."""
    return staged(plan or draw(seed), PoolScene, trace_sink)


class PoolScene(ClusterScene):
    """Nodes as in any cluster, with the pool's load in place of workloads."""

    def __init__(self, plan: PoolPlan, simulation: Simulation) -> None:
        self.pool_plan = plan
        self.pool_load = Load(Recorder(simulation.true_ns))
        super().__init__(plan, simulation)
        self.workloads = {}

    @property
    def _everybody(self) -> tuple[Worker, ...]:
        plan = self.pool_plan
        return tuple(Worker(plan.places[place], name) for place, name in plan.workers.items())

    # ------------------------------------------------------------------------------ programs

    def _client(self, name: str) -> Main:
        return self._router if name in self.pool_plan.routers else self._worker

    async def _worker(self, environment: Environment) -> None:
        plan = self.pool_plan
        place = environment.machine.host.name
        while not self.calm:
            try:
                async with (
                    await self._patiently(environment) as database,
                    Pool(database, plan.places[place], name=place) as pool,
                ):
                    worker = WorkerLoad(
                        self.pool_load,
                        pool,
                        plan.workers[place],
                        environment.random("load"),
                        ttl_s=plan.lease_s,
                        pause_s=plan.step_s,
                        others=self._everybody,
                    )
                    await worker.run(lambda: self.calm)
            except k2store.K2Error:
                await asyncio.sleep(AGAIN_S)

    async def _router(self, environment: Environment) -> None:
        plan = self.pool_plan
        place = environment.machine.host.name
        region = plan.places[place]
        looks = 0
        while looks < LOOKS:
            try:
                async with (
                    await self._patiently(environment) as database,
                    Pool(database, region, name=place) as pool,
                    pool.learner(regions=plan.regions) as tree,
                ):
                    self.pool_load.trees[region] = tree
                    router = RouterLoad(
                        self.pool_load,
                        pool,
                        tree,
                        environment.random("load"),
                        pause_s=plan.step_s,
                        workers=self._everybody,
                    )
                    await router.run(lambda: self.calm)
                    # Once nothing goes wrong any more.
                    while looks < LOOKS:
                        await router.compare()
                        looks += 1
                        await asyncio.sleep(AGAIN_S)
            except k2store.K2Error:
                await asyncio.sleep(AGAIN_S)

    async def _close(self, environment: Environment) -> None:
        """Let everything run out, end what is begun, sweep, and look at what is left."""
        await asyncio.sleep(REST_S)
        while True:
            try:
                left = await self._left(environment)
            except k2store.K2Error:
                await asyncio.sleep(AGAIN_S)
            else:
                self.pool_load.problems += left
                return

    async def _left(self, environment: Environment) -> list[str]:
        plan = self.pool_plan
        async with (
            await self._patiently(environment) as database,
            Pool(database, plan.regions[0], name="closing") as pool,
            pool.learner(regions=plan.regions) as tree,
        ):
            router = RouterLoad(
                self.pool_load,
                pool,
                tree,
                environment.random("load"),
                pause_s=plan.step_s,
                workers=self._everybody,
            )
            return await router.close()

    # ------------------------------------------------------------------------------ judgement

    def judge(self, result: Result) -> None:
        """The checker's findings, what readers and learners found, and what the cluster has left open."""
        load = self.pool_load
        result.failures += [f"not finished: {what}" for what in self._unfinished()]
        found = [*load.problems, *self.problems, *self.inside]
        if load.counts.get("acquire"):
            found += judged(load.recorder, "kv-directory")
        result.anomalies += found
        result.inside += self.inside
        result.failures += found

    def count(self, result: Result) -> None:
        """Figures, and whether enough has happened for the run to prove anything."""
        counts = self.pool_load.counts
        for applied in self.engine.applied if self.engine is not None else ():
            if applied.evidence is not None:
                kinds = result.fault_kinds
                kinds[applied.fault.name] = kinds.get(applied.fault.name, 0) + 1
        operations = self.pool_load.recorder.history().operations
        result.transactions = len(operations)
        result.commits = sum(operation.outcome == "ok" for operation in operations)
        result.unknown = counts.get("unknown", 0)
        result.probes = dict(counts)
        if result.failures:
            return
        if counts.get("acquire", 0) < ACQUIRES_MIN:
            result.failures.append(f"{VACUOUS}: only {counts.get('acquire', 0)} claims")
        if not counts.get("compare something"):
            result.failures.append(f"{VACUOUS}: no learner showed anything")
        if not result.fault_kinds:
            result.failures.append(f"{VACUOUS}: no fault took effect")
