"""The transport over gRPC keeps the promises of its port, on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping

import grpc.aio
import pytest

from k2store.rpc import stream
from k2store.rpc.grpc_transport import GrpcDialer, GrpcListener, GrpcListening
from k2store.rpc.transport import (
    FRAME_BYTES_MAX,
    SEND_QUEUE_BYTES_MAX,
    ConnectFailed,
    Connection,
    ConnectionClosed,
    SendQueueFull,
)

HERE = "127.0.0.1:0"


class Recorder:
    """A handler that notes its events and lets the test say what happens on a frame."""

    def __init__(self, on_frame: Callable[[Connection, bytes], None] | None = None) -> None:
        self.events: list[tuple[str, object]] = []
        self.connections: list[Connection] = []
        self.changed = asyncio.Event()
        self._act = on_frame

    def on_connect(self, connection: Connection) -> None:
        """Note it."""
        self.connections.append(connection)
        self._note("connect", dict(connection.metadata))

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        """Note it, then act."""
        self._note("frame", frame)
        if self._act is not None:
            self._act(connection, frame)

    def on_close(self, connection: Connection, reason: str) -> None:
        """Note it."""
        assert connection.closed
        self._note("close", reason)

    def kinds(self) -> list[str]:
        """What happened, in order, without the details."""
        return [kind for kind, _ in self.events]

    async def until(self, kind: str, count: int = 1) -> None:
        """Wait until so many events of a kind have happened."""
        while self.kinds().count(kind) < count:
            self.changed.clear()
            await self.changed.wait()

    def _note(self, kind: str, detail: object) -> None:
        self.events.append((kind, detail))
        self.changed.set()


def echo(connection: Connection, frame: bytes) -> None:
    """Send back what came."""
    connection.send(frame)


def on_a_port(
    body: Callable[[GrpcListening, GrpcDialer, Recorder], Awaitable[None]],
    act: Callable[[Connection, bytes], None] = echo,
    **options: int,
) -> None:
    """Run a test body with a listener on a free port, and close everything."""

    async def run() -> None:
        async with asyncio.timeout(20):
            recorder = Recorder(act)
            listening = await GrpcListener(**options).listen(HERE, recorder)  # type: ignore[arg-type]
            dialer = GrpcDialer()
            try:
                await body(listening, dialer, recorder)
            finally:
                await listening.close()
                await dialer.close()

    asyncio.run(run())


def test_frames_arrive_whole_in_order_in_both_directions() -> None:
    """Frames of all sizes up to the limit come back unchanged and in the order sent."""

    async def body(listening: GrpcListening, dialer: GrpcDialer, _: Recorder) -> None:
        connection = await dialer.connect(listening.address, {})
        frames = [bytes([n % 251]) * size for n, size in enumerate([0, 1, 100, 70_000] * 20)]
        frames.append(b"x" * FRAME_BYTES_MAX)
        for frame in frames:
            connection.send(frame)
        assert [await connection.receive() for _ in frames] == frames
        connection.close()

    on_a_port(body)


def test_handlers_on_both_sides_see_connect_frames_close_once_each() -> None:
    """Each side's handler is told of the connection, its frames and its end, once and in order."""

    async def body(listening: GrpcListening, dialer: GrpcDialer, server: Recorder) -> None:
        client = Recorder()
        connection = await dialer.connect(listening.address, {"token": "s", "x-id": "7"}, client)
        assert client.kinds() == ["connect"], "on_connect comes before connect returns"
        connection.send(b"a")
        connection.send(b"b")
        await client.until("frame", 2)
        connection.close("enough")
        connection.close("again")
        assert client.kinds()[-1] == "frame", "on_close never comes from inside close"
        await client.until("close")
        await server.until("close")
        assert client.kinds() == ["connect", "frame", "frame", "close"] == server.kinds()
        assert server.events[0][1] == {"token": "s", "x-id": "7"}
        assert client.events[-1] == ("close", "enough")

    on_a_port(body)


