"""ControlService: a node's own control plane for the other nodes and for operators."""

# ruff: noqa: N802 - gRPC names the methods

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc.aio

from k2store.control.map import decode, encode
from k2store.control.ports import Control
from k2store.errors import Corruption, K2Error, Rejected
from k2store.rpc.identity import node_of
from k2store.rpc.status import abort
from k2store.v1 import control_pb2, control_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")


class ControlMethods(control_pb2_grpc.ControlServiceServicer):
    """The methods of ControlService over any control plane."""

    def __init__(self, control: Control, *, certified: bool = False) -> None:
        """`certified`: callers show certificates, and an epoch is granted to the node alone that
        asks for it; see `k2store.rpc.identity`.
        """
        self._control = control
        self._certified = certified

    async def Load(
        self, request: control_pb2.LoadRequest, context: Context
    ) -> control_pb2.LoadResponse:
        """The present map."""

        async def load() -> control_pb2.LoadResponse:
            return control_pb2.LoadResponse(map=encode(await self._control.load()))

        return await _answer(context, load)

    async def Update(
        self, request: control_pb2.UpdateRequest, context: Context
    ) -> control_pb2.UpdateResponse:
        """Store the next map."""

        async def update() -> control_pb2.UpdateResponse:
            try:
                wanted = decode(request.map)
            except Corruption as error:  # The caller's, not ours.
                raise Rejected(error.message, field="map") from error
            await self._control.update(wanted)
            return control_pb2.UpdateResponse()

        return await _answer(context, update)

    async def GrantEpoch(
        self, request: control_pb2.GrantEpochRequest, context: Context
    ) -> control_pb2.GrantEpochResponse:
        """Grant an epoch."""

        async def grant() -> control_pb2.GrantEpochResponse:
            if self._certified:
                await self._check_caller(request.node, context)
            epoch = await self._control.grant_epoch(
                request.partition, request.node, request.incarnation, request.above
            )
            return control_pb2.GrantEpochResponse(epoch=epoch)

        return await _answer(context, grant)

    async def _check_caller(self, node: int, context: Context) -> None:
        """Refuse a caller whose certificate is not that of the node it asks for."""
        asked = (await self._control.load()).node(node)
        caller = node_of(context.auth_context())
        if asked is None or caller != asked.name:
            raise Rejected(
                "an epoch is granted to the node itself: the certificate is not that of node "
                f"{node if asked is None else asked.name}",
                field="node",
            )

    async def WatchMap(
        self, request: control_pb2.WatchMapRequest, context: Context
    ) -> AsyncIterator[control_pb2.WatchMapResponse]:
        """The map and its successors."""
        try:
            async for present in self._control.watch():
                yield control_pb2.WatchMapResponse(map=encode(present))
        except K2Error as error:
            await abort(context, error)


async def _answer(context: Context, run: Callable[[], Awaitable[T]]) -> T:
    try:
        return await run()
    except K2Error as error:
        await abort(context, error)
        raise AssertionError("gRPC's abort raises") from error
