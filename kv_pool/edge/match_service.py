"""PoolService: a node answers what a prompt finds in the pool, for callers without a learner of their own.

::

    thin client ──Match, Cover──▶ node: Tree (all regions, local replicas) ──hint, as of──▶
         └──────────────── acquire, with the rows of Cover ──▶ the worker's partition: a claim

The node has one learner, that follows each region by itself. It is opened when the store answers and opened
anew when regions have come or gone; the old one answers meanwhile. Before the first one stands, callers are
told to come again.
"""

# ruff: noqa: N802 - gRPC names the methods

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc.aio

import k2store
from k2store.rpc.status import abort
from k2store.v1 import pool_pb2, pool_pb2_grpc
from kv_pool.blocks import NAME_BYTES
from kv_pool.edge.pool import Pool
from kv_pool.keys import Worker
from kv_pool.namespace import DIGEST_BYTES
from kv_pool.records import ENCODE

if TYPE_CHECKING:
    from kv_pool.edge.following import Tree
    from kv_pool.learner import Holder

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]

SERVICE: Final[str] = pool_pb2.DESCRIPTOR.services_by_name["PoolService"].full_name
LOOK_S: Final = 0.5
"""How often it is looked whether the learner lives and follows the regions that there are."""
WAIT_S: Final = 5.0
"""How long a call without a deadline waits for an answer as fresh as it asks for, at most."""
BLOCKS_MAX: Final = 65_536
"""Names in one question: 1 MiB."""
PARTS_MAX: Final = 64


