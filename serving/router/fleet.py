"""Answers from many workers, as if from one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

import k2store
from kv_pool.blocks import chain, root
from kv_pool.keys import Worker
from kv_pool.routing.cost import CostModel
from kv_pool.routing.facts import Request as Asked
from serving.engine.request import Outcome, Request
from serving.instance.links import Links, Way
from serving.instance.messages import Generate, Message, Move, Moved
from serving.router.load import Loads
from serving.router.placing import Placement, Placing
from serving.transport import PeerLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from kv_pool.edge.following import Tree
    from kv_pool.edge.pool import Pool

_FENCE_S: Final = 0.5
"""How often workers are looked for whose leases have run out."""


class FleetSettings(Struct, frozen=True, kw_only=True):
    """What a router is told.

    policy    how prompts are placed: a name of `kv_pool.routing.policies`
    spills    workers of other regions are asked while none of the own one takes requests
    tries     workers that are asked for one answer before it fails
    avoid_s   a worker that was lost is not asked for so long, unless it registers anew
    wait_s    a request waits so long for a worker to be there
    move_s    a worker may take so long to move blocks to another one
    """

    policy: str = "cost"
    spills: bool = True
    tries: int = 4
    avoid_s: float = 10.0
    wait_s: float = 10.0
    move_s: float = 60.0


@dataclass
class FleetCounts:
    """What has happened so far: requests, those that failed, answers that went on elsewhere in the middle, requests
    that were sent again before anything was told, tries in another region; tokens of prompts, and those found
    computed."""

    requests: int = 0
    failed: int = 0
    resumed: int = 0
    retried: int = 0
    spilled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0


class Answer:
    """Outcomes of one request, whoever they come from; see `serving.engine.front.Stream`."""

    def __init__(self, outcomes: AsyncIterator[Outcome]) -> None:
        self._outcomes = outcomes

    def __aiter__(self) -> AsyncIterator[Outcome]:
        return self._outcomes


class Fleet:
    """See the package.

    session  names the conversation that is being asked for, for policies that go by it
    """

    def __init__(
        self,
        pool: Pool,
        tree: Tree,
        links: Links,
        namespace: bytes,
        cost: CostModel,
        settings: FleetSettings | None = None,
        session: Callable[[], str] = str,
    ) -> None:
        self._pool = pool
        self._tree = tree
        self._links = links
        self._namespace = namespace
        self._cost = cost
        self._settings = settings or FleetSettings()
        self._session = session
        self._root = root(namespace)
        self._lost: dict[Worker, tuple[float, int]] = {}
        self.loads = Loads()
        self.counts = FleetCounts()
        self._placing = Placing(
            tree,
            pool.region,
            self.loads,
            self._avoids,
            policy=self._settings.policy,
            spills=self._settings.spills,
            cost=cost,
        )

    @property
    def failure(self) -> k2store.K2Error | None:
        """Why nothing can be answered any more: the learner's feed has ended for good."""
        return self._tree.failure

    async def keep_house(self) -> None:
        """Fence workers whose leases have run out, for ever: their blocks are void for everybody then."""
        while True:
            await asyncio.sleep(_FENCE_S)
            try:
                await self._pool.fence_expired()
            except k2store.K2Error:
                continue

    @asynccontextmanager
    async def generate(
        self, request: Request, worker: Worker | None = None
    ) -> AsyncIterator[Answer]:
        """The outcomes of a request, for ``async with``; leaving the block cancels it.

        worker  is asked first, whatever the policy says

        A worker that is lost is replaced. Raises `k2store.Unavailable` when nobody is there, and what a worker refuses.
        """
        self.counts.requests += 1
        async with aclosing(self._answer(request, worker)) as outcomes:
            yield Answer(outcomes)

    async def move(self, tokens: Sequence[int], source: Worker, to: Worker) -> int:
        """Move the blocks of some tokens from one worker to another; gives how many are gone from the first."""
        way = await self._way(source)
        move = Move(self._links.ticket(), tuple(tokens), str(to))
        answer = await self._links.ask(way, move, self._settings.move_s)
        if not isinstance(answer, Moved):
            raise k2store.Unavailable(f"{source} answers something else")
        return answer.blocks

    async def _answer(
        self, request: Request, first: Worker | None
    ) -> AsyncGenerator[Outcome, None]:
        names = chain(self._root, request.tokens, self._cost.block_tokens).names
        asked = Asked(self._namespace, names, len(request.tokens), self._session())
        told: list[int] = []
        cached: int | None = None
        for left in range(self._settings.tries - 1, -1, -1):
            placement = await self._place(asked) if first is None else Placement(first, None, 0)
            first = None
            self.counts.spilled += placement.worker.region != self._pool.region
            try:
                async with aclosing(self._ask(placement, request, told)) as outcomes:
                    async for outcome in outcomes:
                        if cached is None:
                            cached = outcome.usage.cached
                            self.counts.prompt_tokens += outcome.usage.prompt
                            self.counts.cached_tokens += cached
                        if outcome.token is not None:
                            told.append(outcome.token)
                        # Who went on behind another one has found its own work, too; that is not what was saved.
                        usage = msgspec.structs.replace(outcome.usage, cached=cached)
                        yield msgspec.structs.replace(outcome, usage=usage)
                return
            except (PeerLost, k2store.Unavailable, k2store.Overloaded) as error:
                if isinstance(error, k2store.Overloaded) or not left:
                    self.counts.failed += 1
                    raise
                self._avoid(placement.worker)
                self.counts.resumed += bool(told)
                self.counts.retried += not told

    async def _place(self, asked: Asked) -> Placement:
        """A placement, as soon as somebody takes the request."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._settings.wait_s
        while True:
            placement = self._placing.place(asked, self._pool.bounds.now())
            if placement is not None:
                return placement
            if loop.time() >= until_s:
                self.counts.failed += 1
                raise k2store.Unavailable("no worker takes requests now", retry_after_s=1.0)
            await asyncio.sleep(0.05)

    async def _ask(
        self, placement: Placement, request: Request, told: list[int]
    ) -> AsyncGenerator[Outcome, None]:
        worker = placement.worker
        tokens = len(request.tokens) + len(told)
        prefill_s = self._cost.prefill_s(tokens, placement.blocks)
        prefill = placement.prefill
        with ExitStack() as stack:
            tasks = [stack.enter_context(self.loads.given(prefill or worker, prefill_s))]
            if prefill is not None:
                tasks.append(stack.enter_context(self.loads.given(worker, 0.0)))
            way = await self._way(worker)
            question = Generate(
                self._links.ticket(), request, tuple(told), str(prefill) if prefill else ""
            )
            async with aclosing(self._links.answers(way, question)) as answers:
                async for said in answers:
                    for task in tasks:
                        task.began()
                    for outcome in said.outcomes:
                        yield outcome

    async def _way(self, worker: Worker) -> Way:
        identity = self._tree.identity(worker)
        if identity is None:
            raise PeerLost(f"{worker} is gone")
        return await self._links.to(worker, identity.endpoints)

    def _avoid(self, worker: Worker) -> None:
        identity = self._tree.identity(worker)
        until_s = asyncio.get_running_loop().time() + self._settings.avoid_s
        self._lost[worker] = (until_s, 0 if identity is None else identity.incarnation)

    def _avoids(self, worker: Worker) -> bool:
        """Whether a worker was lost a short while ago, and has not begun another life since."""
        lost = self._lost.get(worker)
        if lost is None:
            return False
        until_s, incarnation = lost
        identity = self._tree.identity(worker)
        if asyncio.get_running_loop().time() >= until_s or (
            identity is not None and identity.incarnation > incarnation
        ):
            del self._lost[worker]
            return False
        return True


async def nobody(way: Way, message: Message) -> None:
    """A router is asked for nothing: whoever asks is not talked to."""
    way.peer.link.close(PeerLost(f"a router has no answer to {type(message).__name__}"))
