"""One gRPC stream as a connection: the part that dialling and listening side share.

A `StreamConnection` owns the queue of frames that wait to leave, the two loops that move frames,
and the one announcement that the connection has ended. It knows gRPC only as coroutines that read,
write and finish. The side that made it owns the stream: it opens it, awaits `run`, and lets the
stream go when that returns.

Cost decides the shape: a frame costs what its two loop iterations cost, so there is one writer a
connection, woken once for everything that has gathered, and no task, timer or lock per frame.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import grpc.aio

from k2store.rpc.transport import (
    FRAME_BYTES_MAX,
    SEND_QUEUE_BYTES_MAX,
    ConnectionClosed,
    Handler,
    SendQueueFull,
)

LINGER_S: Final = 5.0
"""How long a closed connection may take to hand over what is still queued, seconds."""

RECEIVE_QUEUE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes that wait for `receive` before reading stops and the peer feels it."""

STREAM_FAILURES: Final = (grpc.aio.BaseError, grpc.RpcError, asyncio.InvalidStateError)
"""What grpc.aio raises from reads and writes on a stream that has ended."""

Read = Callable[[], Awaitable[object]]
Write = Callable[[bytes], Awaitable[None]]


class StreamConnection:
    """A `k2store.rpc.transport.Connection` over the two halves of one gRPC stream."""

    __slots__ = (
        "_arrived",
        "_arrived_bytes",
        "_drainers",
        "_handler",
        "_loop",
        "_metadata",
        "_over",
        "_peer",
        "_queue",
        "_queued_bytes",
        "_reason",
        "_receiver",
        "_room",
        "_wake",
    )

    def __init__(self, peer: str, metadata: Mapping[str, str], handler: Handler | None) -> None:
        self._peer = peer
        self._metadata = metadata
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._reason: str | None = None
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._wake: asyncio.Future[None] | None = None
        self._drainers: list[asyncio.Future[None]] = []
        # Only without a handler: frames that wait for `receive`, and who waits for either side.
        self._arrived: deque[bytes] = deque()
        self._arrived_bytes = 0
        self._receiver: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    # ------------------------------------------------------------------ the port's side

    @property
    def peer(self) -> str:
        """Address of the other side."""
        return self._peer

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the dialling side said about itself."""
        return self._metadata

    @property
    def closed(self) -> bool:
        """True from the moment the connection has ended."""
        return self._reason is not None

    @property
    def queued_bytes(self) -> int:
        """Bytes accepted and not yet handed to the network."""
        return self._queued_bytes

    def send(self, frame: bytes) -> None:
        """Queue one frame; see the port for what it raises."""
        if self._reason is not None:
            raise ConnectionClosed(self._peer, self._reason)
        size = len(frame)
        if size > FRAME_BYTES_MAX:
            raise ValueError(f"a frame of {size} bytes exceeds the limit of {FRAME_BYTES_MAX}")
        if self._queued_bytes + size > SEND_QUEUE_BYTES_MAX:
            raise SendQueueFull(self._peer, self._queued_bytes)
        self._queue.append(frame)
        self._queued_bytes += size
        wake = self._wake
        if wake is not None:
            self._wake = None
            wake.set_result(None)

    async def drain(self) -> None:
        """Return once less than half of the queue's limit waits."""
        while self._reason is None and self._queued_bytes * 2 >= SEND_QUEUE_BYTES_MAX:
            drainer: asyncio.Future[None] = self._loop.create_future()
            self._drainers.append(drainer)
            await drainer
        if self._reason is not None:
            raise ConnectionClosed(self._peer, self._reason)

    async def receive(self) -> bytes:
        """Return the next frame, for connections without a handler and one caller at a time."""
        assert self._handler is None, "frames of this connection go to its handler"
        while not self._arrived:
            if self._reason is not None:
                raise ConnectionClosed(self._peer, self._reason)
            assert self._receiver is None, "one receive at a time"
            self._receiver = self._loop.create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        frame = self._arrived.popleft()
        self._arrived_bytes -= len(frame)
        _release(self._room)
        return frame

    def close(self, reason: str = "closed here") -> None:
        """End the connection; what is queued is still sent if the way allows it."""
        self.end(reason)

    # ------------------------------------------------------------- the stream owner's side

    def start(self) -> None:
        """Tell the handler that the connection stands; once, before `run`."""
        if self._handler is not None:
            self._guard(self._handler.on_connect)

    async def run(
        self,
        read: Read,
        write: Write,
        finish: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Move frames until the connection is over and what was queued at its end has left.

        `finish`, where given, tells the peer that no more frames come; the peer then has the rest
        of LINGER_S to end the stream itself. Cancelling this ends the connection at once.
        """
        reader = self._loop.create_task(self._read_frames(read))
        writer = self._loop.create_task(self._write_frames(write))
        try:
            await self._over
            async with asyncio.timeout(LINGER_S):
                await asyncio.wait((writer,))
                if finish is not None and not reader.done():
                    await finish()
                    await asyncio.wait((reader,))
        except (TimeoutError, *STREAM_FAILURES):
            pass  # Whoever does not take the last frames in time goes without them.
        finally:
            self.end("cut off")
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    def end(self, reason: str) -> None:
        """Note that the connection is over and wake everybody who waits on it; idempotent."""
        if self._reason is not None:
            return
        self._reason = reason
        for waiting in (self._over, self._wake, self._receiver, self._room, *self._drainers):
            _release(waiting)
        self._wake = None
        self._drainers.clear()
        self._loop.call_soon(self._announce_end)

    async def _write_frames(self, write: Write) -> None:
        """Send what is queued until the connection is over and the queue is empty."""
        queue = self._queue
        while True:
            while queue:
                frame = queue.popleft()
                try:
                    await write(frame)
                except STREAM_FAILURES as failure:
                    self.end(describe(failure))
                    return
                self._queued_bytes -= len(frame)
                if self._drainers and self._queued_bytes * 2 < SEND_QUEUE_BYTES_MAX:
                    for drainer in self._drainers:
                        _release(drainer)
                    self._drainers.clear()
            if self._reason is not None:
                return
            self._wake = self._loop.create_future()
            await self._wake

    async def _read_frames(self, read: Read) -> None:
        """Deliver frames until the peer or this side ends the connection."""
        handler = self._handler
        try:
            while True:
                frame = await read()
                if not isinstance(frame, bytes):
                    self.end("ended by the peer")
                    return
                if self._reason is not None:
                    continue  # Ended here: what still arrives is not for anybody.
                if handler is not None:
                    handler.on_frame(self, frame)
                else:
                    await self._keep(frame)
        except STREAM_FAILURES as failure:
            self.end(describe(failure))
        except Exception as failure:  # noqa: BLE001 - the port's promise: closed and reported
            self._report(failure)

    async def _keep(self, frame: bytes) -> None:
        """Leave a frame for `receive`, and stop reading while too much waits."""
        self._arrived.append(frame)
        self._arrived_bytes += len(frame)
        _release(self._receiver)
        while self._arrived_bytes > RECEIVE_QUEUE_BYTES_MAX and self._reason is None:
            self._room = self._loop.create_future()
            await self._room

    def _announce_end(self) -> None:
        handler, reason = self._handler, self._reason
        assert reason is not None
        if handler is not None:
            self._guard(lambda connection: handler.on_close(connection, reason))

    def _guard(self, event: Callable[[StreamConnection], None]) -> None:
        try:
            event(self)
        except Exception as failure:  # noqa: BLE001 - the port's promise: closed and reported
            self._report(failure)

    def _report(self, failure: Exception) -> None:
        self._loop.call_exception_handler(
            {
                "message": f"handler failed on the connection with {self._peer}",
                "exception": failure,
            }
        )
        self.end("the handler failed")


def describe(failure: BaseException) -> str:
    """One line about why a stream ended."""
    if isinstance(failure, grpc.aio.AioRpcError):
        return f"{failure.code().name}: {failure.details()}"
    return str(failure) or type(failure).__name__


def _release(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
