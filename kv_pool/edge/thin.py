"""What a prompt finds in the pool, asked of a node: for processes that hold no learner of their own.

::

    async with ThinMatcher("fra-1:7400") as matcher:
        match = await matcher.match([(namespace, names)], max_staleness="100ms")
        cover = await matcher.cover(match.holders[0].worker, namespace, names)
        async with pool.claim(cover) as claim:
            ...

One round trip a question and no state here; whoever asks often holds a learner (`Pool.learner`) and is answered
in microseconds. Like a learner's, the answers are hints. The node must serve them (`node.services = "pool"`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import grpc
import grpc.aio
from msgspec import Struct

import k2store
from k2store.client.address import parse
from k2store.client.connect import Tls
from k2store.client.settings import Span, seconds
from k2store.rpc.status import from_rpc_error
from k2store.v1 import pool_pb2, pool_pb2_grpc
from kv_pool.blocks import NAME_BYTES, Names
from kv_pool.keys import Worker
from kv_pool.learner import Cover, Piece
from kv_pool.records import Id, decode, decode_run

TIMEOUT_S: Final = 5.0
NOT_SERVED: Final = "node.services"
"""Field of the `Rejected` that a node without the service is answered for."""


class HeldBy(Struct, frozen=True):
    """A worker's tier, and how many blocks it has of a prompt's beginning."""

    worker: Worker
    tier: int
    blocks: int


class ThinMatch(Struct, frozen=True):
    """How much of a prompt is held, those with most of it first: a hint, as of a stamp.

    staleness_s  by how much the answer lagged behind when the node gave it, at most
    """

    blocks: int
    holders: tuple[HeldBy, ...]
    as_of: int
    staleness_s: float


class FoundAt(Struct, frozen=True):
    """A block by its content: see `kv_pool.fragments.Fragment`."""

    worker: Worker
    tier: int
    namespace: bytes
    first: bytes
    offset: int
    depth: int


class ThinMatcher:
    """See the module.

    address  of nodes, ``k2://host:port,...`` or ``host:port,...``: gRPC goes to one that answers
    tls      as for `k2store.connect`; None for plain text
    token    bearer token
    timeout  of a question, unless it says otherwise
    """

    def __init__(
        self,
        address: str,
        *,
        tls: Tls | None = None,
        token: str | None = None,
        timeout: Span = TIMEOUT_S,
    ) -> None:
        self._nodes = parse(address)
        self._tls = tls
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._timeout_s = seconds(timeout)
        self._channels: list[grpc.aio.Channel] = []
        self._stubs: list[pool_pb2_grpc.PoolServiceAsyncStub] = []

    async def __aenter__(self) -> ThinMatcher:
        for node in self._nodes:
            channel = self._channel(node)
            self._channels.append(channel)
            stub = pool_pb2_grpc.PoolServiceStub(channel)
            self._stubs.append(stub)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for channel in self._channels:
            await channel.close()
        self._channels, self._stubs = [], []

    async def match(
        self,
        parts: Sequence[tuple[bytes, Names]],
        *,
        max_staleness: Span | None = None,
        since: int = 0,
        longest_only: bool = False,
        timeout: Span | None = None,
    ) -> ThinMatch:
        """How much of a prompt is held, and by whom.

        parts          namespace and names; more than one where it begins in a namespace that others share
        max_staleness  wait until the answer lags behind by no more; None: at once, however old
        since          wait until it shows this stamp, such as that of a publish of one's own
        longest_only   only who has the longest prefix

        Raises `Deadline` when it takes too long to be as fresh, `Unavailable` when no node answers or none of
        them has its learner yet, `Rejected` for what is no such question and for nodes that do not serve it.
        """
        request = pool_pb2.MatchRequest(
            parts=[
                pool_pb2.PoolPart(namespace=namespace, names=names) for namespace, names in parts
            ],
            freshness=_freshness(max_staleness, since),
            longest_only=longest_only,
        )
        answer: pool_pb2.MatchResponse = await self._ask("Match", request, timeout)
        holders = [
            HeldBy(Worker(one.region, one.worker), one.tier, one.blocks) for one in answer.holders
        ]
        return ThinMatch(answer.blocks, tuple(holders), answer.as_of, answer.staleness_us / 1e6)

    async def cover(
        self,
        worker: Worker,
        namespace: bytes,
        names: Names,
        *,
        max_staleness: Span | None = None,
        since: int = 0,
        timeout: Span | None = None,
    ) -> Cover | None:
        """The rows to claim, for `kv_pool.edge.Pool.acquire`; None when there is nothing to be claimed."""
        request = pool_pb2.CoverRequest(
            region=worker.region,
            worker=worker.name,
            part=pool_pb2.PoolPart(namespace=namespace, names=names),
            freshness=_freshness(max_staleness, since),
        )
        answer: pool_pb2.CoverResponse = await self._ask("Cover", request, timeout)
        if not answer.pieces:
            return None
        pieces = []
        for piece in answer.pieces:
            run = decode_run(piece.run)
            first = run.names[:NAME_BYTES]
            pieces.append(Piece(namespace, piece.tier, first, piece.start, piece.blocks, run))
        blocks = pieces[-1].start + pieces[-1].blocks
        return Cover(worker, decode(Id, answer.identity), blocks, tuple(pieces))

    async def find(
        self,
        content: Names,
        *,
        max_staleness: Span | None = None,
        since: int = 0,
        timeout: Span | None = None,
    ) -> list[tuple[FoundAt, ...]]:
        """Where blocks with some tokens lie, whatever is before them: for each content name its places."""
        request = pool_pb2.FindRequest(content=content, freshness=_freshness(max_staleness, since))
        answer: pool_pb2.FindResponse = await self._ask("Find", request, timeout)
        return [
            tuple(
                FoundAt(
                    Worker(one.region, one.worker),
                    one.tier,
                    one.namespace,
                    one.first,
                    one.offset,
                    one.depth,
                )
                for one in places.blocks
            )
            for places in answer.fragments
        ]

    # ------------------------------------------------------------------------------ inside

    async def _ask(self, method: str, request: object, timeout: Span | None) -> Any:
        """The first node that answers; what a node says stands, unless it has nothing to say."""
        if not self._stubs:
            raise k2store.Rejected(
                "open the matcher first: async with ThinMatcher(address)", field="matcher"
            )
        loop = asyncio.get_running_loop()
        until_s = loop.time() + (self._timeout_s if timeout is None else seconds(timeout))
        failure: k2store.K2Error | None = None
        for stub in self._stubs:
            call = getattr(stub, method)
            try:
                return await call(
                    request, timeout=max(0.0, until_s - loop.time()), metadata=self._metadata
                )
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    raise k2store.Rejected(
                        'the node does not answer questions about the pool: node.services = "pool"',
                        field=NOT_SERVED,
                    ) from None
                failure = from_rpc_error(error)
                if not isinstance(failure, k2store.Unavailable):
                    raise failure from None
        assert failure is not None, "an address names a node"
        raise failure

    def _channel(self, node: str) -> grpc.aio.Channel:
        tls = self._tls
        if tls is None:
            return grpc.aio.insecure_channel(node)
        authority, key, chain = [
            None if name is None else Path(name).read_bytes()
            for name in (tls.authority, tls.key, tls.certificate)
        ]
        return grpc.aio.secure_channel(node, grpc.ssl_channel_credentials(authority, key, chain))


def _freshness(max_staleness: Span | None, since: int) -> pool_pb2.PoolFreshness:
    most_ms = 0 if max_staleness is None else max(1, math.ceil(seconds(max_staleness) * 1_000))
    return pool_pb2.PoolFreshness(max_staleness_ms=most_ms, since=since)
