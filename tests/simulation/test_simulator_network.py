"""The simulated network keeps a transport's promises, and breaks all it did not promise."""

from __future__ import annotations

import asyncio
import random

import pytest

from k2store.rpc.transport import (
    FRAME_BYTES_MAX,
    SEND_QUEUE_BYTES_MAX,
    ConnectFailed,
    Connection,
    ConnectionClosed,
    Dialer,
    Handler,
    Listener,
    SendQueueFull,
)
from k2store.testing.simulation import (
    MILLISECOND_NS,
    SECOND_NS,
    Conditions,
    Environment,
    ProcessEnded,
    Simulation,
    UnhandledError,
)
from k2store.testing.simulation.partitions import SHAPES

CALM = Conditions(jitter=0, tail=0, stream_silence_ns=5 * SECOND_NS, connect_ns=8 * SECOND_NS)
A, B = "server", "client"
BOTH = ((A, B), (B, A))


class Recorder:
    """A handler that keeps what happens; echoes if told to."""

    def __init__(self, *, echo: bool = False) -> None:
        self.echo = echo
        self.events: list[str] = []
        self.frames: list[bytes] = []
        self.connection: Connection | None = None

    def on_connect(self, connection: Connection) -> None:
        """Remember the connection."""
        self.connection = connection
        self.events.append("connect")

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        """Remember the frame."""
        self.events.append("frame")
        self.frames.append(frame)
        if self.echo:
            connection.send(frame)

    def on_close(self, connection: Connection, reason: str) -> None:
        """Remember the reason."""
        self.events.append(f"close: {reason}")


class Pair:
    """A server that records and a client under the test's control, far apart."""

    def __init__(self, seed: int = 1, *, echo: bool = False, conditions: Conditions = CALM) -> None:
        self.simulation = Simulation(seed, conditions=conditions)
        self.recorder = Recorder(echo=echo)

        async def serve(environment: Environment) -> None:
            await environment.listen(1, self.recorder)
            await environment.stopping.wait()

        async def idle(environment: Environment) -> None:
            await environment.stopping.wait()

        self.server = self.simulation.process(self.simulation.machine(A, "fra"), serve)
        self.client = self.simulation.process(self.simulation.machine(B, "iad"), idle)

    def __enter__(self) -> Pair:
        self.simulation.__enter__()
        self.simulation.run_for(1)
        return self

    def __exit__(self, *arguments) -> None:
        self.simulation.__exit__(*arguments)

    @property
    def now_ns(self) -> int:
        """Virtual time."""
        return self.simulation.loop.now_ns

    def as_client(self, coroutine):
        """Run a coroutine in the client's process."""
        environment = self.client.environment
        assert environment is not None
        task = self.simulation.loop.create_task(
            coroutine, context=environment.domain.context.copy()
        )
        return self.simulation.run(task, limit_ns=100 * SECOND_NS)

    def connect(self, handler: Handler | None = None) -> Connection:
        """Connect client to server."""
        assert self.client.environment is not None
        return self.as_client(self.client.environment.connect(f"{A}:1", {"token": "x"}, handler))


def test_both_ports_are_implemented():
    """A process's transport is a Dialer and a Listener, and its connections are Connections."""
    with Pair() as pair:
        assert pair.client.environment is not None
        dialer: Dialer = pair.client.environment.transport
        listener: Listener = pair.client.environment.transport
        connection = pair.connect()
        for name in ("send", "drain", "receive", "close", "peer", "metadata", "closed"):
            assert hasattr(connection, name)
        assert dialer is listener
        assert connection.peer == f"{A}:1"
        assert pair.recorder.connection is not None
        assert pair.recorder.connection.metadata == {"token": "x"}
        assert pair.recorder.connection.peer == B


def test_a_round_trip_takes_the_latency_of_the_link():
    """Connecting takes one round trip and an echo another, to the nanosecond when all is calm."""
    with Pair(echo=True) as pair:
        round_trip_ns = 2 * CALM.far_ns
        began_ns = pair.now_ns
        connection = pair.connect()
        assert round_trip_ns <= pair.now_ns - began_ns < round_trip_ns + 1_000
        began_ns = pair.now_ns
        connection.send(b"ping")
        assert pair.as_client(connection.receive()) == b"ping"
        assert round_trip_ns <= pair.now_ns - began_ns < round_trip_ns + 1_000


