"""One worker: model, pages, engine, endpoints, its life in the directory, and what ties them together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import torch
from msgspec import Struct
from torch import Tensor

import k2store
from kv_pool.blocks import NAME_BYTES, Names, chain
from kv_pool.edge.journal import Recording
from kv_pool.edge.pool import Pool
from kv_pool.keys import Worker
from kv_pool.namespace import Namespace
from serving.attention import Attention, Batch, PagedAttention, Part
from serving.engine.assembly import Tiers, geometry_of, retention_of, stores_of
from serving.engine.engine import Attend, Decode, Engine
from serving.engine.front import Front, Stream
from serving.engine.request import Finish, Request
from serving.engine.sequence import Phase
from serving.engine.sequence import Sequence as Running
from serving.engine.settings import EngineSettings
from serving.instance.economy import Economy
from serving.instance.exchange import FAILURES, Exchange, ExchangeLimits
from serving.instance.links import Links, Way
from serving.instance.messages import Message
from serving.instance.pages import EnginePages
from serving.instance.place import Place, place_of
from serving.instance.residency import Residency
from serving.instance.service import Service
from serving.instance.steps import Role, Step
from serving.linking.linker import Linker
from serving.linking.naming import chunk_namespace
from serving.pages.geometry import PAGE_TOKENS, Geometry
from serving.pages.mem_pool import MemPool
from serving.sparse.choice import policy_named
from serving.sparse.publication import residency_namespace
from serving.transport import Endpoint, Limits, Memory, Mode, SharedCarrier, TcpCarrier
from serving.transport import Geometry as MemoryGeometry

if TYPE_CHECKING:
    from kv_pool.edge.following import Tree
    from kv_pool.edge.journal import Journal
    from kv_pool.edge.session import WorkerSession
    from serving.model.llama import Llama
    from serving.sparse.policies import Policy

_PRESSURE_S: Final = 0.1
"""How often it is looked whether somebody waits for pages that only the directory holds."""
_SHED_MIN: Final = 16
_PROBE_TOKENS: Final = 64


class InstanceSettings(Struct, frozen=True, kw_only=True):
    """What a worker is told.

    region, name    who it is; its rows are at home in its region
    regions         all of them, each followed by itself: none that is cut off keeps news of others back
    role, step      what it does, and who keeps what where prefill and decode are apart
    pages           on the device; host_pages below them
    published_share of the device's pages that the directory may hold at a time
    listen          ``host:port`` for pages; port 0 for any. advertise: the host that others are told
    dial            workers that are reached elsewhere than they say: both as ``host:port``
    shares_memory   pages go over shared memory to workers of this machine
    mode            how what it reads and writes is cut into calls
    fetches         prefixes that other workers have are fetched where that pays
    lease_s         how long the worker counts as alive without a word, seconds
    prefill_tokens_per_s  how fast it computes prompts; 0: as is found out
    link            of prompts that come in chunks, so many rows of each are computed anew and the rest is
                    linked (`serving.linking`); None: they are computed like any other
    retain, budget  answers are decoded under this policy (`serving.sparse.choice`); empty: all is kept
    """

    region: str
    name: str
    regions: tuple[str, ...] = ()
    role: Role = Role.COLOCATED
    step: Step = Step.CACHING_3
    pages: int = 256
    host_pages: int = 0
    published_share: float = 0.5
    listen: str = "127.0.0.1:0"
    advertise: str = ""
    dial: dict[str, str] = {}
    shares_memory: bool = True
    mode: Mode = Mode.AGGREGATED
    fetches: bool = True
    lease_s: float = 3.0
    prefill_tokens_per_s: float = 0.0
    link: int | None = None
    retain: str = ""
    budget: int = 0
    engine: EngineSettings = EngineSettings()
    limits: ExchangeLimits = ExchangeLimits()
    transport: Limits = Limits()

    def check(self) -> None:
        """`k2store.Rejected` for a worker that could not work."""
        if self.pages < 2 or self.host_pages < 0:
            raise k2store.Rejected("a worker has at least two pages", field="pages")
        if self.link is not None and self.link < 0:
            raise k2store.Rejected("rows to compute anew are at least none", field="link")
        if self.link is not None and not self.keeps:
            raise k2store.Rejected("who keeps nothing has nothing to link", field="link")
        self.policy()
        if not 0.0 < self.published_share < 1.0:
            raise k2store.Rejected(
                "some pages are published, and some stay for what runs", field="published_share"
            )

    def policy(self) -> Policy | None:
        """What answers are decoded under; `k2store.Rejected` for a policy that is none."""
        if self.retain:
            return policy_named(self.retain, self.budget, PAGE_TOKENS)
        if self.budget:
            raise k2store.Rejected("a budget is one of a policy", field="budget")
        return None

    @property
    def keeps(self) -> bool:
        """Whether pages are kept when a request is through."""
        match self.role:
            case Role.COLOCATED:
                return True
            case Role.PREFILL:
                return self.step.prefill_keeps
            case Role.DECODE:
                return self.step.decode_keeps


class Instance:
    """See the package; made by `open_instance`."""

    def __init__(
        self,
        settings: InstanceSettings,
        pool: Pool,
        tree: Tree,
        session: WorkerSession,
        front: Front,
        mem_pool: MemPool,
        exchange: Exchange,
        residency: Residency,
        economy: Economy,
        links: Links,
        linker: Linker | None,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.tree = tree
        self.session = session
        self.front = front
        self.mem_pool = mem_pool
        self.exchange = exchange
        self.residency = residency
        self.economy = economy
        self.links = links
        self._linker = linker
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.active = 0

    @property
    def failure(self) -> k2store.K2Error | None:
        """Why nothing can be answered any more."""
        return self.front.failure

    @property
    def worker(self) -> Worker:
        """Its name in the directory."""
        return self.session.worker

    def names(self, tokens: Sequence[int]) -> Names:
        """Names of the whole blocks of some tokens."""
        root = self.mem_pool.empty_chain.tail
        return chain(root, tokens, self.mem_pool.page_tokens).names

    @asynccontextmanager
    async def generate(
        self,
        request: Request,
        prefill: Worker | None = None,
        generated: Sequence[int] = (),
    ) -> AsyncIterator[Stream]:
        """The outcomes of a request, for ``async with``; leaving the block cancels it.

        prefill    who is to compute the prompt for a decode worker; by default who has most of it
        generated  tokens that another worker has told already: the outcomes are those behind them
        """
        if self._linker is not None and request.chunks:
            for names in self._linker.chunk_names(request.tokens, request.chunks):
                self.residency.use(names)
        else:
            self.residency.use(self.names(request.tokens))
        self.active += 1
        try:
            async with AsyncExitStack() as stack:
                yield await self._begin(stack, request, prefill, generated)
        finally:
            self.active -= 1

    async def _begin(
        self,
        stack: AsyncExitStack,
        request: Request,
        prefill: Worker | None,
        generated: Sequence[int],
    ) -> Stream:
        links = self._linker is not None and bool(request.chunks)
        if self.settings.role is Role.DECODE and not links and not generated:
            worker = prefill or self._prefill_worker(self.names(request.tokens))
            if worker is not None:
                try:
                    return await stack.enter_async_context(
                        self.exchange.continued(worker, request, keeps=self.settings.keeps)
                    )
                except FAILURES:
                    # The prompt is computed here then: slower, and right.
                    self.exchange.counts.prefills_failed += 1
        return await stack.enter_async_context(
            self.front.stream(lambda engine: engine.submit(request, generated))
        )

    def _prefill_worker(self, names: Names) -> Worker | None:
        """A prefill worker of this region: who has most of the prompt, then by name."""
        depths = self.tree.workers(self.exchange.namespace, names)
        found = [
            worker
            for worker in self.tree.known_workers()
            if worker.region == self.worker.region and self.role_of(worker) is Role.PREFILL
        ]
        return min(found, key=lambda one: (-depths.get(one, 0), str(one)), default=None)

    def role_of(self, worker: Worker) -> Role | None:
        """What a worker does, by the directory; None where that is not known."""
        place = place_of(self.tree.identity(worker))
        return None if place is None else place.role

    async def idle(self) -> None:
        """Return when all that was computed so far is published."""
        await self.exchange.settled()
        await self.residency.settled()

    async def check_integrity(self) -> None:
        """No page is lost: all are free, cached, held for the directory, or some sequence's. For idle moments."""
        await self.idle()
        published = self.residency.blocks

        def check(engine: Engine) -> None:
            engine.pool.check_integrity()
            census = engine.pool.census()
            running = engine.sequences()
            assert sum(running.values()) == 0, "an idle moment"
            assert census.taken == 0, "nobody fills pages"
            assert census.held == published, "what is held is held for the directory"

        await self.front.call(check)

    def fail(self, error: BaseException) -> None:
        """The worker cannot go on."""
        if not self.failed.done():
            self.failed.set_result(error)


