"""Pages that move between workers.

::

    fetch     a prefix that another worker has:      claim ─▶ Resolve ─▶ read ─▶ check ─▶ insert
              or a compiled chunk, found by content: the same
    prefill   a prompt that another one computes:    room here ─▶ Prefill ─▶ (it writes) ─▶ Ready ─▶ go on
    push      pages that another one is to have:     Offer ─▶ Granted ─▶ write ─▶ Complete ─▶ it inserts
    migrate   push, seen in the directory, then evicted here

Only what the other side lacks is moved. Pages that are inserted are published by the receiver's own residency.

Pages here that a peer may write stay out of use until it has said that it is done or is gone for certain: a peer
that was killed in the middle costs its pages until its link has ended, and then they are free again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

import k2store
from kv_pool.blocks import NAME_BYTES, Names, chain, content_names, root
from kv_pool.pool.block_pool import Slot
from serving.engine.request import Request, Sampling
from serving.instance.economy import Economy
from serving.instance.links import Links, Way
from serving.instance.messages import (
    Complete,
    Granted,
    Located,
    Message,
    Move,
    Moved,
    Offer,
    Prefill,
    Ready,
    Resolve,
    encode,
    refusal,
)
from serving.instance.pages import EnginePages, addresses, local
from serving.instance.place import worker_named
from serving.instance.residency import Residency
from serving.linking.naming import filled
from serving.pages.mem_pool import Held
from serving.transport import Address, Damaged, Mode, Peer, PeerLost, Stale

if TYPE_CHECKING:
    from kv_pool.edge.following import Tree
    from kv_pool.edge.pool import Pool
    from kv_pool.keys import Worker
    from serving.engine.engine import Engine
    from serving.engine.front import Stream

T = TypeVar("T")

_CHUNKS_AT_A_TIME: Final = 2

FAILURES: Final = (
    k2store.Conflict,
    k2store.Corruption,
    k2store.Deadline,
    k2store.Expired,
    k2store.OutcomeUnknown,
    k2store.Overloaded,
    k2store.Unavailable,
)
"""What can go wrong on the way to another worker's pages without this one being wrong: then it computes."""


class ExchangeLimits(Struct, frozen=True, kw_only=True):
    """Bounds.

    question_s      a question that another worker answers from memory
    prefill_s       a prefill that another worker computes, its queue included
    offer_s         pages that were granted for an offer are waited for so long
    claim_s         a claim on blocks that are fetched
    fetch_tokens_min  a shorter gain is not worth a question
    """

    question_s: float = 5.0
    prefill_s: float = 120.0
    offer_s: float = 30.0
    claim_s: float = 10.0
    fetch_tokens_min: int = 16


@dataclass
class ExchangeCounts:
    """What has moved so far.

    fetched_blocks     read from other workers
    fetched_chunks     compiled chunks that came whole from other workers
    fetches_declined   prefixes elsewhere that were cheaper to compute
    fetches_failed     prefixes that were computed after all, by the class of what went wrong
    sent_blocks        written to other workers
    returned_blocks    of them, pages of answers
    prefills_asked     prompts that others were asked to compute; failed ones were computed here
    prefills_served    prompts that were computed for others
    prompt_tokens_cached, prompt_tokens_computed  of the prompts that others computed for this worker
    """

    fetched_blocks: int = 0
    fetched_chunks: int = 0
    fetches_declined: int = 0
    fetches_failed: dict[str, int] = field(default_factory=dict)
    sent_blocks: int = 0
    returned_blocks: int = 0
    prefills_asked: int = 0
    prefills_failed: int = 0
    prefills_served: int = 0
    prompt_tokens_cached: int = 0
    prompt_tokens_computed: int = 0


class _Wanted(NamedTuple):
    """Consecutive blocks from the first one of a prompt, or of a chunk, on."""

    namespace: bytes
    tokens: Sequence[int]
    names: Names

    def beginning(self, blocks: int) -> _Wanted:
        """The first of them."""
        return self._replace(names=self.names[: blocks * NAME_BYTES])