def test_latency_is_by_region_and_has_a_tail():
    """Near is near, far is as listed, and about one arrival of a hundred is very late if asked."""
    conditions = Conditions(between_ns={"fra/iad": 45 * MILLISECOND_NS}, tail=0.01, jitter=0.1)
    with Simulation(1, conditions=conditions) as simulation:
        for name, region in (("a", "fra"), ("b", "fra"), ("c", "iad")):
            simulation.machine(name, region)
        near = [simulation.network.link("a", "b").arrival_ns(0, 0) for _ in range(2_000)]
        far = [simulation.network.link("a", "c").arrival_ns(0, 0) for _ in range(2_000)]
    assert min(near) >= 250_000
    assert 45 * MILLISECOND_NS <= min(far) < 46 * MILLISECOND_NS
    late = sum(delay > 1.11 * 45 * MILLISECOND_NS for delay in far)
    assert 5 <= late <= 40


def test_frames_keep_their_order_whatever_the_delays():
    """Over a lossy, jittery link with cuts and a paused receiver, frames arrive in order, once."""
    wild = Conditions(jitter=5, tail=0.2, stream_silence_ns=100 * SECOND_NS)
    with Pair(3, conditions=wild) as pair:
        connection = pair.connect()
        pair.simulation.network.link(B, A).loss = 0.2
        sent = [b"%d" % number for number in range(300)]
        for number, frame in enumerate(sent):
            connection.send(frame)
            pair.simulation.run_for(10 * MILLISECOND_NS)
            if number == 50:
                pair.simulation.network.cut(BOTH)
            if number == 100:
                pair.simulation.network.heal(BOTH)
            if number == 150:
                assert pair.server.pause()
            if number == 250:
                assert pair.server.resume() > 50
        pair.simulation.run_for(60 * SECOND_NS)
        assert pair.recorder.frames == sent


def test_a_cut_stops_one_direction_and_healing_delivers():
    """With one way cut the other stays open, and what waited arrives once it is healed."""
    with Pair() as pair:
        connection = pair.connect()
        pair.simulation.network.cut([(B, A)])
        connection.send(b"late")
        assert pair.recorder.connection is not None
        pair.recorder.connection.send(b"back")
        assert pair.as_client(connection.receive()) == b"back"
        pair.simulation.run_for(2 * SECOND_NS)
        assert pair.recorder.frames == []
        pair.simulation.network.heal([(B, A)])
        pair.simulation.run_for(1 * SECOND_NS)
        assert pair.recorder.frames == [b"late"]
        assert not connection.closed


def test_overlapping_cuts_are_healed_one_by_one():
    """A link that two faults have cut is whole only when both have ended."""
    with Pair() as pair:
        connection = pair.connect()
        pair.simulation.network.cut(BOTH)
        pair.simulation.network.cut([(B, A)])
        connection.send(b"x")
        pair.simulation.network.heal(BOTH)
        pair.simulation.run_for(1 * SECOND_NS)
        assert pair.recorder.frames == []
        pair.simulation.network.heal([(B, A)])
        pair.simulation.run_for(1 * SECOND_NS)
        assert pair.recorder.frames == [b"x"]


def test_silence_ends_a_stream_at_both_ends():
    """A cut that outlasts the keep-alive closes the connection here and there."""
    with Pair() as pair:
        ours = Recorder()
        connection = pair.connect(ours)
        pair.simulation.network.cut(BOTH)
        pair.simulation.run_for(6 * SECOND_NS)
        assert connection.closed
        assert ours.events == ["connect", "close: connection reset"]
        assert pair.recorder.events == ["connect", "close: connection reset"]
        with pytest.raises(ConnectionClosed):
            connection.send(b"x")


def test_a_reset_delivers_some_first_part():
    """Over seeds, a reset lets every number of the frames under way arrive: all, none, some."""
    arrived = set()
    for seed in range(60):
        with Pair(seed) as pair:
            connection = pair.connect()
            for number in range(4):
                connection.send(b"%d" % number)
            assert pair.simulation.network.reset(A, B) == 1
            pair.simulation.run_for(1 * SECOND_NS)
            frames = pair.recorder.frames
            assert frames == [b"0", b"1", b"2", b"3"][: len(frames)]
            assert connection.closed
            arrived.add(len(frames))
    assert arrived == {0, 1, 2, 3, 4}


def test_close_delivers_what_was_sent_before():
    """The peer gets every frame and then the end; our own handler hears of the end too, later."""
    with Pair() as pair:
        ours = Recorder()
        connection = pair.connect(ours)
        connection.send(b"last words")
        connection.close("done")
        connection.close("again")
        assert connection.closed
        assert ours.events == ["connect"]
        pair.simulation.run_for(1 * SECOND_NS)
        assert ours.events == ["connect", "close: done"]
        assert pair.recorder.events == ["connect", "frame", "close: closed by the peer"]


