"""AdminService: what operators and stamping clients ask of a node."""

# ruff: noqa: N802 - gRPC names the methods

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc.aio

from k2store.errors import ClockUncertain, Rejected
from k2store.node import report
from k2store.node.engine import Engine
from k2store.rpc.status import abort
from k2store.v1 import admin_pb2, admin_pb2_grpc
from truetime.oracle import Batch

Context = grpc.aio.ServicerContext[Any, Any]


class AdminMethods(admin_pb2_grpc.AdminServiceServicer):
    """The methods of AdminService."""

    def __init__(
        self,
        engine: Engine,
        uptime_s: Callable[[], float],
        drain: Callable[[float | None], None],
    ) -> None:
        """`drain` begins to drain and returns at once; None means the node's own grace."""
        self._engine = engine
        self._uptime_s = uptime_s
        self._drain = drain

    async def GetStatus(
        self, request: admin_pb2.GetStatusRequest, context: Context
    ) -> admin_pb2.GetStatusResponse:
        """The node's state."""
        return report.status(self._engine, self._uptime_s())

    async def GetClock(
        self, request: admin_pb2.GetClockRequest, context: Context
    ) -> admin_pb2.GetClockResponse:
        """The node's clock."""
        return report.clock(self._engine)

    async def GrantStamps(
        self, request: admin_pb2.GrantStampsRequest, context: Context
    ) -> admin_pb2.GrantStampsResponse:
        """A batch of stamps."""
        engine = self._engine
        if not request.count:
            await abort(context, Rejected("ask for at least one stamp", field="count"))
        try:
            batch = engine.oracle.grant(request.count, engine.clock.now())
        except ClockUncertain as error:
            await abort(context, error)
            raise
        if not isinstance(batch, Batch):
            wait_ns = batch.retry_after_ns
            retry_after_s = None if wait_ns is None else wait_ns / 1e9
            await abort(context, ClockUncertain(batch.message, retry_after_s=retry_after_s))
            raise AssertionError("gRPC's abort raises")
        return admin_pb2.GrantStampsResponse(
            base=batch.base,
            step=batch.stride,
            count=batch.count,
            ttl_ns=batch.ttl_ns,
            lo_ns=batch.lo_ns,
        )

    async def Drain(
        self, request: admin_pb2.DrainRequest, context: Context
    ) -> admin_pb2.DrainResponse:
        """Take no new work, finish what is open, then end the process."""
        self._drain(request.grace_ms / 1000 if request.grace_ms else None)
        return admin_pb2.DrainResponse()