def test_what_was_queued_before_close_still_arrives() -> None:
    """Frames sent right before `close` reach the peer, then it learns of the end."""

    async def body(listening: GrpcListening, dialer: GrpcDialer, server: Recorder) -> None:
        connection = await dialer.connect(listening.address, {})
        for n in range(50):
            connection.send(b"%d" % n)
        connection.close()
        with pytest.raises(ConnectionClosed):
            connection.send(b"late")
        await server.until("close")
        assert [frame for kind, frame in server.events if kind == "frame"] == [
            b"%d" % n for n in range(50)
        ]

    on_a_port(body)


def test_the_listening_side_can_say_goodbye() -> None:
    """A frame and a close from inside `on_frame`: the dialler gets the frame, then the end."""

    def act(connection: Connection, frame: bytes) -> None:
        connection.send(b"goodbye")
        connection.close("rude")

    async def body(listening: GrpcListening, dialer: GrpcDialer, server: Recorder) -> None:
        connection = await dialer.connect(listening.address, {})
        connection.send(b"hello")
        connection.send(b"are you there")
        assert await connection.receive() == b"goodbye"
        with pytest.raises(ConnectionClosed):
            await connection.receive()
        assert connection.closed
        await server.until("close")
        assert server.kinds() == ["connect", "frame", "close"], "nothing arrives after close"

    on_a_port(body, act)


def test_a_handler_that_raises_ends_only_its_connection() -> None:
    """An exception from `on_frame` is reported and closes that connection; others live on."""

    def act(connection: Connection, frame: bytes) -> None:
        if frame == b"poison":
            raise KeyError("poison")
        connection.send(frame)

    async def body(listening: GrpcListening, dialer: GrpcDialer, server: Recorder) -> None:
        reported: list[Mapping[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context)
        )
        other = await dialer.connect(listening.address, {})
        connection = await dialer.connect(listening.address, {})
        connection.send(b"poison")
        with pytest.raises(ConnectionClosed):
            await connection.receive()
        other.send(b"fine")
        assert await other.receive() == b"fine"
        assert [type(context["exception"]) for context in reported] == [KeyError]
        other.close()

    on_a_port(body, act)


def test_nobody_there_is_connect_failed() -> None:
    """Dialling a port where nobody listens, or where no store is, raises ConnectFailed."""

    async def run() -> None:
        dialer = GrpcDialer()
        with pytest.raises(ConnectFailed):
            await dialer.connect("127.0.0.1:1", {})
        stranger = grpc.aio.server()
        port = stranger.add_insecure_port(HERE)
        await stranger.start()
        with pytest.raises(ConnectFailed, match="UNIMPLEMENTED"):
            await dialer.connect(f"127.0.0.1:{port}", {})
        await stranger.stop(None)

    asyncio.run(run())


def test_a_taken_port_is_an_os_error() -> None:
    """A second listener on a port fails to start; it never shares the traffic."""

    async def body(listening: GrpcListening, _: GrpcDialer, recorder: Recorder) -> None:
        with pytest.raises(OSError, match="cannot listen"):
            await GrpcListener().listen(listening.address, recorder)

    on_a_port(body)


def test_cancelled_connect_leaves_nothing_behind() -> None:
    """A connect that is cancelled while it waits leaves no task and no connection."""

    async def run() -> None:
        # The kernel accepts for a socket that listens; nobody ever speaks HTTP/2 on it.
        mute = socket.create_server(("127.0.0.1", 0))
        port = mute.getsockname()[1]
        before = asyncio.all_tasks()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await GrpcDialer().connect(f"127.0.0.1:{port}", {})
        left = {task for task in asyncio.all_tasks() - before if "grpc" not in repr(task)}
        assert not left
        mute.close()

    asyncio.run(run())