def test_a_killed_process_is_noticed_by_its_peers():
    """A kill closes its streams within a latency, while a power cut takes the keep-alive."""
    with Pair() as pair:
        connection = pair.connect()
        pair.server.kill()
        pair.simulation.run_for(100 * MILLISECOND_NS)
        assert connection.closed
    with Pair() as pair:
        connection = pair.connect()
        pair.server.power_cut()
        pair.simulation.run_for(4 * SECOND_NS)
        assert not connection.closed
        pair.simulation.run_for(2 * SECOND_NS)
        assert connection.closed


def test_a_restarted_machine_resets_streams_it_does_not_know():
    """After a power cut and a quick restart the first frame on the old stream is answered by a
    reset."""
    with Pair() as pair:
        connection = pair.connect()
        pair.server.power_cut()
        connection.send(b"into the void")
        pair.simulation.run_for(1 * SECOND_NS)
        pair.server.start()
        pair.simulation.run_for(1 * SECOND_NS)
        assert not connection.closed
        connection.send(b"who are you?")
        pair.simulation.run_for(200 * MILLISECOND_NS)
        assert connection.closed
        assert pair.recorder.frames == []


def test_a_connection_is_refused_or_times_out():
    """Nobody listening, no such host, and no answer at all are three different failures."""
    with Pair() as pair:
        environment = pair.client.environment
        assert environment is not None
        for address in (f"{A}:2", "nowhere:1"):
            with pytest.raises(ConnectFailed):
                pair.as_client(environment.connect(address))
        pair.simulation.network.cut(BOTH)
        began_ns = pair.now_ns
        with pytest.raises(ConnectFailed, match="timed out"):
            pair.connect()
        assert 3 * SECOND_NS < pair.now_ns - began_ns <= CALM.connect_ns


def test_a_connection_comes_about_once_a_cut_ends():
    """Dialling through a short cut succeeds by asking again."""
    with Pair() as pair:
        pair.simulation.network.cut(BOTH)
        loop = pair.simulation.loop
        loop.schedule(
            loop.now_ns + 2 * SECOND_NS,
            loop.world.context,
            lambda: pair.simulation.network.heal(BOTH),
        )
        assert not pair.connect().closed


def test_giving_up_on_a_connection_leaves_none_behind():
    """A dialler that is cancelled closes what it may have opened, at every stage of it."""
    for delay_ms in (10, 60, 79, 81):
        with Pair() as pair:

            async def impatient(patience_ms: int, pair: Pair = pair) -> None:
                assert pair.client.environment is not None
                async with asyncio.timeout(patience_ms / 1_000):
                    await pair.client.environment.connect(f"{A}:1")

            if delay_ms < 80:
                with pytest.raises(TimeoutError):
                    pair.as_client(impatient(delay_ms))
            else:
                pair.as_client(impatient(delay_ms))
                continue
            pair.simulation.run_for(1 * SECOND_NS)
            assert pair.recorder.events in ([], ["connect", "close: closed by the peer"])
            assert pair.simulation.network.hosts[A].endpoints == {}


def test_a_sender_is_held_back_by_a_slow_receiver():
    """The queue has a limit, drain waits for half of it, and nothing is lost meanwhile."""
    frame = bytes(FRAME_BYTES_MAX)
    with Pair() as pair:
        connection = pair.connect()
        pair.server.pause()
        count = SEND_QUEUE_BYTES_MAX // FRAME_BYTES_MAX
        for _ in range(count):
            connection.send(frame)
        with pytest.raises(SendQueueFull):
            connection.send(b"x")
        assert connection.queued_bytes == SEND_QUEUE_BYTES_MAX
        pair.simulation.run_for(1 * SECOND_NS)
        assert connection.queued_bytes == SEND_QUEUE_BYTES_MAX
        pair.server.resume()
        pair.as_client(connection.drain())
        assert connection.queued_bytes < SEND_QUEUE_BYTES_MAX // 2
        pair.simulation.run_for(1 * SECOND_NS)
        assert len(pair.recorder.frames) == count
        with pytest.raises(ValueError, match="limit"):
            connection.send(frame + b"x")


def test_unread_frames_count_against_the_sender():
    """A client that never calls receive holds its server back, and reading releases it."""
    with Pair() as pair:
        connection = pair.connect()
        server_end = pair.recorder.connection
        assert server_end is not None
        for _ in range(3):
            server_end.send(bytes(FRAME_BYTES_MAX))
        pair.simulation.run_for(1 * SECOND_NS)
        assert server_end.queued_bytes == 3 * FRAME_BYTES_MAX
        pair.as_client(connection.receive())
        assert server_end.queued_bytes == 2 * FRAME_BYTES_MAX