@dataclass
class _Adoption:
    """A prompt that was computed elsewhere, until it is a sequence of the engine here."""

    pages: EnginePages
    returning: dict[int, Worker]
    worker: Worker
    request: Request
    ready: Ready
    held: Held
    slots: tuple[Slot, ...]
    is_adopted: bool = False

    def adopt(self, engine: Engine) -> int:
        """In the engine's thread: go on from the first token."""
        self.pages.revoke(self.slots)
        whole = (*self.held.pages, *self.slots)
        number = engine.adopt(
            self.request, [self.ready.token], self.held.chain, whole, cached=self.ready.cached
        )
        self.is_adopted = True
        self.returning[number] = self.worker
        return number

    def drop(self, engine: Engine) -> None:
        """In the engine's thread: free what nobody has adopted."""
        if not self.is_adopted:
            engine.pool.free_mem(self.slots)
            engine.pool.release(self.held.pages)


@dataclass
class _Granting:
    """Pages that a peer fills for an offer of its own."""

    tokens: tuple[int, ...]
    held: Held
    slots: tuple[Slot, ...]
    timer: asyncio.TimerHandle


class Parked:
    """Pages of prompts that were computed for others, caught in the engine's thread."""

    def __init__(self) -> None:
        self._pages: dict[int, tuple[Slot, ...]] = {}

    def note(self, number: int, pages: Sequence[Slot]) -> None:
        """In the engine's thread: a parked sequence has these pages."""
        self._pages[number] = tuple(pages)

    def pages(self, number: int) -> tuple[Slot, ...]:
        """What was noted, once."""
        return self._pages.pop(number)

    def forget(self, number: int) -> None:
        """In the engine's thread: the sequence is over, whoever it was for."""
        self._pages.pop(number, None)


