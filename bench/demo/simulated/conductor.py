"""A run from beginning to end: it starts everybody, watches, inflicts faults, and gathers what became of it.

The conductor serves no prompt and claims no block. Its own asking of the store is the scan at the end, which the
checker compares with everything that was acknowledged.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench.demo.course import Compared, Course
from bench.demo.crossings import crossings
from bench.demo.ending import between, final
from bench.demo.faults import Faults
from bench.demo.judging import last_stamp
from bench.demo.live import share
from bench.demo.run import Run
from bench.demo.simulated.arrivals import arrivals
from bench.demo.simulated.messages import (
    Begin,
    Compare,
    Look,
    Outcome,
    Probe,
    Quiesce,
    Seen,
    Shown,
    Stock,
    Stocked,
)
from bench.demo.simulated.plan import Plan
from bench.demo.simulated.scene import cast
from bench.demo.simulated.wire import Failed, Gone
from bench.processes import BenchError
from k2store.testing.cluster import LocalCluster
from kv_pool.edge.pool import Pool
from kv_pool.namespace import Namespace

TICK_S: Final = 0.25
BEGIN_S: Final = 0.5
"""From the order to the first prompt."""
PROMPTS: Final = 300
"""Recent prompts of each router whose match is compared."""
CALM_S: Final = 60.0
"""Who has not finished so long after the last prompt came never will."""


class Raw(Struct, kw_only=True):
    """What a run leaves.

    shown  region of the learner → region of the feed → (moment, stamp shown from then on)
    """

    course: Course
    outcomes: list[Outcome] = []
    acquires_ns: list[int] = []
    far_acquires_ns: list[int] = []
    shown: dict[str, dict[str, list[tuple[int, int]]]] = {}
    stocks: dict[str, Stocked] = {}
    fenced: list[str] = []


class Tally(Struct):
    """What became of the prompts of a region so far."""

    requests: int = 0
    references: int = 0
    hits: int = 0
    fetched: int = 0
    phantoms: int = 0
    rerouted: int = 0

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Some more."""
        for one in outcomes:
            self.requests += 1
            self.references += one.local + one.fetched + one.computed
            self.hits += one.local + one.fetched
            self.fetched += one.fetched
            self.phantoms += one.denied
            self.rerouted += one.rerouted