class _Coupling:
    """What the engine tells in its thread: who finishes, who parks, who could use pages from elsewhere."""

    def __init__(self, settings: InstanceSettings, mem_pool: MemPool, residency: Residency) -> None:
        self._settings = settings
        self._mem_pool = mem_pool
        self._residency = residency
        self._loop = asyncio.get_running_loop()
        self._exchange: Exchange | None = None

    def attach(self, exchange: Exchange) -> None:
        """Who moves the pages."""
        self._exchange = exchange

    @property
    def exchange(self) -> Exchange:
        """See `attach`."""
        assert self._exchange is not None, "it was attached"
        return self._exchange

    def on_prefill_done(self, sequence: Running) -> None:
        """The pages of a prompt for somebody else are noted; what computing took teaches the cost model."""
        if sequence.request.parks:
            self.exchange.parked.note(sequence.number, sequence.pages)
        self._seen(sequence)
        began_s = self.exchange.began_s.pop(sequence.number, None)
        if began_s is not None:
            took_s = time.perf_counter() - began_s
            computed = sequence.prompt_tokens - (sequence.cached or 0)
            self._loop.call_soon_threadsafe(self.exchange.economy.computed, computed, took_s)

    def on_finish(self, sequence: Running, finish: Finish) -> None:
        """The pages of an answer go back to who computed the prompt, if that is the arrangement."""
        self.exchange.parked.forget(sequence.number)
        self.exchange.began_s.pop(sequence.number, None)
        self._seen(sequence)
        worker = self.exchange.returning.pop(sequence.number, None)
        if worker is None or finish is Finish.CANCELLED or not self._settings.step.decode_returns:
            return
        pages = tuple(sequence.pages[: sequence.chain.blocks])
        self._mem_pool.hold(pages)
        tokens = tuple(sequence.tokens[: len(pages) * self._mem_pool.page_tokens])
        self._loop.call_soon_threadsafe(self.exchange.give_back_later, worker, tokens, pages)

    def _seen(self, sequence: Running) -> None:
        """What a sequence has used is in the directory again, should it have left it."""
        chained = sequence.chain
        self._residency.seen(chained.names, sequence.pages[: chained.blocks])

    def wants(self, number: int, tokens: tuple[int, ...], names: Names, held: int) -> bool:
        """Whether a sequence waits until it was looked whether somebody else has more of its prompt."""
        if not self._settings.fetches or len(names) <= held * NAME_BYTES:
            return False
        self._loop.call_soon_threadsafe(self.exchange.fetch_for, number, tokens, names, held)
        return True

    def wants_chunks(self, number: int, chunks: Sequence[tuple[int, ...]]) -> bool:
        """Whether a sequence waits until it was looked whether somebody else has compiled chunks of it."""
        if not self._settings.fetches:
            return False
        self._loop.call_soon_threadsafe(self.exchange.fetch_chunks_for, number, chunks)
        return True