class MatchService(pool_pb2_grpc.PoolServiceServicer):
    """See the module; `regions` tells which there are, and may change its mind."""

    service: Final = SERVICE

    def __init__(
        self, database: k2store.Database, region: str, regions: Callable[[], Sequence[str]]
    ) -> None:
        self._database = database
        self._region = region
        self._regions = regions
        self._tree: Tree | None = None
        self._trouble: k2store.K2Error | None = None
        self._task: asyncio.Task[None] | None = None

    def add(self, server: grpc.aio.Server) -> None:
        """Let a server serve this."""
        pool_pb2_grpc.add_PoolServiceServicer_to_server(self, server)

    async def __aenter__(self) -> MatchService:
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="pool of the node")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # ---------------------------------------------------------------------------- methods

    async def Match(
        self, request: pool_pb2.MatchRequest, context: Context
    ) -> pool_pb2.MatchResponse:
        """How much of a prompt is held, and by whom."""

        async def match() -> pool_pb2.MatchResponse:
            if not 1 <= len(request.parts) <= PARTS_MAX:
                raise k2store.Rejected(f"a prompt has 1 to {PARTS_MAX} parts", field="parts")
            parts = [_part(part) for part in request.parts]
            tree = await self._fresh(request.freshness, context)
            if request.longest_only and len(parts) == 1:
                longest = tree.longest(*parts[0])
                depths = dict.fromkeys(longest.holders, longest.blocks)
                blocks, as_of = longest.blocks, longest.as_of
            else:
                try:
                    found = tree.match_across(parts) if len(parts) > 1 else tree.match(*parts[0])
                except ValueError as error:
                    raise k2store.Rejected(str(error), field="parts") from None
                depths, blocks, as_of = found.depths, found.blocks, found.as_of
                if request.longest_only:
                    depths = dict.fromkeys(found.holders, blocks)
            return pool_pb2.MatchResponse(
                blocks=blocks,
                holders=[_holder(holder, depth) for holder, depth in _longest_first(depths)],
                as_of=as_of,
                staleness_us=_staleness_us(tree),
            )

        return await _answer(context, match)

    async def Cover(
        self, request: pool_pb2.CoverRequest, context: Context
    ) -> pool_pb2.CoverResponse:
        """The rows to claim."""

        async def cover() -> pool_pb2.CoverResponse:
            try:
                worker = Worker(request.region, request.worker)
            except ValueError as error:
                raise k2store.Rejected(str(error), field="worker") from None
            namespace, names = _part(request.part)
            tree = await self._fresh(request.freshness, context)
            answer = pool_pb2.CoverResponse(as_of=tree.as_of, staleness_us=_staleness_us(tree))
            found = tree.cover(worker, namespace, names)
            if found is not None:
                answer.identity = ENCODE(found.identity)
                for piece in found.pieces:
                    answer.pieces.add(
                        tier=piece.tier,
                        start=piece.start,
                        blocks=piece.blocks,
                        run=ENCODE(piece.run),
                    )
            return answer

        return await _answer(context, cover)

    async def Find(self, request: pool_pb2.FindRequest, context: Context) -> pool_pb2.FindResponse:
        """Where blocks with some tokens lie."""

        async def find() -> pool_pb2.FindResponse:
            content = _names(request.content, "content")
            tree = await self._fresh(request.freshness, context)
            answer = pool_pb2.FindResponse(as_of=tree.as_of, staleness_us=_staleness_us(tree))
            for at in range(0, len(content), NAME_BYTES):
                blocks = answer.fragments.add().blocks
                for one in tree.fragments(content[at : at + NAME_BYTES]):
                    blocks.add(
                        region=one.holder.worker.region,
                        worker=one.holder.worker.name,
                        tier=one.holder.tier,
                        namespace=one.namespace,
                        first=one.first,
                        offset=one.offset,
                        depth=one.depth,
                    )
            return answer

        return await _answer(context, find)

    # ------------------------------------------------------------------------------ inside

    async def _fresh(self, wanted: pool_pb2.PoolFreshness, context: Context) -> Tree:
        """The learner, once it is as fresh as was asked for."""
        tree = self._tree
        if tree is None:
            why = "" if self._trouble is None else f": {self._trouble}"
            raise k2store.Unavailable(
                f"the node's learner is not there yet{why}", retry_after_s=LOOK_S
            )
        # None where the caller has set no deadline, whatever the stubs say.
        timeout_s = min(context.time_remaining() or WAIT_S, WAIT_S)
        if wanted.since:
            await tree.caught_up(wanted.since, timeout=timeout_s)
        if wanted.max_staleness_ms:
            await tree.within(wanted.max_staleness_ms / 1000, timeout=timeout_s)
        return tree

    async def _follow(self) -> None:
        """Keep a learner of the regions that there are."""
        held: AsyncExitStack | None = None
        followed: tuple[str, ...] = ()
        try:
            while True:
                regions = tuple(sorted({self._region, *self._regions()}))
                broken = self._tree is None or self._tree.failure is not None
                if broken or regions != followed:
                    opened = AsyncExitStack()
                    try:
                        tree = await self._open(opened, regions)
                    except k2store.K2Error as error:
                        # The store answers nobody yet; the one that is there goes on.
                        self._trouble = error
                        await opened.aclose()
                    else:
                        self._tree, followed = tree, regions
                        if held is not None:
                            await held.aclose()
                        held = opened
                await asyncio.sleep(LOOK_S)
        finally:
            self._tree = None
            if held is not None:
                await held.aclose()

    async def _open(self, opened: AsyncExitStack, regions: Sequence[str]) -> Tree:
        pool = await opened.enter_async_context(Pool(self._database, self._region, name="node"))
        learner = pool.learner(regions=regions, fragments=True)
        return await opened.enter_async_context(learner)


def _longest_first(depths: dict[Holder, int]) -> list[tuple[Holder, int]]:
    return sorted(
        depths.items(), key=lambda item: (-item[1], str(item[0].worker), int(item[0].tier))
    )


def _holder(holder: Holder, blocks: int) -> pool_pb2.PoolHolder:
    worker = holder.worker
    return pool_pb2.PoolHolder(
        region=worker.region, worker=worker.name, tier=holder.tier, blocks=blocks
    )


def _part(part: pool_pb2.PoolPart) -> tuple[bytes, bytes]:
    if len(part.namespace) != DIGEST_BYTES:
        raise k2store.Rejected(f"a namespace has {DIGEST_BYTES} bytes", field="namespace")
    return part.namespace, _names(part.names, "names")


def _names(packed: bytes, field: str) -> bytes:
    if not packed or len(packed) % NAME_BYTES or len(packed) > BLOCKS_MAX * NAME_BYTES:
        raise k2store.Rejected(
            f"1 to {BLOCKS_MAX} names of {NAME_BYTES} bytes each are asked about", field=field
        )
    return packed


def _staleness_us(tree: Tree) -> int:
    return math.ceil(tree.staleness_s * 1e6)


async def _answer(context: Context, answer: Callable[[], Awaitable[T]]) -> T:
    try:
        return await answer()
    except k2store.K2Error as error:
        await abort(context, error)
        raise AssertionError("gRPC's abort raises") from error
