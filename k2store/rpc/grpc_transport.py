"""The transport over gRPC: one bidirectional stream of `StoreService/Session` is one connection.

Frames are handed through as bytes: what is in them is the business of the handler and of the
client, also when it is garbage. This module knows nothing of principals or services; it takes
interceptors and services as arguments and serves them on the same port.

Every limit that gRPC can enforce before a byte reaches the handler is set here: message size,
streams, idle and half-open connections, compression (off: a small frame may not become a big one).
`SO_REUSEPORT` is off, so a second node on the same port fails to start instead of silently taking
half of the connections.
"""

from __future__ import annotations

import asyncio
import errno
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import grpc
import grpc.aio

from k2store.rpc.identity import node_of
from k2store.rpc.stream import StreamConnection
from k2store.rpc.transport import FRAME_BYTES_MAX, PEER_NAME, ConnectFailed, Handler

SERVICE: Final = "k2store.v1.StoreService"
METHOD: Final = "Session"
PATH: Final = f"/{SERVICE}/{METHOD}"

PEER_SERVICE: Final = "k2store.v1.PeerService"
PEER_METHOD: Final = "Link"
PEER_PATH: Final = f"/{PEER_SERVICE}/{PEER_METHOD}"
"""Where nodes of a cluster dial each other: internal, and not described by any proto file."""

ACCEPTED: Final = ("k2-session", "accepted")
"""In the initial metadata of a session that the listener has taken."""

CONNECTIONS_MAX: Final = 4096
"""Sessions a listener holds open at once."""

CALLS_MAX: Final = 8192
"""Calls of every kind that a listener has in hand at once, sessions included."""

STREAMS_PER_SOCKET_MAX: Final = 1024
"""HTTP/2 streams on one TCP connection."""

KEEPALIVE_INTERVAL_MS: Final = 20_000
KEEPALIVE_TIMEOUT_MS: Final = 10_000
PEER_KEEPALIVE_INTERVAL_MS: Final = 1_000
PEER_KEEPALIVE_TIMEOUT_MS: Final = 3_000
"""A stream between nodes that hears nothing for so long is dialled anew."""
HANDSHAKE_TIMEOUT_MS: Final = 10_000
SOCKET_IDLE_MS_MAX: Final = 300_000

Option = tuple[str, int]
Annotate = Callable[[Mapping[str, str]], Mapping[str, str]]
"""From the dialling side's metadata to what a connection shows as its metadata."""

_COMMON_OPTIONS: Final[tuple[Option, ...]] = (
    ("grpc.max_receive_message_length", FRAME_BYTES_MAX),
    ("grpc.max_send_message_length", FRAME_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),
    # Bit 0 is "identity": a compressed message is refused before anything is inflated.
    ("grpc.compression_enabled_algorithms_bitset", 1),
)

