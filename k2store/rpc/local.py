"""The transport inside one process: a hub that dialling and listening side share.

A frame handed to `send` reaches the other end on a later turn of the loop, in order, so neither
side ever runs inside the other. There is no socket, no copy and no time-out: what can go wrong
on a network cannot go wrong here, except that either side ends the connection. Embedded stores
and in-process clients use it; addresses are plain names.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType

from k2store.rpc.transport import (
    FRAME_BYTES_MAX,
    SEND_QUEUE_BYTES_MAX,
    ConnectFailed,
    ConnectionClosed,
    Handler,
    SendQueueFull,
)


class LocalTransport:
    """Both a `Dialer` and a `Listener`: what listens on it can be dialled on it."""

    def __init__(self) -> None:
        self._listening: dict[str, _Door] = {}

    async def listen(self, address: str, handler: Handler) -> _Door:
        """Accept connections under a name; raises OSError if somebody has it."""
        if address in self._listening:
            raise OSError(f"{address} is already listened on")
        door = _Door(self._listening, address, handler)
        self._listening[address] = door
        return door

    async def connect(
        self, address: str, metadata: Mapping[str, str], handler: Handler | None = None
    ) -> LocalConnection:
        """Open a connection to a name; raises ConnectFailed when nobody listens there."""
        door = self._listening.get(address)
        if door is None:
            raise ConnectFailed(address, "nobody listens there")
        shown = MappingProxyType(dict(metadata))
        near = LocalConnection(address, shown, handler)
        far = LocalConnection("local", shown, door.handler)
        near._other, far._other = far, near
        door.connections = [standing for standing in door.connections if not standing.closed]
        door.connections.append(far)
        far._start()
        near._start()
        return near


class _Door:
    """One name that is listened on."""

    def __init__(self, listening: dict[str, _Door], address: str, handler: Handler) -> None:
        self._listening = listening
        self._address = address
        self.handler = handler
        self.connections: list[LocalConnection] = []

    @property
    def address(self) -> str:
        """The name."""
        return self._address

    async def close(self, grace_s: float = 0.0) -> None:
        """Take no more connections; end those that stand after at most `grace_s` seconds."""
        self._listening.pop(self._address, None)
        standing = [connection for connection in self.connections if not connection.closed]
        self.connections.clear()
        if grace_s > 0:
            ends = [asyncio.ensure_future(connection.ended()) for connection in standing]
            if ends:
                _, rest = await asyncio.wait(ends, timeout=grace_s)
                for end in rest:
                    end.cancel()
        for connection in standing:
            connection.close("the listener has closed")


class LocalConnection:
    """One end of a connection inside the process."""

    __slots__ = (
        "_arrived",
        "_drainers",
        "_ending",
        "_handler",
        "_loop",
        "_metadata",
        "_other",
        "_peer",
        "_queue",
        "_queued_bytes",
        "_reason",
        "_receiver",
        "_scheduled",
        "_watchers",
    )

    def __init__(self, peer: str, metadata: Mapping[str, str], handler: Handler | None) -> None:
        self._peer = peer
        self._metadata = metadata
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._other: LocalConnection = self
        self._queue: deque[bytes] = deque()
        """Frames sent from here that the other end has not been handed yet."""
        self._queued_bytes = 0
        self._scheduled = False
        self._reason: str | None = None
        self._ending = False
        """The other end has closed; true until its last frames have been handed over."""
        self._arrived: deque[bytes] = deque()
        self._receiver: asyncio.Future[None] | None = None
        self._drainers: list[asyncio.Future[None]] = []
        self._watchers: list[asyncio.Future[None]] = []

    @property
    def peer(self) -> str:
        """The name that was dialled; `local` on the listening side."""
        return self._peer

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the dialling side said about itself."""
        return self._metadata

    @property
    def closed(self) -> bool:
        """True from the moment the connection has ended."""
        return self._reason is not None or self._other._reason is not None

    @property
    def queued_bytes(self) -> int:
        """Bytes the other end has not been handed yet."""
        return self._queued_bytes

    def send(self, frame: bytes) -> None:
        """Queue one frame; see the port for what it raises."""
        if self._reason is not None or self._other._reason is not None:
            raise ConnectionClosed(self._peer, self._reason or "closed by the peer")
        size = len(frame)
        if size > FRAME_BYTES_MAX:
            raise ValueError(f"a frame of {size} bytes exceeds the limit of {FRAME_BYTES_MAX}")
        if self._queued_bytes + size > SEND_QUEUE_BYTES_MAX:
            raise SendQueueFull(self._peer, self._queued_bytes)
        self._queue.append(frame)
        self._queued_bytes += size
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    async def drain(self) -> None:
        """Return once less than half of the limit waits."""
        while not self.closed and self._queued_bytes * 2 >= SEND_QUEUE_BYTES_MAX:
            drainer: asyncio.Future[None] = self._loop.create_future()
            self._drainers.append(drainer)
            await drainer
        if self.closed:
            raise ConnectionClosed(self._peer, self._reason or "closed by the peer")

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
        return self._arrived.popleft()

    def close(self, reason: str = "closed here") -> None:
        """End the connection; frames already queued still arrive at the other end."""
        if self._reason is not None:
            return
        self._end(reason)
        if self._queue:
            self._other._ending = True
        else:
            self._other._end("closed by the peer")

    async def ended(self) -> None:
        """Return once the connection has ended."""
        while not self.closed:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._watchers.append(waiter)
            await waiter

    def _start(self) -> None:
        if self._handler is not None:
            self._handler.on_connect(self)

    def _hand_over(self) -> None:
        """Give the other end what has gathered."""
        self._scheduled = False
        queue, other = self._queue, self._other
        while queue:
            frame = queue.popleft()
            self._queued_bytes -= len(frame)
            if other._reason is None:
                other._take(frame)
        self._wake(self._drainers)
        if other._ending:
            other._ending = False
            other._end("closed by the peer")

    def _take(self, frame: bytes) -> None:
        handler = self._handler
        if handler is None:
            self._arrived.append(frame)
            if self._receiver is not None and not self._receiver.done():
                self._receiver.set_result(None)
            return
        try:
            handler.on_frame(self, frame)
        except Exception as error:  # noqa: BLE001 - the port says so: it ends this connection
            self._loop.call_exception_handler(
                {"message": f"the handler of {self._peer} failed", "exception": error}
            )
            self.close("the handler failed")

    def _end(self, reason: str) -> None:
        if self._reason is not None:
            return
        self._reason = reason
        self._wake(self._drainers)
        self._wake(self._watchers)
        self._wake(self._other._watchers)
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)
        if self._handler is not None:
            self._loop.call_soon(self._handler.on_close, self, reason)

    @staticmethod
    def _wake(waiting: list[asyncio.Future[None]]) -> None:
        for future in waiting:
            if not future.done():
                future.set_result(None)
        waiting.clear()
