"""The control plane that another node keeps, reached over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import grpc
import grpc.aio

from k2store.control.channel import (
    DEADLINE_S,
    PAUSE_S,
    PAUSE_S_MAX,
    SILENCE_S_MAX,
    TRANSIENT,
    Life,
    channel,
)
from k2store.control.map import Map, decode, encode
from k2store.control.ports import MAP_CHANGED, MapChanged, check_ids
from k2store.errors import (
    Conflict,
    Deadline,
    K2Error,
    OutcomeUnknown,
    Overloaded,
    Rejected,
    Unavailable,
)
from k2store.rpc.status import from_rpc_error
from k2store.v1 import control_pb2, control_pb2_grpc

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")


class RemoteControl:
    """See :class:`k2store.control.ports.Control`."""

    def __init__(
        self,
        address: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        deadline_s: float = DEADLINE_S,
        silence_s_max: float = SILENCE_S_MAX,
    ) -> None:
        """`address`: `host:port` of the node that keeps it; nothing is sent before a call."""
        self.address = address
        self._channel = channel(address, credentials)
        self._stub = control_pb2_grpc.ControlServiceStub(self._channel)
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._deadline_s = deadline_s
        self._silence_s_max = silence_s_max
        self._life = Life()

    async def load(self) -> Map:
        """The present map."""
        answer = await self._asked(
            "load", lambda: self._begin(self._stub.Load, control_pb2.LoadRequest())
        )
        return decode(answer.map)

    async def update(self, wanted: Map) -> None:
        """Store the next map; an answer that does not come leaves the outcome unknown."""
        request = control_pb2.UpdateRequest(map=encode(wanted))
        self._life.check("update")
        try:
            await self._asked("update", lambda: self._begin(self._stub.Update, request))
        except Conflict as error:
            if error.rule == MAP_CHANGED:
                raise MapChanged(error.message) from error
            raise
        except Unavailable as error:
            raise OutcomeUnknown(
                f"{error.message}; the map of version {wanted.version} may or may not be stored"
            ) from error

    async def grant_epoch(self, partition: int, node: int, incarnation: bytes, above: int) -> int:
        """An epoch; one whose answer is lost is nobody's."""
        check_ids(partition, node, above)
        request = control_pb2.GrantEpochRequest(
            partition=partition, node=node, incarnation=incarnation, above=above
        )
        answer = await self._asked(
            "grant_epoch", lambda: self._begin(self._stub.GrantEpoch, request)
        )
        return int(answer.epoch)

    async def watch(self) -> AsyncIterator[Map]:
        """The present map and newer ones, over as many connections as it takes.

        Raises what no later attempt could mend: a missing permission, a map of unknown format.
        """
        told = -1
        pause_s = PAUSE_S
        while not self._life.over:
            try:
                async with aclosing(self._stream()) as maps:
                    async for found in maps:
                        pause_s = PAUSE_S
                        if found.version > told:
                            told = found.version
                            yield found
            except (Unavailable, Overloaded):
                pass
            await self._life.pause(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def close(self) -> None:
        """Close the connection."""
        await self._life.end()
        await self._channel.close()

    # ------------------------------------------------------------------------------- calls

    def _begin(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q
    ) -> grpc.aio.UnaryUnaryCall[Q, A]:
        return method(request, timeout=self._deadline_s, metadata=self._metadata)

    async def _stream(self) -> AsyncGenerator[Map, None]:
        """One stream of maps; it ends in Unavailable, or when nothing was heard for too long."""
        with self._life.stream(
            "watch",
            lambda: self._stub.WatchMap(control_pb2.WatchMapRequest(), metadata=self._metadata),
        ) as call:
            while True:
                try:
                    async with asyncio.timeout(self._silence_s_max):
                        answer = await self._asked("watch", call.read)
                except TimeoutError:
                    return  # The map does not change often: begin anew, and learn who is there.
                if not isinstance(answer, control_pb2.WatchMapResponse):
                    return  # The other side ended it.
                yield decode(answer.map)

    async def _asked(self, what: str, run: Callable[[], Awaitable[T]]) -> T:
        """What a call gives; failures as errors of the tree that say what was asked of whom."""
        try:
            return await self._life.call(what, run)
        except grpc.RpcError as failure:
            error = self._told(what, failure)
            raise error from failure

    def _told(self, what: str, failure: grpc.RpcError) -> K2Error:
        if failure.code() is grpc.StatusCode.UNIMPLEMENTED:
            return Rejected(
                f"the node at {self.address} keeps no control plane (cluster.control)",
                field="cluster.control",
            )
        error = from_rpc_error(failure)
        broken = type(error) is K2Error and failure.code() in TRANSIENT
        if broken or isinstance(error, Unavailable | Deadline):
            return Unavailable(
                f"the control plane at {self.address} did not answer {what}: {failure.details()}"
            )
        return error
