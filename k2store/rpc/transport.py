"""The transport port: ordered frames of bytes between a client, a node and other nodes.

Nodes and clients speak in *frames*: whatever has gathered since the last frame left. They know a
transport only through the protocols below. Two things implement them: `k2store.rpc`'s gRPC
adapter (one bidirectional stream is one connection) and the deterministic simulator in
`k2store.testing.simulation`. Neither this module nor its users know about sockets.

What a connection promises, and no more:

- frames arrive whole, in the order sent, without gaps, until the connection ends;
- when it ends, the sender does not know which of its last frames arrived: some prefix of them;
- nothing ever arrives on it after `on_close`, and a new connection starts afresh.

There are two ways to read. With a `Handler` the transport calls `on_frame` synchronously, on the
loop, for every frame: the hot path of servers and of clients under load. Without one, frames
wait in a queue for `await connection.receive()`. A connection uses one of them, never both.

A handler must not block and should not raise: an exception from `on_frame` closes that
connection and is reported through the loop's exception handler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

FRAME_BYTES_MAX: Final = 4 * 1024 * 1024
"""Largest frame a transport carries, in bytes. Longer ones are refused by `Connection.send`."""

SEND_QUEUE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes a connection holds for a peer that does not keep up, before `send` refuses."""


PEER_NAME: Final = "k2-node-name"
"""Metadata of another node's stream: the name in its certificate; absent without certificates."""


class TransportError(Exception):
    """Root of what a transport raises. Nothing is said about what the peer has done."""


class ConnectFailed(TransportError):
    """No connection came about: nobody listens there, the way is cut, or the peer refused us."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot connect to {address}: {reason}")
        self.address = address
        self.reason = reason


class ConnectionClosed(TransportError):
    """The connection has ended. Frames sent last may or may not have arrived."""

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(f"connection with {peer} closed: {reason}")
        self.peer = peer
        self.reason = reason


class SendQueueFull(TransportError):
    """The peer does not keep up: the frame was not queued. Await `drain`, or close."""

    def __init__(self, peer: str, queued_bytes: int) -> None:
        super().__init__(f"{queued_bytes} bytes already wait for {peer}")
        self.peer = peer
        self.queued_bytes = queued_bytes


class Connection(Protocol):
    """One ordered stream of frames in each direction."""

    @property
    def peer(self) -> str:
        """Address of the other side, for messages and metrics; never an identity."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the dialling side said about itself (token, client id): lower-case names."""

    @property
    def closed(self) -> bool:
        """True from the moment either side, or the way between, has ended the connection."""

    @property
    def queued_bytes(self) -> int:
        """Bytes accepted by `send` that have not left yet: the number back-pressure acts on."""

    def send(self, frame: bytes) -> None:
        """Queue one frame; never blocks.

        Raises ConnectionClosed when the connection has ended, SendQueueFull when the frame would
        take the queue beyond SEND_QUEUE_BYTES_MAX, ValueError beyond FRAME_BYTES_MAX.
        """

    async def drain(self) -> None:
        """Return once less than half of SEND_QUEUE_BYTES_MAX waits; raises ConnectionClosed."""

    async def receive(self) -> bytes:
        """Return the next frame; raises ConnectionClosed after the last one that arrived.

        Only for connections without a handler.
        """

    def close(self, reason: str = "closed here") -> None:
        """End the connection; a second call does nothing.

        Queued frames are still sent if the way allows it. Our own handler's `on_close` is called
        too, later on the loop and never from inside this call. The peer learns the end of the
        stream, not the words of the reason.
        """


class Handler(Protocol):
    """Receives a connection's events, synchronously, on the loop's thread."""

    def on_connect(self, connection: Connection) -> None:
        """The connection stands. Called once, before any frame."""

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        """One whole frame arrived. May send on any connection, or close this one."""

    def on_close(self, connection: Connection, reason: str) -> None:
        """The connection has ended. Called once, after the last frame."""


class Listening(Protocol):
    """An open door, as returned by `Listener.listen`."""

    @property
    def address(self) -> str:
        """Where it is, `host:port`, with the port in use if port 0 was asked for."""

    async def close(self, grace_s: float = 0.0) -> None:
        """Take no more connections; end those that stand after at most `grace_s` seconds."""


class Listener(Protocol):
    """Server side of a transport."""

    async def listen(self, address: str, handler: Handler) -> Listening:
        """Accept connections at `host:port` into the handler; raises OSError if that is taken."""


class Dialer(Protocol):
    """Client side of a transport."""

    async def connect(
        self, address: str, metadata: Mapping[str, str], handler: Handler | None = None
    ) -> Connection:
        """Open a connection to `host:port`; raises ConnectFailed.

        With a handler, its `on_connect` has been called when this returns and frames go to it;
        without one, frames wait for `Connection.receive`. It keeps no time of its own: callers
        put a deadline around it, and cancelling it leaves no connection behind.
        """