_SERVER_OPTIONS: Final[tuple[Option, ...]] = (
    *_COMMON_OPTIONS,
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", STREAMS_PER_SOCKET_MAX),
    ("grpc.http2.min_ping_interval_without_data_ms", PEER_KEEPALIVE_INTERVAL_MS // 2),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", PEER_KEEPALIVE_INTERVAL_MS // 2),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
    ("grpc.max_connection_idle_ms", SOCKET_IDLE_MS_MAX),
)

_CHANNEL_OPTIONS: Final[tuple[Option, ...]] = (
    *_COMMON_OPTIONS,
    # A socket of its own per connection: nothing is shared, and no back-off is inherited.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)


_PEER_OPTIONS: Final[tuple[Option, ...]] = (
    *(option for option in _CHANNEL_OPTIONS if not option[0].startswith("grpc.keepalive")),
    ("grpc.keepalive_time_ms", PEER_KEEPALIVE_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", PEER_KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
)


class GrpcDialer:
    """Client side; see `k2store.rpc.transport.Dialer`. `path` is the method that is dialled.

    The metadata entry `token` travels as `authorization: Bearer …`; all others as they are named.
    `credentials` (TLS) apply to every connection; without them connections are in the clear.
    `dial` says for some addresses where they are dialled instead: those of a network that
    translates them on the way.
    """

    def __init__(
        self,
        credentials: grpc.ChannelCredentials | None = None,
        dial: Mapping[str, str] | None = None,
        *,
        path: str = PATH,
    ) -> None:
        self._credentials = credentials
        self._dial = dict(dial or {})
        self._path = path
        self._options = _PEER_OPTIONS if path == PEER_PATH else _CHANNEL_OPTIONS
        self._lives: set[asyncio.Task[None]] = set()

    async def connect(
        self, address: str, metadata: Mapping[str, str], handler: Handler | None = None
    ) -> StreamConnection:
        """Open a connection and wait until the listener has accepted it; raises ConnectFailed."""
        channel = self._channel(self._dial.get(address, address))
        try:
            stub: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                self._path
            )
            call = stub(metadata=tuple(_outgoing(metadata)))
            accepted = await call.initial_metadata()
            # A refusal may show its (empty) metadata before it shows its status.
            if call.done() or ACCEPTED not in tuple(accepted):
                code, details = await call.code(), await call.details()
                raise ConnectFailed(address, f"{code.name}: {details}")
        except grpc.RpcError as failure:
            await channel.close()
            raise ConnectFailed(address, str(failure)) from failure
        except BaseException:
            await channel.close()
            raise
        connection = StreamConnection(address, dict(metadata), handler)
        connection.start()
        life = asyncio.create_task(
            _live(connection, call, channel), name=f"connection with {address}"
        )
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        return connection

    async def close(self) -> None:
        """Wait until connections that have been closed have let go of their sockets."""
        if self._lives:
            await asyncio.wait(self._lives)

    def _channel(self, address: str) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(address, options=self._options)
        return grpc.aio.secure_channel(address, self._credentials, options=self._options)


class GrpcListener:
    """Server side; see `k2store.rpc.transport.Listener`.

    `services` are functions that add a gRPC service to the server (unary methods, health,
    reflection), `interceptors` see every call, `annotate` makes the connection's metadata from the
    dialling side's. `credentials` turn on TLS. `peers` takes the streams of other nodes; where
    `peers_certified` they must show the certificate of a node.
    """

    def __init__(
        self,
        *,
        credentials: grpc.ServerCredentials | None = None,
        services: Iterable[Callable[[grpc.aio.Server], None]] = (),
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        annotate: Annotate | None = None,
        connections_max: int = CONNECTIONS_MAX,
        calls_max: int = CALLS_MAX,
        peers: Handler | None = None,
        peers_certified: bool = False,
    ) -> None:
        self._credentials = credentials
        self._services = tuple(services)
        self._interceptors = tuple(interceptors)
        self._annotate = annotate
        self._connections_max = connections_max
        self._calls_max = calls_max
        self._peers = peers
        self._peers_certified = peers_certified

    async def listen(self, address: str, handler: Handler) -> GrpcListening:
        """Accept connections at `host:port` into the handler; raises OSError if that is taken."""
        server = grpc.aio.server(
            interceptors=self._interceptors,
            options=_SERVER_OPTIONS,
            maximum_concurrent_rpcs=self._calls_max,
        )
        sessions = _Sessions(handler, self._annotate, self._connections_max)
        for add_service in self._services:
            add_service(server)
        # Registered last, it replaces the generated handler of the same method.
        server.add_registered_method_handlers(SERVICE, sessions.handlers())
        if self._peers is not None:
            peers = _Peers(self._peers, certified=self._peers_certified)
            server.add_registered_method_handlers(PEER_SERVICE, peers.handlers())
        try:
            if self._credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, self._credentials)
        except RuntimeError as failure:
            await server.stop(None)
            raise OSError(errno.EADDRINUSE, f"cannot listen at {address}: {failure}") from failure
        await server.start()
        host = address.rpartition(":")[0]
        return GrpcListening(server, sessions, f"{host}:{port}")


class GrpcListening:
    """An open port; see `k2store.rpc.transport.Listening`."""

    def __init__(self, server: grpc.aio.Server, sessions: _Sessions, address: str) -> None:
        self._server = server
        self._sessions = sessions
        self._address = address

    @property
    def address(self) -> str:
        """`host:port` with the port in use."""
        return self._address

    @property
    def connections(self) -> int:
        """Sessions that are open now."""
        return len(self._sessions.open)

    def expel(self, stays: Callable[[Mapping[str, str]], bool]) -> list[StreamConnection]:
        """End the connections whose metadata do not satisfy `stays` (any more); returns them."""
        gone = [one for one in self._sessions.open if not stays(one.metadata)]
        for connection in gone:
            connection.close("not permitted any more")
        return gone

    async def close(self, grace_s: float = 0.0) -> None:
        """Take no more connections; end those that stand after at most `grace_s` seconds."""
        await self._server.stop(grace_s)
        await self._sessions.wait_until_none()


class _Sessions:
    """The streams of one listener."""

    def __init__(self, handler: Handler, annotate: Annotate | None, connections_max: int) -> None:
        self._handler = handler
        self._annotate = annotate
        self._connections_max = connections_max
        self.open: set[StreamConnection] = set()
        self._none = asyncio.Event()
        self._none.set()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """The handler of the session method, without serializers: frames stay bytes."""
        return {METHOD: grpc.stream_stream_rpc_method_handler(self._serve)}

    async def wait_until_none(self) -> None:
        """Return when the last stream's coroutine has ended."""
        await self._none.wait()

    async def _serve(
        self, _requests: object, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        if len(self.open) >= self._connections_max:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"this node holds {self._connections_max} sessions, its limit; use another node",
            )
        metadata: Mapping[str, str] = dict(_incoming(context.invocation_metadata() or ()))
        if self._annotate is not None:
            metadata = self._annotate(metadata)
        connection = StreamConnection(_peer(context.peer()), metadata, self._handler)
        self.open.add(connection)
        self._none.clear()
        try:
            # The dialling side takes this as word that the connection stands.
            await context.send_initial_metadata((ACCEPTED,))
            connection.start()
            await connection.run(context.read, context.write)
        finally:
            self.open.discard(connection)
            if not self.open:
                self._none.set()


class _Peers:
    """The streams that other nodes have dialled."""

    def __init__(self, handler: Handler, *, certified: bool) -> None:
        self._handler = handler
        self._certified = certified

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """The handler of the peers' method."""
        return {PEER_METHOD: grpc.stream_stream_rpc_method_handler(self._serve)}

    async def _serve(
        self, _requests: object, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        metadata = dict(_incoming(context.invocation_metadata() or ()))
        metadata.pop(PEER_NAME, None)
        if self._certified:
            name = node_of(context.auth_context())
            if name is None:
                await context.abort(
                    grpc.StatusCode.PERMISSION_DENIED,
                    "only nodes may open this stream: the certificate is not that of a node",
                )
            metadata[PEER_NAME] = name
        connection = StreamConnection(_peer(context.peer()), metadata, self._handler)
        await context.send_initial_metadata((ACCEPTED,))
        connection.start()
        await connection.run(context.read, context.write)


async def _live(
    connection: StreamConnection,
    call: grpc.aio.StreamStreamCall[bytes, bytes],
    channel: grpc.aio.Channel,
) -> None:
    try:
        await connection.run(call.read, call.write, call.done_writing)
    finally:
        call.cancel()
        await channel.close()


def _outgoing(metadata: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for name, value in metadata.items():
        if name == "token":
            yield "authorization", f"Bearer {value}"
        else:
            yield name, value


def _incoming(metadata: Iterable[tuple[str, str | bytes]]) -> Iterable[tuple[str, str]]:
    for name, value in metadata:
        if not isinstance(value, str):
            continue
        if name == "authorization" and value[:7].lower() == "bearer ":
            yield "token", value[7:]
        elif name != "user-agent":
            yield name, value


def _peer(name: str) -> str:
    """`ipv6:%5B::1%5D:4711` as `[::1]:4711`."""
    return urllib.parse.unquote(name.partition(":")[2]) or name