class Exchange:
    """See the module. `chunks`: the namespace of compiled chunks, where there are any."""

    def __init__(
        self,
        *,
        pool: Pool,
        tree: Tree,
        worker: Worker,
        namespace: bytes,
        links: Links,
        pages: EnginePages,
        residency: Residency,
        economy: Economy,
        limits: ExchangeLimits | None = None,
        mode: Mode = Mode.AGGREGATED,
        chunks: bytes = b"",
    ) -> None:
        self._pool = pool
        self._tree = tree
        self._worker = worker
        self._links = links
        self._pages = pages
        self._residency = residency
        self.economy = economy
        self._limits = limits or ExchangeLimits()
        self._mode = mode
        self._granted: dict[tuple[Peer, int], _Granting] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._prefills: set[asyncio.Task[_Adoption]] = set()
        self.namespace = namespace
        self.chunks = chunks
        self.parked = Parked()
        # These belong to the engine's thread: who computed the prompt of a sequence, and when one was begun.
        self.returning: dict[int, Worker] = {}
        self.began_s: dict[int, float] = {}
        self.counts = ExchangeCounts()
        links.when_lost(self._lost)

    async def stop(self) -> None:
        """Give up what is under way."""
        tasks = [*self._prefills, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Return when nothing is under way that was begun so far."""
        while self._tasks or self._prefills:
            await asyncio.gather(*self._prefills, *self._tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------ fetching

    def fetch_for(self, number: int, tokens: Sequence[int], names: Names, have: int) -> None:
        """Begin to fetch the prefix of a sequence of the engine, which goes on when that is through."""

        async def fetch() -> None:
            try:
                await self.fetch(tokens, names, have)
            finally:
                await self._pages.front.call(arrived)

        def arrived(engine: Engine) -> None:
            # From here on what passes is computing.
            self.began_s[number] = time.perf_counter()
            engine.arrived(number)

        self._spawn(fetch())

    def fetch_chunks_for(self, number: int, chunks: Sequence[Sequence[int]]) -> None:
        """Begin to fetch compiled chunks for a sequence of the engine, which goes on when that is through."""

        async def fetch() -> None:
            try:
                # Two at a time: the room that each takes before it is filled is nobody else's meanwhile.
                turns = asyncio.Semaphore(_CHUNKS_AT_A_TIME)
                await asyncio.gather(*[self._fetch_chunk(turns, tokens) for tokens in chunks])
            finally:
                await self._pages.front.call(lambda engine: engine.arrived(number))

        self._spawn(fetch())

    async def fetch(self, tokens: Sequence[int], names: Names, have: int) -> int:
        """Bring the blocks of a prompt here that another worker has and this one lacks; gives how many came.

        have  how many of them, from the first on, are here
        """
        depths = self._tree.workers(self.namespace, names)
        return await self._fetch(_Wanted(self.namespace, tokens, names), depths, have)

    async def _fetch_chunk(self, turns: asyncio.Semaphore, tokens: Sequence[int]) -> None:
        """Bring a compiled chunk here, if another worker has one with these tokens, wherever it stood there."""
        size = self._pages.page_tokens
        whole = filled(tokens, size)
        names = chain(root(self.chunks), whole, size).names
        first = content_names(self.chunks, whole[:size], size)
        depths: dict[Worker, int] = {}
        for found in self._tree.fragments(first):
            # A text of another chunk's middle has other keys and values: it followed on something.
            if found.namespace == self.chunks and found.depth == 0:
                cover = self._tree.cover(found.holder.worker, self.chunks, names)
                if cover is not None:
                    depths[found.holder.worker] = cover.blocks
        async with turns:
            wanted = _Wanted(self.chunks, whole, names)
            came = await self._fetch(wanted, depths, 0)
        self.counts.fetched_chunks += came * NAME_BYTES == len(names)

    async def _fetch(self, wanted: _Wanted, depths: Mapping[Worker, int], have: int) -> int:
        """Bring blocks here from who has most of them, if it pays; `depths`: how many somebody has."""
        found = self._best(depths, have)
        if found is None:
            return 0
        worker, blocks = found
        link = self.economy.link(str(worker), is_near=worker.region == self._worker.region)
        if (blocks - have) * self._pages.page_tokens < self._limits.fetch_tokens_min:
            return 0
        if not self.economy.judge(link, blocks - have, have).fetches:
            self.counts.fetches_declined += 1
            return 0
        try:
            came = await self._fetch_from(worker, wanted.beginning(blocks), have)
        except FAILURES as error:
            kind = type(error).__name__
            self.counts.fetches_failed[kind] = self.counts.fetches_failed.get(kind, 0) + 1
            return 0
        self.counts.fetched_blocks += came
        return came

    def _best(self, depths: Mapping[Worker, int], have: int) -> tuple[Worker, int] | None:
        """Who has most; of several, who is nearest."""
        found = [
            (blocks, worker.region == self._worker.region, worker)
            for worker, blocks in depths.items()
            if worker != self._worker and blocks > have
        ]
        if not found:
            return None
        blocks, _, worker = min(found, key=lambda one: (-one[0], not one[1], one[2]))
        return worker, blocks

    async def _fetch_from(self, worker: Worker, wanted: _Wanted, have: int) -> int:
        cover = self._tree.cover(worker, wanted.namespace, wanted.names)
        identity = self._tree.identity(worker)
        if cover is None or identity is None or cover.blocks <= have:
            return 0
        claim = await self._pool.acquire(
            cover, ttl_s=self._limits.claim_s, blocks_min=min(have + 1, cover.blocks)
        )
        try:
            began_s = self._now_s()
            way = await self._links.to(worker, identity.endpoints)
            claimed = wanted.beginning(claim.blocks)
            question = Resolve(self._links.ticket(), claimed.names)
            answer = await self._links.ask(way, question, self._limits.question_s)
            if not isinstance(answer, Located) or len(answer.pages) <= have:
                return 0
            asked_s = self._now_s() - began_s
            came, read_s = await self._read(way, answer.pages[have:], wanted, have)
            link = self.economy.link(str(worker), is_near=worker.region == self._worker.region)
            self.economy.fetched(link, came, asked_s, read_s)
            return came
        finally:
            # Nobody waits for it: until it is done, or has expired, the blocks just stay a little longer.
            self._spawn(self._release(claim))

    async def _read(
        self, way: Way, pages: Sequence[Address], wanted: _Wanted, have: int
    ) -> tuple[int, float]:
        """Read pages into room of our own, and insert what came whole; how many, and seconds of reading."""
        slots = await self._room(len(pages))
        inserted = False
        began_s = self._now_s()
        try:
            good = len(slots)
            failure: k2store.K2Error | None = None
            pairs = list(zip(pages[:good], local(slots), strict=True))
            if pairs:
                try:
                    await way.endpoint.read(way.peer, pairs, mode=self._mode)
                except (Stale, Damaged) as error:
                    good, failure = error.pages_good, error
            read_s = self._now_s() - began_s
            await self._pages.give_back(slots[good:])
            slots = slots[:good]
            inserted = True
            came = 0
            if slots:
                came = await self._pages.insert(wanted.tokens, have, slots, wanted.namespace)
        finally:
            if not inserted:
                # What a read leaves behind is only here: nobody else writes into these.
                await self._pages.give_back(slots)
        if failure is not None and not came:
            raise failure
        return came, read_s

    async def _room(self, count: int) -> tuple[Slot, ...]:
        """Pages to fill, at the expense of what is used least; fewer when there are no more."""
        try:
            return await self._pages.take(count)
        except k2store.Overloaded:
            await self._residency.shed(count)
            return await self._pages.take(count)

    async def _release(self, claim: object) -> None:
        try:
            await self._pool.release(claim)  # type: ignore[arg-type]
        except k2store.K2Error:
            # It expires by itself.
            return

    # ------------------------------------------------------------------- prefill by another

    @asynccontextmanager
    async def continued(
        self, worker: Worker, request: Request, *, keeps: bool
    ) -> AsyncIterator[Stream]:
        """The outcomes of a request whose prompt another worker computes, for ``async with``.

        keeps  what is here of the prompt is used, and not sent again

        Raises one of `FAILURES` before the block when that came to nothing; then nothing is left of it.
        """
        # A task of its own: a client that goes away does not end a link on which others have pages under way.
        asking = asyncio.get_running_loop().create_task(
            self._adoption(worker, request, keeps=keeps)
        )
        self._prefills.add(asking)
        asking.add_done_callback(self._prefills.discard)
        try:
            adoption = await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._spawn(self._give_up_when_asked(asking))
            raise
        try:
            async with self._pages.front.stream(adoption.adopt) as stream:
                yield stream
        finally:
            if not adoption.is_adopted:
                self._spawn(self._give_up(adoption))

    async def _adoption(self, worker: Worker, request: Request, *, keeps: bool) -> _Adoption:
        """Have another worker compute a prompt."""
        identity = self._tree.identity(worker)
        if identity is None:
            raise k2store.Unavailable(f"nobody knows {worker}")
        self.counts.prefills_asked += 1
        way = await self._links.to(worker, identity.endpoints)
        # At least one page is to come, and the first token with it.
        held = await self._pages.acquire(request.tokens[:-1] if keeps else ())
        slots: tuple[Slot, ...] = ()
        try:
            count = self._pages.count(len(request.tokens)) - len(held.pages)
            slots = await self._room_for_peers(count)
            ready = await self._prefill(way, request, len(held.pages), slots)
        except BaseException:
            self._spawn(self._abandon(way.peer, held, slots))
            raise
        self.counts.prompt_tokens_cached += ready.cached
        self.counts.prompt_tokens_computed += ready.computed
        return _Adoption(self._pages, self.returning, worker, request, ready, held, slots)

    async def _give_up_when_asked(self, asking: asyncio.Task[_Adoption]) -> None:
        """Nobody waits for a prompt any more that is being computed."""
        try:
            adoption = await asking
        except FAILURES:
            # Then nothing is left of it.
            return
        await self._give_up(adoption)

    async def _give_up(self, adoption: _Adoption) -> None:
        """A prompt that was computed is not wanted any more. Asks again, behind whatever was on its way."""
        await self._pages.front.call(adoption.drop)

    async def _prefill(
        self, way: Way, request: Request, start: int, slots: Sequence[Slot]
    ) -> Ready:
        ticket = self._links.ticket()
        sampling = msgspec.msgpack.encode(request.sampling)
        question = Prefill(ticket, request.tokens, start, addresses(slots), sampling)
        try:
            answer = await self._links.ask(way, question, self._limits.prefill_s)
        except (k2store.Deadline, asyncio.CancelledError):
            # It may be writing at this moment, and may not when the pages are somebody else's.
            way.peer.link.close(PeerLost("a prefill was given up"))
            raise
        if not isinstance(answer, Ready):
            raise k2store.Unavailable(f"{way.peer.name} answers something else")
        return answer

    async def _abandon(self, peer: Peer, held: Held, slots: Sequence[Slot]) -> None:
        """Free what was held for a prefill, when nobody can write there any more."""
        if slots and peer.is_lost:
            await peer.gone.wait()
        await self._pages.give_back(slots)
        await self._pages.release(held.pages)

    async def _room_for_peers(self, count: int) -> tuple[Slot, ...]:
        try:
            return await self._pages.take_for_peers(count)
        except k2store.Overloaded:
            await self._residency.shed(count)
            return await self._pages.take_for_peers(count)

    # ------------------------------------------------------------------------------- pushing

    async def push(self, worker: Worker, tokens: Sequence[int], *, returns: bool = False) -> int:
        """Send what is here of the whole blocks of some tokens to another worker's cache; gives how many went.

        That is MemServe's ``transfer_with_insert``: they are there, then found there. Raises one of `FAILURES`.
        """
        held = await self._pages.acquire(tokens)
        try:
            return await self._push(worker, tokens, held.pages, returns=returns)
        finally:
            await self._pages.release(held.pages)

    async def _push(
        self, worker: Worker, tokens: Sequence[int], slots: Sequence[Slot], *, returns: bool
    ) -> int:
        identity = self._tree.identity(worker)
        if identity is None or not slots:
            return 0
        way = await self._links.to(worker, identity.endpoints)
        whole = tuple(tokens[: len(slots) * self._pages.page_tokens])
        offer = Offer(self._links.ticket(), whole)
        answer = await self._links.ask(way, offer, self._limits.question_s)
        if not isinstance(answer, Granted):
            raise k2store.Unavailable(f"{way.peer.name} answers something else")
        wanted = slots[answer.start : answer.start + len(answer.pages)]
        if not wanted:
            return 0
        pairs = list(zip(local(wanted), answer.pages, strict=False))
        done = encode(Complete(offer.ticket))
        await way.endpoint.write(way.peer, pairs, notify=done, mode=self._mode)
        self.counts.sent_blocks += len(pairs)
        if returns:
            self.counts.returned_blocks += len(pairs)
        return len(pairs)

    def give_back_later(self, worker: Worker, tokens: Sequence[int], slots: Sequence[Slot]) -> None:
        """Send the pages of an answer to who computed its prompt; they are held for that."""

        async def give_back() -> None:
            try:
                await self._push(worker, tokens, slots, returns=True)
            except FAILURES:
                # The next turn computes it, that is all.
                return
            finally:
                await self._pages.release(slots)

        self._spawn(give_back())

    async def migrate(self, worker: Worker, tokens: Sequence[int]) -> int:
        """Move the whole blocks of some tokens to another worker: there, seen there, then gone here.

        Gives how many went from here: what is claimed stays. There is no moment without a copy. Raises one of
        `FAILURES`, and then all of them are here as before.
        """
        whole = tokens[: len(tokens) // self._pages.page_tokens * self._pages.page_tokens]
        held = await self._pages.acquire(whole)
        try:
            names = held.chain.names
            if not names:
                return 0
            await self._push(worker, whole, held.pages, returns=False)
            async with asyncio.timeout(self._limits.offer_s):
                while self._tree.workers(self.namespace, names).get(worker, 0) < len(held.pages):
                    await self._tree.caught_up(self._tree.as_of + 1)
            return await self._residency.retire([names[:NAME_BYTES]])
        except TimeoutError:
            raise k2store.Deadline(f"{worker} has not published what it got") from None
        finally:
            await self._pages.release(held.pages)

    # ------------------------------------------------------------------------------- serving

    async def handle(self, way: Way, message: Message) -> None:
        """Answer what another worker asks."""
        try:
            match message:
                case Resolve(ticket=ticket, names=names):
                    await way.say(Located(ticket, self._residency.locate(names)))
                case Offer():
                    await self._serve_offer(way, message)
                case Complete(ticket=ticket):
                    await self._complete(way, ticket)
                case Prefill():
                    await self._serve_prefill(way, message)
                case Move():
                    await self._serve_move(way, message)
                case _:
                    way.peer.link.close(PeerLost("an answer is no question"))
        except PeerLost:
            # Who asked is gone; nothing of it is left here.
            return
        except k2store.K2Error as error:
            if isinstance(message, Offer | Prefill | Resolve | Move):
                try:
                    await way.say(refusal(message.ticket, error))
                except PeerLost:
                    return

    async def _serve_prefill(self, way: Way, asked: Prefill) -> None:
        """Compute a prompt, and write its pages where they are wanted."""
        if len(asked.pages) + asked.start != self._pages.count(len(asked.tokens)):
            raise k2store.Rejected("the pages are not those of the prompt", field="pages")
        try:
            sampling = msgspec.msgpack.decode(asked.sampling, type=Sampling)
        except msgspec.MsgspecError as error:
            raise k2store.Rejected(f"no sampling: {error}", field="sampling") from None
        # More than one token, so that it is parked with the first one and not ended by it.
        request = Request(tokens=asked.tokens, max_tokens=2, sampling=sampling, parks=True)
        async with self._pages.front.generate(request) as stream:
            outcome = await anext(aiter(stream))
            assert outcome.token is not None, "a prompt is followed by a token"
            pages = self.parked.pages(stream.number)[asked.start :]
            usage = outcome.usage
            ready = Ready(asked.ticket, outcome.token, usage.cached, usage.prompt - usage.cached)
            pairs = list(zip(local(pages), asked.pages, strict=True))
            await way.endpoint.write(way.peer, pairs, notify=encode(ready), mode=self._mode)
            await self._pages.front.call(lambda engine: engine.release(stream.number))
        self.counts.prefills_served += 1
        self.counts.sent_blocks += len(pairs)

    async def _serve_move(self, way: Way, asked: Move) -> None:
        """Move blocks to another worker because somebody wants them there."""
        blocks = await self.migrate(worker_named(asked.to), asked.tokens)
        await way.say(Moved(asked.ticket, blocks))

    async def _serve_offer(self, way: Way, offer: Offer) -> None:
        """Make room for what is offered and is not here."""
        blocks = len(offer.tokens) // self._pages.page_tokens
        held = await self._pages.acquire(offer.tokens)
        slots: tuple[Slot, ...] = ()
        try:
            if held.chain.blocks < blocks:
                slots = await self._room_for_peers(blocks - held.chain.blocks)
            if slots:
                timer = asyncio.get_running_loop().call_later(
                    self._limits.offer_s, self._give_up_offer, way
                )
                self._granted[way.peer, offer.ticket] = _Granting(offer.tokens, held, slots, timer)
        except BaseException:
            self._spawn(self._pages.release(held.pages))
            raise
        if not slots:
            await self._pages.release(held.pages)
        await way.say(Granted(offer.ticket, held.chain.blocks, addresses(slots)))

    async def _complete(self, way: Way, ticket: int) -> None:
        """What was offered is here, checked: it goes into the cache, and from there into the directory."""
        granting = self._granted.pop((way.peer, ticket), None)
        if granting is None:
            return
        granting.timer.cancel()
        await self._pages.insert(granting.tokens, granting.held.chain.blocks, granting.slots)
        await self._pages.release(granting.held.pages)

    def _give_up_offer(self, way: Way) -> None:
        """What was offered does not come. Its pages are free when the peer is gone."""
        way.peer.link.close(PeerLost("pages that were offered did not come"))

    def _lost(self, peer: Peer) -> None:
        """Nothing of a peer will be written any more: what it was to fill is free."""
        for key in [key for key in self._granted if key[0] is peer]:
            granting = self._granted.pop(key)
            granting.timer.cancel()
            self._spawn(self._free(granting))

    async def _free(self, granting: _Granting) -> None:
        await self._pages.give_back(granting.slots)
        await self._pages.release(granting.held.pages)

    def _spawn(self, work: Coroutine[object, object, T]) -> None:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


async def _quietly(work: Coroutine[object, object, T]) -> None:
    """Clear up behind something; while the engine closes there is nothing to clear up any more."""
    try:
        await work
    except k2store.Unavailable:
        return