def test_frames_beyond_the_limit_are_refused_before_they_leave() -> None:
    """A frame longer than the limit is a ValueError for the sender; the connection lives."""

    async def body(listening: GrpcListening, dialer: GrpcDialer, _: Recorder) -> None:
        connection = await dialer.connect(listening.address, {})
        with pytest.raises(ValueError, match="exceeds"):
            connection.send(b"x" * (FRAME_BYTES_MAX + 1))
        connection.send(b"ok")
        assert await connection.receive() == b"ok"
        connection.close()

    on_a_port(body)


def test_a_peer_that_does_not_read_fills_the_queue_and_is_refused() -> None:
    """Against a peer that stops reading, `send` refuses at the limit and memory stays bounded."""

    refused = asyncio.Event()

    def act(connection: Connection, frame: bytes) -> None:
        try:
            while True:
                connection.send(frame)
        except SendQueueFull:
            assert connection.queued_bytes <= SEND_QUEUE_BYTES_MAX
            refused.set()
            connection.close("does not keep up")

    async def body(listening: GrpcListening, dialer: GrpcDialer, server: Recorder) -> None:
        channel = grpc.aio.insecure_channel(listening.address)
        call = channel.stream_stream("/k2store.v1.StoreService/Session")()
        await call.write(b"f" * 1_000_000)  # And never read.
        await refused.wait()
        await server.until("close")
        other = await dialer.connect(listening.address, {})
        assert not other.closed
        other.close()
        await channel.close()

    on_a_port(body, act)


def test_drain_waits_for_room() -> None:
    """`drain` returns at once with room, waits while the queue is full, and raises at the end."""

    async def body(listening: GrpcListening, dialer: GrpcDialer, server: Recorder) -> None:
        connection = await dialer.connect(listening.address, {})
        await connection.drain()
        frame = b"f" * 1_000_000
        while connection.queued_bytes + len(frame) <= SEND_QUEUE_BYTES_MAX:
            connection.send(frame)
        await connection.drain()
        assert connection.queued_bytes * 2 < SEND_QUEUE_BYTES_MAX
        connection.close()
        with pytest.raises(ConnectionClosed):
            await connection.drain()

    on_a_port(body, lambda connection, frame: None)


def test_sessions_beyond_the_limit_are_refused() -> None:
    """With the sessions' limit reached the next one is refused, and one that ends makes room."""

    async def body(listening: GrpcListening, dialer: GrpcDialer, server: Recorder) -> None:
        first = await dialer.connect(listening.address, {})
        second = await dialer.connect(listening.address, {})
        with pytest.raises(ConnectFailed, match="RESOURCE_EXHAUSTED"):
            await dialer.connect(listening.address, {})
        first.close()
        await server.until("close")
        while listening.connections > 1:
            await asyncio.sleep(0)
        third = await dialer.connect(listening.address, {})
        second.close()
        third.close()

    on_a_port(body, connections_max=2)


def test_closing_the_listener_ends_its_connections() -> None:
    """After `close` nobody gets in, and both sides of a standing connection are told."""

    async def body(listening: GrpcListening, dialer: GrpcDialer, server: Recorder) -> None:
        connection = await dialer.connect(listening.address, {})
        await listening.close()
        assert server.kinds() == ["connect", "close"]
        with pytest.raises(ConnectionClosed):
            await connection.receive()
        with pytest.raises(ConnectFailed):
            await dialer.connect(listening.address, {})

    on_a_port(body)


def test_a_connection_without_reader_holds_the_peer_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames nobody receives stop being read at the limit, and none is lost."""
    monkeypatch.setattr(stream, "RECEIVE_QUEUE_BYTES_MAX", 100_000)
    total = 200

    def act(connection: Connection, frame: bytes) -> None:
        for n in range(total):
            connection.send(n.to_bytes(4, "big") * 10_000)

    async def body(listening: GrpcListening, dialer: GrpcDialer, server: Recorder) -> None:
        connection = await dialer.connect(listening.address, {})
        connection.send(b"go")
        for n in range(total):
            assert (await connection.receive())[:4] == n.to_bytes(4, "big")
            assert connection._arrived_bytes <= 100_000 + 40_000
        connection.close()

    on_a_port(body, act)
