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

from bench.demo.crossings import crossings
from bench.demo.ending import between, final
from bench.demo.faults import ALL, Compared, Fault, Faults
from bench.demo.judging import last_stamp
from bench.demo.live import share
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
from bench.demo.simulated.scene import Company, Member
from bench.demo.simulated.wire import Failed, Gone
from bench.processes import BenchError
from k2store.testing.cluster import LocalCluster
from k2store.testing.wan.link import LinkCounts
from kv_pool.edge.journal import Note, read
from kv_pool.edge.pool import Pool
from kv_pool.namespace import Namespace

TICK_S: Final = 0.25
BEGIN_S: Final = 0.5
"""From the order to the first prompt."""
PROMPTS: Final = 300
"""Recent prompts of each router whose match is compared."""
CALM_S: Final = 60.0
"""Who has not finished so long after the last prompt came never will."""

Links = dict[tuple[str, str], LinkCounts]


class Raw(Struct, kw_only=True):
    """What a run leaves: times are of the machine's monotonic clock, ns.

    crossings    round trips between regions that a publish at home takes, counted before prompts come
    wan          what went over each link between the beginning of the replay and its end
    compared     of the comparison at the end: rows, prompts, differences
    incidents    what happened that nobody had planned
    shown        region of the learner → region of the feed → (moment, stamp shown from then on)
    staleness    (moment, region of the learner, by how much it said to lag, s)
    """

    began_ns: int
    ended_ns: int = 0
    start_s: float = 0.0
    crossings: int = 0
    wan_kind: str = ""
    outcomes: list[Outcome] = []
    acquires_ns: list[int] = []
    far_acquires_ns: list[int] = []
    shown: dict[str, dict[str, list[tuple[int, int]]]] = {}
    staleness: list[tuple[int, str, float]] = []
    faults: list[Fault] = []
    compared_rows: int = 0
    compared_prompts: int = 0
    differences: list[str] = []
    stocks: dict[str, Stocked] = {}
    incidents: list[str] = []
    fenced: list[str] = []
    wan: Links = {}
    notes: list[Note] = []


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
        self.raw = Raw(began_ns=time.monotonic_ns(), wan_kind=str(cluster.wan_kind))
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
        self._wan_lock = asyncio.Lock()
        self._down: set[str] = set()

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

    # -------------------------------------------------------------------------- for faults

    def say(self, text: str) -> None:
        """Something worth a line."""
        at_s = (time.monotonic_ns() - (self.replay_began_ns or self.raw.began_ns)) / 1e9
        self._say(f"{at_s:6.1f} s  {text}")

    def views_of(self, worker: str) -> list[tuple[int, bool]]:
        """What each learner says of a worker's life."""
        return [seen.members.get(worker, (0, False)) for seen in self.seen.values()]

    def incarnation(self, worker: str) -> int:
        """The newest life of a worker that any learner knows."""
        return max([incarnation for incarnation, _ in self.views_of(worker)], default=0)

    def staleness_s(self) -> list[float]:
        """By how much each learner says to lag behind."""
        return [seen.stale_s for seen in self.seen.values()]

    @property
    def regions(self) -> Sequence[str]:
        """All of them."""
        return self.plan.regions

    @property
    def workers(self) -> Sequence[str]:
        """Names of all workers."""
        return self.plan.workers

    def kill(self, worker: str) -> None:
        """End a worker as a crash would."""
        self.company.workers[worker].kill()

    async def start(self, worker: str) -> None:
        """Start a worker that was killed."""
        await self.company.workers[worker].start()

    def amiss(self, what: str) -> None:
        """Something that nobody had planned."""
        self.raw.incidents.append(what)

    def expect_end(self, name: str) -> None:
        """A worker or a node is about to be killed by us."""
        self._down.add(name)

    def expect_life(self, name: str) -> None:
        """It has been started again."""
        self._down.discard(name)

    async def compare(self, region: str, at: int) -> Compared:
        """A region's learner beside the store, when it shows everything up to a stamp.

        One that cannot be compared is a difference as well.
        """
        try:
            compared = await self.company.routers[region].ask(Compare(at, PROMPTS))
        except (Gone, Failed) as error:
            return Compared(0, 0, [f"{region}: {error}"])
        assert isinstance(compared, Shown), "who is told to compare compares"
        found = [f"{region}: {one}" for one in compared.differences]
        return Compared(compared.rows, compared.prompts, found)

    async def on_wan(self, verb: Callable[[], None]) -> None:
        """Do something to the network, one thing at a time."""
        async with self._wan_lock:
            await asyncio.to_thread(verb)

    # ----------------------------------------------------------------------------- the run

    async def run(self) -> Raw:
        """All of it. `BenchError` when something that should come does not."""
        raw, plan = self.raw, self.plan
        async with self.cluster.connect(plan.regions[0], name="conductor") as self.db:
            async with Pool(self.db, plan.regions[0]) as pool:
                namespace = await pool.declare(self.namespace)
            with Company(plan, self.cluster, self.folder, namespace) as self.company:
                try:
                    await self.company.start()
                    self.stage = "round trips of a publish are counted"
                    probes = {
                        name: functools.partial(worker.ask, Probe())
                        for name, worker in self.company.workers.items()
                    }
                    raw.crossings = await crossings(probes, self.cluster)
                    raw.start_s = (time.monotonic_ns() - raw.began_ns) / 1e9
                    await self._replay()
                    await self._close()
                finally:
                    for member in self.company.members:
                        await member.hang_up()
        return raw

    async def _replay(self) -> None:
        raw, plan = self.raw, self.plan
        self.stage = "prompts come"
        before = await self._links()
        await self._look()
        self.replay_began_ns = time.monotonic_ns() + int(BEGIN_S * 1e9)
        for region, prompts in arrivals(plan.requests, plan.regions).items():
            await self.company.routers[region].ask(Begin(self.replay_began_ns, prompts))
        faults = Faults(self, ALL)
        raw.faults = faults.done
        inflicting = asyncio.create_task(self._inflict(faults))
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
        raw.ended_ns = time.monotonic_ns()
        after = await self._links()
        raw.wan = {link: between(before[link], after[link]) for link in after}

    async def _inflict(self, faults: Faults) -> None:
        if self.plan.faults:
            # Not before there is something to lose.
            await asyncio.sleep(BEGIN_S + min(4.0, self.plan.replay_s / 5))
            await faults.run()

    async def _close(self) -> None:
        """Let everything come to rest, then look at all of it."""
        raw = self.raw
        self.stage = "learners are compared with the store"
        await asyncio.gather(*[member.ask(Quiesce()) for member in self._there()])
        at = last_stamp(self._notes())
        for region in self.company.routers:
            compared = await self.compare(region, at)
            raw.compared_rows += compared.rows
            raw.compared_prompts += compared.prompts
            raw.differences += compared.differences
        for name, worker in self.company.workers.items():
            if name not in self._down:
                stocked = await worker.ask(Stock())
                assert isinstance(stocked, Stocked), "who is asked tells its stock"
                raw.stocks[name] = stocked
                if stocked.failure:
                    raw.incidents.append(f"{name}: {stocked.failure}")
        raw.notes = [*self._notes(), *await final(self.db)]

    # ------------------------------------------------------------------------------ inside

    def _there(self) -> list[Member]:
        """Processes that run."""
        return [member for member in self.company.members if member.name not in self._down]

    def _notes(self) -> list[Note]:
        return [note for path in self.company.journals() for note in read(path)]

    async def _look(self) -> None:
        """Ask every router what has happened, and see whether everybody is still there."""
        raw = self.raw
        routers = self.company.routers
        answers = await asyncio.gather(
            *[router.ask(Look()) for router in routers.values()], return_exceptions=True
        )
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
            raw.staleness.append((now_ns, region, answer.stale_s))
            raw.fenced += answer.fenced
            shown = raw.shown.setdefault(region, {})
            for feed, noted in answer.shown.items():
                shown.setdefault(feed, []).extend(noted)
        for name, worker in self.company.workers.items():
            if name in self._down:
                continue
            how = worker.ended()
            if how:
                self._surprised(name, f"worker {name} {how}, and not by us")
        for node in self.cluster.nodes.values():
            if node.name not in self._down and not node.running:
                self._surprised(node.name, f"node {node.name} ended, and not by us")

    def _surprised(self, name: str, incident: str) -> None:
        self._down.add(name)
        self.raw.incidents.append(incident)
        self.say(incident)

    async def _links(self) -> Links:
        async with self._wan_lock:
            return await asyncio.to_thread(self.cluster.wan.statistics)
