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

import k2store
from bench.demo.crossings import crossings
from bench.demo.simulated.arrivals import arrivals
from bench.demo.faults import Fault, Faults
from kv_pool.edge.journal import INVOKE, OK, Note, read
from bench.demo.judging import last_stamp
from bench.demo.simulated.messages import (
    Begin,
    Compare,
    Compared,
    Look,
    Outcome,
    Probe,
    Quiesce,
    Seen,
    Stock,
    Stocked,
)
from bench.demo.simulated.plan import Plan
from bench.demo.simulated.scene import Company, Member
from bench.demo.simulated.wire import Failed, Gone
from bench.processes import BenchError
from k2store.testing.cluster import LocalCluster
from k2store.testing.wan.link import LinkCounts
from kv_pool import keys
from kv_pool.edge.pool import Pool
from kv_pool.keys import PIN, RUN, WORKERS, split_worker, worker_of
from kv_pool.namespace import Namespace
from kv_pool.records import Id, decode, decode_run

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
            return Compared(rows=0, prompts=0, differences=[f"{region}: {error}"], at=at)
        assert isinstance(compared, Compared), "who is told to compare compares"
        found = [f"{region}: {one}" for one in compared.differences]
        return Compared(
            rows=compared.rows, prompts=compared.prompts, differences=found, at=compared.at
        )

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
        faults = Faults(self)
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
        raw.wan = {link: _between(before[link], after[link]) for link in after}

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
        raw.notes = [*self._notes(), *await self._final()]

    async def _final(self) -> list[Note]:
        """What the store has in the end, as an operation of the history."""
        asked_ns = time.monotonic_ns()
        identities: dict[bytes, Id] = {}
        runs: list[dict[str, object]] = []
        claims: list[str] = []
        async with self.db.snapshot(strong=True) as view:
            async for row in view.scan(k2store.prefix(WORKERS)):
                prefix, rest = split_worker(row.key)
                if rest == keys.ID:
                    identities[prefix] = decode(Id, row.value)
                elif rest.startswith(PIN):
                    claims.append(row.key[-keys.PIN_BYTES :].hex())
                elif rest.startswith(RUN):
                    part, run = rest[len(RUN) :], decode_run(row.value)
                    if run.is_valid(identities[prefix], part[16]):
                        runs.append(
                            {
                                "worker": str(worker_of(prefix)),
                                "run": part[16:].hex(),
                                "generation": run.generation,
                                "blocks": run.live,
                            }
                        )
            stamp = view.at
        value: dict[str, object] = {"runs": runs, "claims": claims}
        return [
            Note(INVOKE, "conductor", "final", {}, asked_ns),
            Note(OK, "conductor", "final", value, time.monotonic_ns(), stamp),
        ]

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


def _between(before: LinkCounts, after: LinkCounts) -> LinkCounts:
    """What was counted between two looks."""
    counts = {
        name: getattr(after, name) - getattr(before, name)
        for name in LinkCounts.__struct_fields__
        if name != "late_s_max"
    }
    return LinkCounts(**counts, late_s_max=after.late_s_max)