@asynccontextmanager
async def open_instance(
    db: k2store.Database,
    settings: InstanceSettings,
    model: Llama,
    *,
    namespace: Namespace,
    http: str = "",
    decode: Decode | None = None,
    journal: Journal | None = None,
) -> AsyncIterator[Instance]:
    """A worker, registered and serving pages, until the block is left; then its life ends.

    namespace  what must be equal for its pages to be somebody else's
    http       where its HTTP interface listens, for its row
    journal    takes down what is asked of the directory, and what it answers
    """
    settings.check()
    config = model.config
    geometry = geometry_of(model)
    piece_bytes = geometry.page_bytes // (2 * config.layers)
    memory = Memory(MemoryGeometry(settings.pages, geometry.page_bytes, piece_bytes))
    async with AsyncExitStack() as stack:
        stack.callback(memory.close)
        pool = await stack.enter_async_context(_pool(db, settings, journal))
        digest = await pool.declare(namespace)
        chunks = await _declare(pool, namespace, settings)
        economy = _economy(settings, model, geometry)
        name = Worker(settings.region, settings.name)
        services: list[Service] = []

        async def handle(way: Way, message: Message) -> None:
            await services[0].handle(way, message)

        endpoints = [
            await stack.enter_async_context(Endpoint(one, str(name), [memory], settings.transport))
            for one in _carriers(db, settings)
        ]
        links = Links(settings.region, endpoints, handle)
        place = Place(settings.role, http, links.addresses)
        session = pool.worker(settings.name, endpoints=place.endpoints(), ttl_s=settings.lease_s)
        published_max = max(1, int(settings.pages * settings.published_share))
        residency = Residency(session, digest, published_max, chunks)
        if journal is not None:
            journal.slots_of = residency.slots_of
        tiers = Tiers(device=settings.pages, host=settings.host_pages)
        mem_pool = MemPool(digest, stores_of(geometry, tiers, memory), watcher=residency)
        pages = EnginePages(mem_pool, memory)
        coupling = _Coupling(settings, mem_pool, residency)
        linker = None
        if settings.link is not None:
            linker = Linker(model, mem_pool, chunks, settings.link, residency.seen_chunk)
        policy = settings.policy()
        engine = Engine(
            model,
            mem_pool,
            _attend(model),
            vocabulary=config.vocabulary,
            context_tokens=config.context_tokens,
            settings=_engine_settings(settings),
            decode=decode,
            hooks=coupling,
            remote=coupling,
            linker=linker,
            retention=retention_of(model, mem_pool, namespace, policy, settings.engine),
        )
        tree = await stack.enter_async_context(
            pool.learner(regions=settings.regions, fragments=linker is not None)
        )
        exchange = Exchange(
            pool=pool,
            tree=tree,
            worker=name,
            namespace=digest,
            links=links,
            pages=pages,
            residency=residency,
            economy=economy,
            limits=settings.limits,
            mode=settings.mode,
            chunks=chunks,
        )
        coupling.attach(exchange)
        front = await stack.enter_async_context(Front(engine))
        pages.attach(front)
        await stack.enter_async_context(session)
        shared = (pool, tree, session, front, mem_pool)
        instance = Instance(settings, *shared, exchange, residency, economy, links, linker)
        services.append(Service(instance))
        links.when_lost(services[0].lost)
        residency.start(pages, instance.fail)
        stack.push_async_callback(residency.stop)
        links.start()
        stack.push_async_callback(links.stop)
        stack.push_async_callback(exchange.stop)
        watching = asyncio.get_running_loop().create_task(_watch(instance), name="worker watch")
        stack.push_async_callback(_end, watching)
        try:
            yield instance
        finally:
            await _leave(session)


