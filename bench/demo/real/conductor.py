"""A run from beginning to end: it starts everybody, lets people ask, inflicts faults, and gathers what became of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench.demo.course import Course
from bench.demo.ending import between, final
from bench.demo.faults import Faults
from bench.demo.judging import last_stamp
from bench.demo.live import share
from bench.demo.member import Member
from bench.demo.real.counters import Counted, scrape
from bench.demo.real.lookout import lookout
from bench.demo.real.people import People, Turn
from bench.demo.real.plan import Plan
from bench.demo.real.reference import Sameness, compare_answers, sample
from bench.demo.real.scene import company
from bench.demo.real.talks import talks
from bench.demo.run import Run
from k2store.testing.cluster import LocalCluster

LOOK_S: Final = 1.0
SETTLE_S: Final = 0.5
"""Between two looks whether anything is still published or released."""
SETTLE_MAX_S: Final = 15.0
FAULT_AFTER_S: Final = 8.0
"""Not before there is something to lose."""


class Raw(Struct, kw_only=True):
    """What a run leaves.

    fetched  (moment, region, blocks that its workers have fetched so far)
    left     prompts for which no time was left
    """

    course: Course
    turns: list[Turn] = []
    fetched: list[tuple[int, str, int]] = []
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
        self.raw = Raw(course=Course(began_ns=time.monotonic_ns(), wan_kind=str(cluster.wan_kind)))
        self.counted: dict[str, Counted] = {}
        self.stage = "routers and workers start (each loads torch)"
        self._say = say
        self._people: People | None = None

    # ------------------------------------------------------------------------- for who looks

    def line(self) -> str:
        """The state in a line; empty where there is nothing to tell yet."""
        if not self.raw.course.started_ns:
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

    def say(self, text: str) -> None:
        """Something worth a line."""
        course = self.raw.course
        at_s = (time.monotonic_ns() - (course.started_ns or course.began_ns)) / 1e9
        self._say(f"{at_s:6.1f} s  {text}")

    @property
    def routers(self) -> dict[str, str]:
        """Where the router of each region answers."""
        return {region: member.address for region, member in self._company.routers.items()}

    # ----------------------------------------------------------------------------- the run

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Raw]:
        """All of it, for ``async with``: in the block everything is through, and everybody still answers.

        `BenchError` when something that should come does not.
        """
        raw, course, plan = self.raw, self.raw.course, self.plan
        with company(plan, self.cluster, self.folder) as self._company:
            async with self.cluster.connect(plan.regions[0], name="conductor") as db:
                await self._company.start()
                self._run = Run(self.cluster, self._company, db, course.incidents, self.say)
                async with lookout(self.cluster, plan.regions, self.folder) as self._lookout:
                    self.stage = "round trips of a publish are counted"
                    course.crossings = await self._lookout.crossings()
                    course.started_ns = time.monotonic_ns()
                    await self._people_ask()
                    await self._close()
            self.stage = "answers are compared with those of a worker that keeps nothing"
            self.say(self.stage)
            wanted = sample(self._answered(), course.faults, plan.samples)
            raw.sameness = await compare_answers(wanted, self.folder)
            yield raw

    async def _people_ask(self) -> None:
        raw, course, plan, run = self.raw, self.raw.course, self.plan, self._run
        self.stage = "people ask"
        before = await run.links()
        asked = talks(plan.prompts, plan.regions, plan.seed)
        people = self._people = People(plan, asked, self.routers, self._took)
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look_now_and_then())
            inflicting = group.create_task(self._inflict())
            await people.ask()
            await inflicting
            looking.cancel()
        course.ended_ns = time.monotonic_ns()
        raw.left = people.left
        await self._look()
        after = await run.links()
        course.wan = {link: between(before[link], after[link]) for link in after}

    async def _inflict(self) -> None:
        if self.plan.faults:
            await asyncio.sleep(FAULT_AFTER_S)
            await Faults(self._run, self._lookout, self.raw.course.faults).inflict()

    async def _close(self) -> None:
        """Let everything come to rest, then look at all of it."""
        course, run = self.raw.course, self._run
        self.stage = "learners are compared with the store"
        await self._settled()
        course.compared = await run.compare_all(self._lookout, last_stamp(run.notes()))
        course.notes = [*run.notes(), *await final(run.db)]

    async def _settled(self) -> None:
        """Return when nobody asks the directory for anything any more but for leases, which are not taken down."""
        end_s = time.monotonic() + SETTLE_MAX_S
        before = -1
        while (count := len(self._run.notes())) != before and time.monotonic() < end_s:
            before = count
            await asyncio.sleep(SETTLE_S)

    # ------------------------------------------------------------------------------ inside

    def _answered(self) -> list[Turn]:
        return [one for one in self.raw.turns if not one.failure]

    def _took(self, turn: Turn) -> None:
        self.raw.turns.append(turn)
        if turn.failure:
            self.say(f"a prompt in {turn.region} has failed: {turn.failure}")

    def _router(self, region: str) -> Counted:
        return self.counted.get(f"{region}/router", Counted())

    async def _look_now_and_then(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        """See whether everybody is still there, and what they have counted."""
        self._run.look()
        there = [member for member in self._run.there() if member.runs]
        await asyncio.gather(*[self._count(member) for member in there])
        now_ns = time.monotonic_ns()
        for region in self.plan.regions:
            stale_s = self._router(region).sum("k2_router_staleness_seconds")
            self.raw.course.staleness.append((now_ns, region, stale_s))
            self.raw.fetched.append((now_ns, region, self.fetched(region)))

    async def _count(self, member: Member) -> None:
        try:
            now = await asyncio.to_thread(scrape, member.address)
        except (OSError, ValueError):
            # It is busy, or has just been killed: the next look tells.
            return
        self.counted.setdefault(member.name, Counted()).take(now)