class Conductor:
    """See the module. What it has gathered so far may be looked at while it runs."""

    def __init__(
        self, plan: Plan, cluster: LocalCluster, folder: Path, say: Callable[[str], None]
    ) -> None:
        self.plan = plan
        self.cluster = cluster
        self.folder = folder
        self.raw = Raw(course=Course(began_ns=time.monotonic_ns(), wan_kind=str(cluster.wan_kind)))
        self.seen: dict[str, Seen] = {}
        self.tallies = {region: Tally() for region in plan.regions}
        self.stage = "routers and workers start"
        self.replay_began_ns = 0
        self.namespace = Namespace(
            tenant="",
            model="trace",
            revision=f"seed {plan.seed}",
            dtype="none",
            layout="none",
            block_tokens=plan.cost.block_tokens,
        )
        self._say = say

    # ------------------------------------------------------------------------- for who looks

    def line(self) -> str:
        """The state in a line; empty where there is nothing to tell yet."""
        if not self.replay_began_ns:
            return ""
        tallies = self.tallies.values()
        references = sum([one.references for one in tallies])
        stalest_s = max(self.staleness_s(), default=0.0)
        return (
            f"{self.progress()[0]} of {self.progress()[1]} prompts, "
            f"hits {share(sum([one.hits for one in tallies]), references)}, "
            f"learners lag by {stalest_s * 1000:.0f} ms at most"
        )

    def progress(self) -> tuple[int, int]:
        """Prompts that are through, and all of them."""
        done = sum([one.requests for one in self.tallies.values()])
        return done, len(self.plan.requests)

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        """What became of the prompts of each region so far."""
        columns = ("region", "prompts", "under way", "hits", "fetched", "phantoms", "rerouted")
        rows: list[Sequence[str]] = []
        for region, tally in self.tallies.items():
            seen = self.seen.get(region)
            members = {} if seen is None else seen.members
            alive = [live for name, (_, live) in members.items() if name.startswith(f"{region}/")]
            rows.append(
                (
                    region,
                    str(tally.requests),
                    "-" if seen is None else str(seen.waiting),
                    share(tally.hits, tally.references),
                    str(tally.fetched),
                    str(tally.phantoms),
                    str(tally.rerouted),
                    f"{sum(alive)}/{self.plan.workers_per_region}",
                    "-" if seen is None else f"{seen.stale_s * 1000:.0f} ms",
                )
            )
        return (*columns, "workers", "lags by"), rows

    def say(self, text: str) -> None:
        """Something worth a line."""
        at_s = (time.monotonic_ns() - (self.replay_began_ns or self.raw.course.began_ns)) / 1e9
        self._say(f"{at_s:6.1f} s  {text}")

    # ---------------------------------------------------------------- what learners say: `Watch`

    def views_of(self, worker: str) -> list[tuple[int, bool]]:
        """What each learner says of a worker's life."""
        return [seen.members.get(worker, (0, False)) for seen in self.seen.values()]

    def staleness_s(self) -> list[float]:
        """By how much each learner says to lag behind."""
        return [seen.stale_s for seen in self.seen.values()]

    async def compare(self, region: str, at: int) -> Compared:
        """A region's learner beside the store, when it shows everything up to a stamp."""
        router = self._cast.company.routers[region]
        try:
            compared = await self._cast.ask(router, Compare(at, PROMPTS))
        except (Gone, Failed) as error:
            return Compared(0, 0, [f"{region}: {error}"])
        assert isinstance(compared, Shown), "who is told to compare compares"
        found = [f"{region}: {one}" for one in compared.differences]
        return Compared(compared.rows, compared.prompts, found)

    # ----------------------------------------------------------------------------- the run

    async def run(self) -> Raw:
        """All of it. `BenchError` when something that should come does not."""
        raw, course, plan = self.raw, self.raw.course, self.plan
        async with self.cluster.connect(plan.regions[0], name="conductor") as db:
            async with Pool(db, plan.regions[0]) as pool:
                namespace = await pool.declare(self.namespace)
            with cast(plan, self.cluster, self.folder, namespace) as self._cast:
                company = self._cast.company
                self._run = Run(self.cluster, company, db, course.incidents, self.say)
                try:
                    await company.start()
                    self.stage = "round trips of a publish are counted"
                    probes = {
                        name: functools.partial(self._cast.ask, worker, Probe())
                        for name, worker in company.workers.items()
                    }
                    course.crossings = await crossings(probes, self.cluster)
                    course.started_ns = time.monotonic_ns()
                    await self._replay()
                    await self._close()
                finally:
                    await self._cast.hang_up()
        return raw

    async def _replay(self) -> None:
        course, plan = self.raw.course, self.plan
        self.stage = "prompts come"
        before = await self._run.links()
        await self._look()
        self.replay_began_ns = time.monotonic_ns() + int(BEGIN_S * 1e9)
        for region, prompts in arrivals(plan.requests, plan.regions).items():
            router = self._cast.company.routers[region]
            await self._cast.ask(router, Begin(self.replay_began_ns, prompts))
        inflicting = asyncio.create_task(self._inflict())
        try:
            last_s = time.monotonic() + plan.replay_s + CALM_S
            while not (inflicting.done() and all(seen.done for seen in self.seen.values())):
                await asyncio.sleep(TICK_S)
                await self._look()
                if inflicting.done() and inflicting.exception() is not None:
                    break
                if time.monotonic() > last_s and inflicting.done():
                    raise BenchError("prompts that came are still not through")
        finally:
            inflicting.cancel()
            await asyncio.gather(inflicting, return_exceptions=True)
        if not inflicting.cancelled():
            inflicting.result()
        course.ended_ns = time.monotonic_ns()
        after = await self._run.links()
        course.wan = {link: between(before[link], after[link]) for link in after}

    async def _inflict(self) -> None:
        if self.plan.faults:
            # Not before there is something to lose.
            await asyncio.sleep(BEGIN_S + min(4.0, self.plan.replay_s / 5))
            await Faults(self._run, self, self.raw.course.faults).inflict()

    async def _close(self) -> None:
        """Let everything come to rest, then look at all of it."""
        raw, course, run = self.raw, self.raw.course, self._run
        self.stage = "learners are compared with the store"
        there = run.there()
        await asyncio.gather(*[self._cast.ask(member, Quiesce()) for member in there])
        course.compared = await run.compare_all(self, last_stamp(run.notes()))
        for name, worker in self._cast.company.workers.items():
            if worker in there:
                stocked = await self._cast.ask(worker, Stock())
                assert isinstance(stocked, Stocked), "who is asked tells its stock"
                raw.stocks[name] = stocked
                if stocked.failure:
                    run.amiss(f"{name}: {stocked.failure}")
        course.notes = [*run.notes(), *await final(run.db)]

    # ------------------------------------------------------------------------------ inside

    async def _look(self) -> None:
        """Ask every router what has happened, and see whether everybody is still there."""
        raw = self.raw
        routers = self._cast.company.routers
        asking = [self._cast.ask(router, Look()) for router in routers.values()]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        now_ns = time.monotonic_ns()
        for region, answer in zip(routers, answers, strict=True):
            if isinstance(answer, Gone | Failed):
                how = routers[region].ended() or str(answer)
                raise BenchError(f"the router of {region} is gone: {how}")
            if isinstance(answer, BaseException):
                raise answer
            assert isinstance(answer, Seen), "who is looked at tells what was seen"
            if answer.failure:
                raise BenchError(f"the router of {region}: {answer.failure}")
            self.seen[region] = answer
            raw.outcomes += answer.outcomes
            self.tallies[region].add(answer.outcomes)
            raw.acquires_ns += answer.acquires_ns
            raw.far_acquires_ns += answer.far_acquires_ns
            raw.course.staleness.append((now_ns, region, answer.stale_s))
            raw.fenced += answer.fenced
            shown = raw.shown.setdefault(region, {})
            for feed, noted in answer.shown.items():
                shown.setdefault(feed, []).extend(noted)
        self._run.look()
