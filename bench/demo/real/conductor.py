"""A run from beginning to end: it starts everybody, lets people ask, inflicts faults, and gathers what became of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench.demo.ending import between, final
from bench.demo.faults import Compared, Fault, Faults
from bench.demo.judging import last_stamp
from bench.demo.live import share
from bench.demo.real.figures import Counted, scrape
from bench.demo.real.lookout import lookout
from bench.demo.real.people import People, Turn
from bench.demo.real.plan import FAULTS, Plan
from bench.demo.real.reference import Sameness, compare_answers, sample
from bench.demo.real.scene import Company, Member
from bench.demo.real.talks import talks
from k2store.testing.cluster import LocalCluster
from k2store.testing.wan.link import LinkCounts
from kv_pool.edge.journal import Note, read

LOOK_S: Final = 1.0
SETTLE_S: Final = 0.5
"""Between two looks whether anything is still published or released."""
SETTLE_MAX_S: Final = 15.0
FAULT_AFTER_S: Final = 8.0
"""Not before there is something to lose."""

Links = dict[tuple[str, str], LinkCounts]


class Raw(Struct, kw_only=True):
    """What a run leaves: times are of the machine's monotonic clock, ns.

    started_ns   when everybody answered
    crossings    round trips between regions that a publish at home takes, counted before prompts come
    fetched      (moment, region, blocks that its workers have fetched so far)
    staleness    (moment, region, by how much its router's learner said to lag, s)
    left         prompts for which no time was left
    """

    began_ns: int
    started_ns: int = 0
    ended_ns: int = 0
    crossings: int = 0
    wan_kind: str = ""
    turns: list[Turn] = []
    staleness: list[tuple[int, str, float]] = []
    fetched: list[tuple[int, str, int]] = []
    faults: list[Fault] = []
    compared_rows: int = 0
    differences: list[str] = []
    incidents: list[str] = []
    wan: Links = {}
    notes: list[Note] = []
    left: int = 0
    sameness: Sameness = Sameness()


class Conductor:
    """See the module. What it has gathered so far may be looked at while it runs."""

    def __init__(
        self, plan: Plan, cluster: LocalCluster, folder: Path, say: Callable[[str], None]
    ) -> None:
        self.plan = plan
        self.cluster = cluster
        self.folder = folder
        self.raw = Raw(began_ns=time.monotonic_ns(), wan_kind=str(cluster.wan_kind))
        self.counted: dict[str, Counted] = {}
        self.stage = "routers and workers start (each loads torch)"
        self._say = say
        self._people: People | None = None
        self._wan_lock = asyncio.Lock()
        self._down: set[str] = set()

    # ------------------------------------------------------------------------- for who looks

    def line(self) -> str:
        """The state in a line; empty where there is nothing to tell yet."""
        if not self.raw.started_ns:
            return ""
        turns = self._answered()
        elsewhere = [one for one in turns if one.is_elsewhere]
        return (
            f"{len(self.raw.turns)} of {self.plan.prompts} prompts, "
            f"{share(sum([one.cached for one in turns]), sum([one.tokens for one in turns]))} of their "
            f"tokens found computed; {len(elsewhere)} second turns in another region"
        )

    def progress(self) -> tuple[int, int]:
        """Prompts that are through, and all of them."""
        return len(self.raw.turns), self.plan.prompts

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        """What became of the prompts of each region so far."""
        columns = ("region", "prompts", "now", "tokens", "found", "fetched")
        rows: list[Sequence[str]] = []
        for region in self.plan.regions:
            turns = [one for one in self._answered() if one.region == region]
            tokens = sum([one.tokens for one in turns])
            firsts = sorted([one.first_s for one in turns])
            stale = self._router(region).sum("k2_router_staleness_seconds")
            people = self._people
            rows.append(
                (
                    region,
                    str(len(turns)),
                    "-" if people is None else str(people.under_way[region]),
                    f"{tokens:,}",
                    share(sum([one.cached for one in turns]), tokens),
                    str(self.fetched(region)),
                    str(sum([one.is_elsewhere for one in turns])),
                    f"{firsts[len(firsts) // 2]:.1f} s" if firsts else "-",
                    f"{stale * 1000:.0f} ms",
                )
            )
        return (*columns, "moved in", "1st token", "lags by"), rows

    def fetched(self, region: str) -> int:
        """Blocks that the workers of a region have read from others."""
        return int(
            sum(
                [
                    counted.sum("k2_fleet_fetched_blocks_total")
                    for name, counted in self.counted.items()
                    if name in self.plan.workers and name.startswith(f"{region}/")
                ]
            )
        )

    # -------------------------------------------------------------------------- for faults

    def say(self, text: str) -> None:
        """Something worth a line."""
        at_s = (time.monotonic_ns() - (self.raw.started_ns or self.raw.began_ns)) / 1e9
        self._say(f"{at_s:6.1f} s  {text}")

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

    def views_of(self, worker: str) -> list[tuple[int, bool]]:
        """What each learner says of a worker's life."""
        return self.lookout.views_of(worker)

    def incarnation(self, worker: str) -> int:
        """The newest life of a worker that any learner knows."""
        return max([incarnation for incarnation, _ in self.views_of(worker)], default=0)

    def staleness_s(self) -> list[float]:
        """By how much each learner says to lag behind."""
        return self.lookout.staleness_s()

    def expect_end(self, name: str) -> None:
        """A worker or a node is about to be killed by us."""
        self._down.add(name)

    def expect_life(self, name: str) -> None:
        """It has been started again."""
        self._down.discard(name)

    def amiss(self, what: str) -> None:
        """Something that nobody had planned."""
        self.raw.incidents.append(what)

    async def compare(self, region: str, at: int) -> Compared:
        """A region's learner beside the store."""
        return await self.lookout.compare(region, at)

    async def on_wan(self, verb: Callable[[], None]) -> None:
        """Do something to the network, one thing at a time."""
        async with self._wan_lock:
            await asyncio.to_thread(verb)

    # ----------------------------------------------------------------------------- the run

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Raw]:
        """All of it, for ``async with``: in the block everything is through, and everybody still answers.

        `BenchError` when something that should come does not.
        """
        raw, plan = self.raw, self.plan
        with Company(plan, self.cluster, self.folder) as self.company:
            async with self.cluster.connect(plan.regions[0], name="conductor") as self.db:
                await self.company.start()
                async with lookout(self.cluster, plan.regions, self.folder) as self.lookout:
                    self.stage = "round trips of a publish are counted"
                    raw.crossings = await self.lookout.crossings()
                    raw.started_ns = time.monotonic_ns()
                    await self._people_ask()
                    await self._close()
            self.stage = "answers are compared with those of a worker that keeps nothing"
            self.say(self.stage)
            wanted = sample(self._answered(), raw.faults, plan.samples)
            raw.sameness = await compare_answers(wanted, self.folder)
            yield raw

    async def _people_ask(self) -> None:
        raw, plan = self.raw, self.plan
        self.stage = "people ask"
        before = await self._links()
        routers = {region: member.address for region, member in self.company.routers.items()}
        people = self._people = People(
            plan, talks(plan.prompts, plan.regions, plan.seed), routers, self._took
        )
        faults = Faults(self, FAULTS)
        raw.faults = faults.done
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look_now_and_then())
            inflicting = group.create_task(self._inflict(faults))
            await people.ask()
            await inflicting
            looking.cancel()
        raw.ended_ns = time.monotonic_ns()
        raw.left = people.left
        await self._look()
        after = await self._links()
        raw.wan = {link: between(before[link], after[link]) for link in after}

    async def _inflict(self, faults: Faults) -> None:
        if self.plan.faults:
            await asyncio.sleep(FAULT_AFTER_S)
            await faults.run()

    async def _close(self) -> None:
        """Let everything come to rest, then look at all of it."""
        raw = self.raw
        self.stage = "learners are compared with the store"
        await self._settled()
        at = last_stamp(self._notes())
        for region in self.plan.regions:
            compared = await self.compare(region, at)
            raw.compared_rows += compared.rows
            raw.differences += compared.differences
        raw.notes = [*self._notes(), *await final(self.db)]

    async def _settled(self) -> None:
        """Return when nobody asks the directory for anything any more but for leases, which are not taken down."""
        end_s = time.monotonic() + SETTLE_MAX_S
        before = -1
        while (count := len(self._notes())) != before and time.monotonic() < end_s:
            before = count
            await asyncio.sleep(SETTLE_S)

    # ------------------------------------------------------------------------------ inside

    def _answered(self) -> list[Turn]:
        return [one for one in self.raw.turns if not one.failure]

    def _took(self, turn: Turn) -> None:
        self.raw.turns.append(turn)
        if turn.failure:
            self.say(f"a prompt in {turn.region} has failed: {turn.failure}")

    def _notes(self) -> list[Note]:
        return [note for path in self.company.journals() for note in read(path)]

    def _router(self, region: str) -> Counted:
        return self.counted.get(f"{region}/router", Counted())

    async def _look_now_and_then(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        """See whether everybody is still there, and what they have counted."""
        members = [one for one in self.company.members if one.name not in self._down]
        for member in members:
            how = member.ended()
            if how:
                self._surprised(member.name, f"{member.name} {how}, and not by us")
        for node in self.cluster.nodes.values():
            if node.name not in self._down and not node.running:
                self._surprised(node.name, f"node {node.name} ended, and not by us")
        await asyncio.gather(*[self._count(member) for member in members if member.runs])
        now_ns = time.monotonic_ns()
        for region in self.plan.regions:
            stale_s = self._router(region).sum("k2_router_staleness_seconds")
            self.raw.staleness.append((now_ns, region, stale_s))
            self.raw.fetched.append((now_ns, region, self.fetched(region)))

    async def _count(self, member: Member) -> None:
        try:
            now = await asyncio.to_thread(scrape, member.address)
        except (OSError, ValueError):
            # It is busy, or has just been killed: the next look tells.
            return
        self.counted.setdefault(member.name, Counted()).take(now)

    def _surprised(self, name: str, incident: str) -> None:
        self._down.add(name)
        self.raw.incidents.append(incident)
        self.say(incident)

    async def _links(self) -> Links:
        async with self._wan_lock:
            return await asyncio.to_thread(self.cluster.wan.statistics)