def _pool(db: k2store.Database, settings: InstanceSettings, journal: Journal | None) -> Pool:
    pool = Pool(db, settings.region)
    if journal is not None:
        pool.store = Recording(pool.store, journal)
    return pool


async def _declare(pool: Pool, namespace: Namespace, settings: InstanceSettings) -> bytes:
    """Make the namespaces of inexact blocks known; gives that of compiled chunks, empty where nothing is linked."""
    policy = settings.policy()
    if policy is not None:
        await pool.declare(residency_namespace(namespace, policy))
    return b"" if settings.link is None else await pool.declare(chunk_namespace(namespace))


async def _watch(instance: Instance) -> None:
    """Fail when the worker's life is over; make room when somebody waits for pages that nobody uses here."""
    steps = -1
    while True:
        await asyncio.sleep(_PRESSURE_S)
        if instance.front.failure is not None:
            instance.fail(instance.front.failure)
            return
        if instance.session.lost.is_set():
            instance.fail(k2store.Expired("the directory has ended this worker's life"))
            return
        if not (instance.residency.blocks and instance.active):
            continue
        waiting, now = await instance.front.call(_standstill)
        if waiting and now == steps:
            try:
                await instance.residency.shed(max(_SHED_MIN, instance.settings.pages // 8))
            except k2store.K2Error:
                continue
        steps = now


def _standstill(engine: Engine) -> tuple[int, int]:
    """How many sequences wait, and how many steps were made so far."""
    return engine.sequences()[Phase.WAITING], engine.counts.steps


async def _leave(session: WorkerSession) -> None:
    """End the life at once; where that cannot be said, the lease ends it."""
    try:
        await session.leave()
    except k2store.K2Error:
        return


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _carriers(db: k2store.Database, settings: InstanceSettings) -> list[SharedCarrier | TcpCarrier]:
    """Shared memory first, where it may be used: its name is drawn, so that it leads nowhere else."""
    found: list[SharedCarrier | TcpCarrier] = []
    if settings.shares_memory:
        found.append(SharedCarrier(db.rng.getrandbits(128).to_bytes(16, "big").hex()))
    found.append(
        TcpCarrier(
            settings.listen,
            advertise=settings.advertise,
            dial=settings.dial,
            limits=settings.transport,
        )
    )
    return found


def _attend(model: Llama) -> Attend:
    def attend(pages: Tensor, batch: Batch) -> Attention:
        return PagedAttention(pages, batch, model.rotary)

    return attend


def _engine_settings(settings: InstanceSettings) -> EngineSettings:
    return msgspec.structs.replace(settings.engine, keeps_prefixes=settings.keeps)


def _economy(settings: InstanceSettings, model: Llama, geometry: Geometry) -> Economy:
    """What computing costs as it was told, or as is found out now and from then on."""
    rate = settings.prefill_tokens_per_s
    return Economy(
        geometry.page_bytes,
        geometry.page_tokens,
        rate or _tried(model, geometry),
        learns=not rate,
    )


@torch.inference_mode()
def _tried(model: Llama, geometry: Geometry) -> float:
    """Tokens of a prompt that are computed in a second, by computing one twice."""
    count = min(_PROBE_TOKENS, model.config.context_tokens)
    pages = -(-count // geometry.page_tokens)
    store = torch.zeros((pages, *geometry.page_shape), dtype=geometry.torch_dtype)
    part = Part.following(
        [token % model.config.vocabulary for token in range(count)], 0, range(pages)
    )
    batch = Batch.of([part], geometry.page_tokens)
    took_s = []
    for _ in range(2):
        began_s = time.perf_counter()
        model.forward(batch.token_ids, batch.positions, PagedAttention(store, batch, model.rotary))
        took_s.append(time.perf_counter() - began_s)
    return count / max(min(took_s), 1e-6)