def test_drain_ends_when_the_connection_does():
    """A sender that waits for room learns of the end instead of waiting for ever."""
    for end in ("kill", "reset", "power"):
        with Pair() as pair:
            connection = pair.connect()
            pair.server.pause()
            for _ in range(4):
                connection.send(bytes(FRAME_BYTES_MAX))
            waiting = pair.simulation.loop.create_task(connection.drain())
            pair.simulation.run_for(1 * SECOND_NS)
            match end:
                case "kill":
                    pair.server.kill()
                case "reset":
                    pair.simulation.network.reset(A, B)
                case "power":
                    pair.server.power_cut()
            with pytest.raises(ConnectionClosed):
                pair.simulation.run(waiting, limit_ns=10 * SECOND_NS)


def test_a_handler_that_raises_fails_the_run():
    """An exception in on_frame is not swallowed by the network."""
    with Pair() as pair:
        pair.recorder.frames = None  # type: ignore[assignment]
        pair.connect().send(b"x")
        with pytest.raises(UnhandledError):
            pair.simulation.run_for(1 * SECOND_NS)


def test_a_listener_closes_its_connections():
    """Closing a door refuses newcomers at once and ends the others after the grace."""
    with Pair() as pair:
        ours = Recorder()
        assert pair.server.environment is not None
        connection = pair.connect(ours)
        door = pair.simulation.network.hosts[A].acceptors[f"{A}:1"]
        closing = pair.simulation.loop.create_task(door.close(2.0))
        pair.simulation.run_for(1 * SECOND_NS)
        assert not connection.closed
        with pytest.raises(ConnectFailed):
            pair.connect()
        pair.simulation.run(closing)
        pair.simulation.run_for(1 * SECOND_NS)
        assert connection.closed
        assert ours.events[-1] == "close: closed by the peer"


def test_an_address_is_taken_once():
    """Listening twice, or on another machine's name, is an error of the system; port 0 is free."""
    with Pair() as pair:
        environment = pair.client.environment
        assert environment is not None
        with pytest.raises(OSError, match="not an address"):
            pair.as_client(environment.transport.listen(f"{A}:1", Recorder()))
        first = pair.as_client(environment.listen(0, Recorder()))
        with pytest.raises(OSError, match="taken"):
            pair.as_client(environment.transport.listen(first.address, Recorder()))


def test_datagrams_are_lost_doubled_and_overtaken():
    """A bad link does all three, a good one none of them, and a cut stops everything."""
    with Pair() as pair:
        seen: list[bytes] = []
        pair.simulation.network.hosts[A].datagrams = lambda source, payload: seen.append(payload)
        link = pair.simulation.network.link(B, A)

        def send(count: int) -> list[int]:
            seen.clear()
            for number in range(count):
                pair.simulation.network.send_datagram(B, f"{A}:1", b"%d" % number)
                pair.simulation.run_for(1 * MILLISECOND_NS)
            pair.simulation.run_for(1 * SECOND_NS)
            return [int(payload) for payload in seen]

        assert send(100) == list(range(100))
        link.loss = link.duplicate = link.reorder = 0.2
        numbers = send(200)
        assert 130 < len(set(numbers)) < 190
        assert len(numbers) > len(set(numbers))
        assert numbers != sorted(numbers)
        link.loss = 0
        pair.simulation.network.cut([(B, A)])
        assert send(10) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_partitions_have_their_shape(shape):
    """Each shape cuts what its name says, for every number of hosts from two to nine."""
    for count in range(2, 10):
        hosts = [f"h{number}" for number in range(count)]
        for seed in range(20):
            pairs = set(SHAPES[shape](hosts, random.Random(seed)))
            assert pairs
            assert all(one != other for one, other in pairs)
            mutual = all((other, one) in pairs for one, other in pairs)
            cut_off = [h for h in hosts if all((h, o) in pairs for o in hosts if o != h)]
            reached = {h: [o for o in hosts if (h, o) not in pairs] for h in hosts}
            match shape:
                case "one-way":
                    assert not any((other, one) in pairs for one, other in pairs)
                case "isolate":
                    assert mutual
                    assert cut_off
                    assert len(pairs) == 2 * (count - 1)
                case "halves":
                    assert mutual
                    assert len({tuple(seen) for seen in reached.values()}) == 2
                case "bridge" if count > 2:
                    assert mutual
                    assert sum(len(seen) == count for seen in reached.values()) == 1
                case "ring" if count > 4:
                    assert mutual
                    assert len({len(seen) for seen in reached.values()}) == 1
                    assert not cut_off


def test_a_dead_process_sends_nothing_more():
    """What a killed process's code still tries with its connection reaches nobody."""
    with Pair() as pair:
        connection = pair.connect()
        pair.client.kill()
        with pytest.raises(ConnectionClosed):
            connection.send(b"ghost")
        pair.simulation.run_for(1 * SECOND_NS)
        assert pair.recorder.frames == []
        with pytest.raises(ProcessEnded):
            pair.simulation.run(pair.client.wait())
