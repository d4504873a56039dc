"""A region's router as a process: it matches, places, claims, and gives prompts to workers.

For each prompt: a match on its own learner, a decision by the policy, a claim on what the chosen worker is believed
to have (and on what is to be fetched from another), the order to the worker, and the claims back. A claim that
finds less than was believed met a *phantom*. A worker that is gone in the middle leaves its prompts to others.

Workers that cannot be reached and whose lease has run out are fenced by the router of their region.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

import k2store
from bench.demo.comparing import Shown, differences
from bench.demo.simulated import messages
from bench.demo.simulated.messages import (
    Begin,
    Compare,
    Done,
    Fetch,
    Look,
    Message,
    Outcome,
    Prompt,
    Quiesce,
    Seen,
    Serve,
    Served,
    Setting,
    Stock,
)
from bench.demo.simulated.process import begin, connect
from bench.demo.simulated.wire import Failed, Gone, Peer, listen, refuse
from kv_pool.blocks import NAME_BYTES, Names
from kv_pool.directory.pinning import Claim
from kv_pool.edge.following import Tree
from kv_pool.edge.journal import Journal, Recording
from kv_pool.edge.pool import Pool
from kv_pool.edge.refusals import Denied
from kv_pool.edge.trace import Namer
from kv_pool.keys import Worker
from kv_pool.records import State
from kv_pool.routing.facts import Facts, LearnerFacts, Load, Request
from kv_pool.routing.parts import Setting as Parts
from kv_pool.routing.router import Decision, Router
from truetime import Interval

TRIES: Final = 5
"""How many workers a prompt is given to, one after the other, before it is given up."""
PAUSE_S: Final = 0.3
"""Before another try, and before workers that are missing are looked for again."""
CLAIM_S: Final = 15.0
"""How long a claim lasts when nobody releases it."""
CLAIMING_S: Final = 0.6
FAR_CLAIMING_S: Final = 1.5
"""How long a claim is waited for: without one a prompt is computed."""
SHOWN_SAMPLES_MAX: Final = 100_000
RECENT_PROMPTS: Final = 2_000
SEEK_S: Final = 0.5
NS_PER_S: Final = 1_000_000_000


class Reachable:
    """Facts of a learner, less the workers of this region that just could not be reached."""

    def __init__(self, facts: LearnerFacts) -> None:
        self._facts = facts
        self.missing: set[str] = set()

    def facts(self, request: Request, now: Interval) -> Facts:
        """What is known of workers that may be asked."""
        facts = self._facts.facts(request, now)
        here = tuple([one for one in facts.workers if str(one) not in self.missing])
        return Facts(here, facts.depths, facts.loads, facts.age_s, facts.sources)


class RegionRouter:
    """See the module."""

    def __init__(self, setting: Setting, pool: Pool, tree: Tree) -> None:
        self._setting = setting
        self._pool = pool
        self._tree = tree
        self._peers = {name: Peer(address, refuse) for name, address in setting.workers.items()}
        self._loads: dict[Worker, Load] = {}
        self._reachable = Reachable(LearnerFacts(tree.learner, self._loads, setting.region))
        self._router = Router(setting.policy, self._reachable, Parts(cost=setting.cost))
        self._namer = Namer()
        self._recent: deque[Names] = deque(maxlen=RECENT_PROMPTS)
        self._outcomes: list[Outcome] = []
        self._acquires_ns: list[int] = []
        self._far_acquires_ns: list[int] = []
        self._shown: dict[str, list[tuple[int, int]]] = {}
        self._fenced: list[str] = []
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._done = False
        self._failure = ""

    # ------------------------------------------------------------------------------- asked

    async def handle(self, message: Message) -> Message:
        """Do what the conductor asks."""
        match message:
            case Begin(origin_ns, prompts):
                self._spawn(self._take(origin_ns, prompts))
                return Done()
            case Look():
                return self._look()
            case Compare(at, prompts):
                return await self._compare(at, prompts)
            case Quiesce():
                while self._tasks:
                    await asyncio.wait(self._tasks)
                return Done()
            case _:
                return await refuse(message)

    async def follow(self, region: str) -> None:
        """Note when what of a region's feed is shown here."""
        noted = self._shown.setdefault(region, [])
        tree = self._tree
        reached = 0
        while True:
            with suppress(k2store.Deadline):
                await tree.caught_up(reached + 1, region=region, timeout=60.0)
                reached = tree.in_region(region)[0]
                if len(noted) < SHOWN_SAMPLES_MAX:
                    noted.append((time.monotonic_ns(), reached))

    async def seek(self) -> None:
        """Fence workers of this region that are gone; notice when others have come."""
        missing = self._reachable.missing
        own = [name for name in self._peers if name.startswith(f"{self._setting.region}/")]
        while True:
            await asyncio.sleep(SEEK_S)
            for name in own:
                worker = worker_named(name)
                try:
                    async with asyncio.timeout(SEEK_S):
                        await self._peers[name].ask(Stock())
                except (Gone, Failed, TimeoutError):
                    self.lost(worker)
                else:
                    missing.discard(name)
                    continue
                identity = self._tree.identity(worker)
                if identity is None or identity.state == State.FENCED:
                    continue
                # While its lease runs this is refused.
                with suppress(k2store.K2Error):
                    await self._pool.fence(worker)
                    self._fenced.append(name)

    def _look(self) -> Seen:
        tree = self._tree
        members = {}
        for worker in tree.known_workers():
            identity = tree.identity(worker)
            assert identity is not None, "who is known has registered"
            members[str(worker)] = (identity.incarnation, identity.state == State.LIVE)
        outcomes, self._outcomes = self._outcomes, []
        acquires, self._acquires_ns = self._acquires_ns, []
        far_acquires, self._far_acquires_ns = self._far_acquires_ns, []
        shown = {region: list(noted) for region, noted in self._shown.items()}
        for noted in self._shown.values():
            noted.clear()
        fenced, self._fenced = self._fenced, []
        failure = self._failure or ("" if tree.failure is None else str(tree.failure))
        return Seen(
            outcomes=outcomes,
            acquires_ns=acquires,
            far_acquires_ns=far_acquires,
            shown=shown,
            members=members,
            stale_s=self.age()[1] / NS_PER_S,
            waiting=self._waiting,
            done=self._done,
            failure=failure,
            fenced=fenced,
        )

    async def _compare(self, at: int, prompts: int) -> messages.Shown:
        if at:
            await self._tree.caught_up(at, timeout=30.0)
        regions = self._setting.regions
        recent = list(self._recent)[-prompts:]
        shown = Shown(self._tree, regions, self._setting.namespace, recent)
        rows, found = await differences(self._pool.db, shown)
        return messages.Shown(
            rows=rows, prompts=len(recent), differences=found, at=min(shown.stamps.values())
        )

    # ------------------------------------------------------------------------------ prompts

    async def _take(self, origin_ns: int, prompts: list[Prompt]) -> None:
        """Begin each prompt in its time."""
        async with asyncio.TaskGroup() as group:
            for prompt in prompts:
                due_ns = origin_ns + int(prompt.at_ms * 1e6 / self._setting.speed)
                pause_s = (due_ns - time.monotonic_ns()) / NS_PER_S
                if pause_s > 0:
                    await asyncio.sleep(pause_s)
                group.create_task(self._prompt(prompt))
        self._done = True

    async def _prompt(self, prompt: Prompt) -> None:
        self._waiting += 1
        try:
            outcome = await self._carry(prompt)
            # The list is another one after each look.
            self._outcomes.append(outcome)
        finally:
            self._waiting -= 1

    async def _carry(self, prompt: Prompt) -> Outcome:
        names = self._namer.names_of(prompt.blocks)
        self._recent.append(names)
        request = Request(self._setting.namespace, names, prompt.tokens, prompt.session)
        arrived_ns = time.monotonic_ns()
        trial = _Trial(self, prompt, request, arrived_ns)
        for _ in range(TRIES):
            outcome = await trial.run()
            if outcome is not None:
                return outcome
            await asyncio.sleep(PAUSE_S)
        return trial.given_up()

    def decide(self, request: Request) -> tuple[Decision | None, int]:
        """Where a prompt goes, and how many of its blocks the learner knows of."""
        now = self._pool.bounds.now()
        known = self._tree.match(request.namespace, request.names).blocks
        return self._router.route(request, now), known

    def age(self) -> tuple[int, int]:
        """Up to which stamp the blocks of all regions are shown, and by how much that may lag, ns."""
        ages = [self._tree.in_region(region) for region in self._setting.regions]
        return min([at for at, _ in ages]), int(max([lag_s for _, lag_s in ages]) * NS_PER_S)

    def burden(self, worker: Worker, requests: int, work_s: float) -> None:
        """A worker has so much more to do, or less."""
        load = self._loads.get(worker, Load())
        self._loads[worker] = Load(
            max(0, load.requests + requests), max(0.0, load.queued_s + work_s), load.churn_per_s
        )

    def churns(self, worker: Worker, churn_per_s: float) -> None:
        """A worker has said how fast its blocks go."""
        load = self._loads.get(worker, Load())
        self._loads[worker] = Load(load.requests, load.queued_s, churn_per_s)

    def lost(self, worker: Worker) -> None:
        """A worker could not be reached."""
        self._reachable.missing.add(str(worker))

    @property
    def tree(self) -> Tree:
        """The learner."""
        return self._tree

    @property
    def setting(self) -> Setting:
        """What this process was told."""
        return self._setting

    async def serve(self, worker: Worker, order: Serve) -> Served:
        """Have a worker serve; `Gone` when it is not there."""
        answer = await self._peers[str(worker)].ask(order)
        assert isinstance(answer, Served), "who is told to serve serves"
        return answer

    async def claim(self, worker: Worker, request: Request, blocks: int) -> Claim | None:
        """A claim on the first blocks of a prompt at a worker, or on what there is of them; None for
        nothing. Raises `Denied` for nothing at all, `TimeoutError` and the store's errors."""
        cover = self._tree.cover(worker, request.namespace, request.names[: blocks * NAME_BYTES])
        if cover is None:
            return None
        far = worker.region != self._setting.region
        began_ns = time.monotonic_ns()
        async with asyncio.timeout(FAR_CLAIMING_S if far else CLAIMING_S):
            claim = await self._pool.acquire(cover, ttl_s=CLAIM_S, blocks_min=1)
        took_ns = time.monotonic_ns() - began_ns
        (self._far_acquires_ns if far else self._acquires_ns).append(took_ns)
        return claim

    def give_back(self, claim: Claim) -> None:
        """Release a claim; nobody waits for that, and it ends by itself if it fails."""

        async def release() -> None:
            with suppress(k2store.K2Error):
                await self._pool.release(claim)

        self._spawn(release())

    def address(self, worker: Worker) -> str:
        """Where a worker gives pages, as its row says, as workers of this region dial it."""
        return self._setting.workers[str(worker)]

    def _spawn(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or repr(task.exception())


class _Trial:
    """One prompt on its way through the workers."""

    def __init__(
        self, router: RegionRouter, prompt: Prompt, request: Request, arrived_ns: int
    ) -> None:
        self._router = router
        self._prompt = prompt
        self._request = request
        self._arrived_ns = arrived_ns
        self._matched_ns = self._match_ns = 0
        self._as_of = self._stale_ns = 0
        self._known = self._believed = self._claimed = 0
        self._denied = self._broken = self._unclaimed = self._rerouted = 0

    async def run(self) -> Outcome | None:
        """One try: what became of it; None when the worker was lost or there is none."""
        router, request = self._router, self._request
        self._matched_ns = time.monotonic_ns()
        decision, self._known = router.decide(request)
        self._match_ns = time.monotonic_ns() - self._matched_ns
        self._as_of, self._stale_ns = router.age()
        if decision is None:
            self._rerouted += 1
            return None
        worker, pull = decision.worker, decision.pull
        claims = [await self._claim(worker, decision.depth)] if decision.depth else []
        fetch = None
        if pull is not None:
            source = await self._claim(pull.source, pull.start + pull.blocks)
            claims.append(source)
            blocks = 0 if source is None else min(pull.blocks, source.blocks - pull.start)
            if blocks > 0:
                far = pull.source.region != worker.region
                address = router.address(pull.source)
                fetch = Fetch(str(pull.source), address, pull.start, blocks, far)
        cost = router.setting.cost
        work_s = cost.prefill_s(
            request.tokens, fetch.start + fetch.blocks if fetch else decision.depth
        )
        router.burden(worker, 1, work_s)
        try:
            served = await router.serve(worker, Serve(request.names, request.tokens, fetch))
        except Gone:
            router.lost(worker)
            self._rerouted += 1
            return None
        except Failed:
            # It said what is wrong before it ended, or will be found out by the conductor.
            self._rerouted += 1
            return None
        finally:
            router.burden(worker, -1, -work_s)
            for claim in claims:
                if claim is not None:
                    router.give_back(claim)
        router.churns(worker, served.churn_per_s)
        self._broken += served.broken
        return self._outcome(str(worker), served, far=fetch is not None and fetch.far)

    def given_up(self) -> Outcome:
        """Nobody served it."""
        return self._outcome("", None, far=False)

    async def _claim(self, worker: Worker, blocks: int) -> Claim | None:
        self._believed += blocks
        try:
            claim = await self._router.claim(worker, self._request, blocks)
        except Denied:
            self._denied += 1
            return None
        except (k2store.K2Error, TimeoutError):
            self._broken += 1
            self._unclaimed += 1
            return None
        held = 0 if claim is None else claim.blocks
        self._claimed += held
        self._denied += held < blocks
        return claim

    def _outcome(self, worker: str, served: Served | None, *, far: bool) -> Outcome:
        return Outcome(
            number=self._prompt.number,
            region=self._router.setting.region,
            worker=worker,
            arrived_ns=self._arrived_ns,
            matched_ns=self._matched_ns,
            ended_ns=time.monotonic_ns(),
            as_of=self._as_of,
            stale_ns=self._stale_ns,
            match_ns=self._match_ns,
            known=self._known,
            believed=self._believed,
            claimed=self._claimed,
            denied=self._denied,
            broken=self._broken,
            unclaimed=self._unclaimed,
            rerouted=self._rerouted,
            far=far,
            local=served.local if served else 0,
            fetched=served.fetched if served else 0,
            computed=served.computed if served else 0,
            unkept=served.unkept if served else 0,
            prefill_ns=served.prefill_ns if served else 0,
        )


def worker_named(name: str) -> Worker:
    """The worker of a name such as ``fra/w1``."""
    region, _, own = name.partition("/")
    return Worker(region, own)


async def main(setting: Setting, ready: Callable[[], None]) -> None:
    """Route until the owner is gone."""
    journal = Journal(Path(setting.journal), f"{setting.name} {os.getpid()}")
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(connect(setting))
        pool = await stack.enter_async_context(
            Pool(db, setting.region, name=setting.name.replace("/", "-"))
        )
        pool.store = Recording(pool.store, journal)
        tree = await stack.enter_async_context(pool.learner(regions=setting.regions))
        router = RegionRouter(setting, pool, tree)
        server = await stack.enter_async_context(await listen(setting.listen, router.handle))
        ready()
        async with asyncio.TaskGroup() as group:
            for region in setting.regions:
                group.create_task(router.follow(region))
            group.create_task(router.seek())
            group.create_task(server.serve_forever())


if __name__ == "__main__":
    begin(main)
