"""Cases with the real node and client that chance meets seldom, told as scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

import k2store
from k2store.rpc.transport import Connection, Dialer, Handler
from k2store.storage import StorageFailed
from k2store.testing.simulation import MILLISECOND_NS, SECOND_NS, Environment, Simulation
from k2store.testing.simulation.node import (
    FAIL_STOP,
    PORT,
    Node,
    NodeKnobs,
    stamp_before_ns,
    stamp_time_ns,
)
from k2store.v1 import session_pb2 as wire


def scene(simulation: Simulation, knobs: NodeKnobs) -> tuple[Any, Node]:
    """One node on a machine with a good clock."""
    node = Node(knobs)
    machine = simulation.machine("node", bound_ns=500_000)
    return simulation.process(machine, node.main), node


class Overhearing:
    """A dialer that notes the stamps of the commits that watches are told of, as they come."""

    def __init__(self, dialer: Dialer) -> None:
        self.told: list[int] = []
        self._dialer = dialer
        self._handler: Handler | None = None

    async def connect(
        self, address: str, metadata: Mapping[str, str], handler: Handler | None = None
    ) -> Connection:
        """As the dialer behind it does."""
        self._handler = handler
        return await self._dialer.connect(address, metadata, self)

    def on_connect(self, connection: Connection) -> None:
        """A connection stands."""
        assert self._handler is not None
        self._handler.on_connect(connection)

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        """Something was answered."""
        for events in wire.SessionResponse.FromString(frame).watch_events:
            self.told += events.at
        assert self._handler is not None
        self._handler.on_frame(connection, frame)

    def on_close(self, connection: Connection, reason: str) -> None:
        """The connection has ended."""
        assert self._handler is not None
        self._handler.on_close(connection, reason)


def connect(
    environment: Environment, dialer: Dialer | None = None, **settings: Any
) -> k2store.Database:
    """A client of that node."""
    return k2store.connect(
        f"k2://node:{PORT}",
        dialer=dialer or environment.transport,
        monotonic_ns=environment.clock.monotonic_ns,
        rng=environment.random("client"),
        settings=k2store.ClientSettings(**settings),
    )


def early_writes(
    pause: Callable[[Environment, Any], Awaitable[None]],
) -> tuple[int, dict[bytes, bytes | None]]:
    """Two writes that leave before their commit; `pause(server)` happens in between.

    Gives the attempts it took and what is stored in the end.
    """
    attempts = 0
    with Simulation(1) as simulation:
        server, _ = scene(simulation, NodeKnobs(lifetime_ns=SECOND_NS))

        async def main(environment: Environment) -> dict[bytes, bytes | None]:
            nonlocal attempts
            async with connect(environment, early_write_count=1, timeout_s=20.0) as database:
                async for txn in database.transactions():
                    async with txn:
                        attempts += 1
                        txn.put(b"one", b"1")
                        txn.put(b"two", b"2")
                        await asyncio.sleep(0.1)
                        if attempts == 1:
                            await pause(environment, server)
                return await database.get_many((b"one", b"two"))

        client = simulation.process("client", main)
        stored: Any
        (stored,) = simulation.wait_for([client], 60 * SECOND_NS)
        simulation.check()
        return attempts, stored


def test_early_writes_survive_a_restart_of_the_node():
    """A commit whose early writes a restarted node does not know is run again, not half done."""

    async def restart(environment, server):
        environment.loop.schedule(
            environment.loop.now_ns, environment.loop.world.context, server.restart
        )
        await asyncio.sleep(1.0)

    attempts, stored = early_writes(restart)
    assert attempts == 2
    assert stored == {b"one": b"1", b"two": b"2"}


def test_early_writes_survive_the_end_of_their_transaction():
    """A commit that comes after the longest life of its transaction does not lose its writes."""

    async def stall(environment, server):
        await asyncio.sleep(1.5)

    attempts, stored = early_writes(stall)
    assert attempts == 2
    assert stored == {b"one": b"1", b"two": b"2"}


def test_a_watch_resumes_from_far_behind():
    """A backlog longer than a watch's queue is told, not taken for a slow reader."""
    with Simulation(2) as simulation:
        scene(simulation, NodeKnobs(watch_queue_max=4))

        async def main(environment: Environment) -> list[int]:
            async with connect(environment) as database:
                stamps = [await database.put(b"key/%d" % number, b"") for number in range(20)]
                told = []
                async with database.watch(k2store.EVERYTHING, since=stamps[0] - 1) as watch:
                    async for event in watch:
                        if isinstance(event, k2store.Changes):
                            told.append(event.at)
                        if len(told) == len(stamps):
                            break
                assert told == stamps
                return told

        client = simulation.process("client", main)
        told: Any
        (told,) = simulation.wait_for([client], 60 * SECOND_NS)
        assert len(told) == 20


def test_a_scan_ends_where_it_ends_for_whoever_answers_it():
    """A partition may still be whole for its replica when the route has two: its answer is then all there
    is. The node once told such a scan to go on at the end of the replica's range, which was none."""
    with Simulation(2) as simulation:
        _, node = scene(simulation, NodeKnobs(split_keys=(b"m",)))

        async def main(environment: Environment) -> list[bytes]:
            async with connect(environment) as database:
                for key in (b"a", b"z"):
                    await database.put(key, b"")
                assert node.engine is not None
                left, right = node.engine.partitions
                right.state.settle()  # where the replica of all of it would have the row
                left.state.end = b""
                return [row.key async for row in database.scan(k2store.EVERYTHING)]

        client = simulation.process("client", main)
        rows: Any
        (rows,) = simulation.wait_for([client], 60 * SECOND_NS)
        assert rows == [b"a", b"z"]


def test_a_watch_is_told_what_lies_above_its_cursor():
    """The commit at the cursor is not told again by the node, though the client would pass it over."""
    with Simulation(2) as simulation:
        scene(simulation, NodeKnobs())

        async def main(environment: Environment) -> tuple[list[int], list[int]]:
            dialer = Overhearing(environment.transport)
            async with connect(environment, dialer) as database:
                stamps = [await database.put(b"key/%d" % number, b"") for number in range(4)]
                async with database.watch(k2store.EVERYTHING, since=stamps[1]) as watch:
                    async for event in watch:
                        if event.at >= stamps[3]:
                            break
            return dialer.told, stamps

        client = simulation.process("client", main)
        result: Any
        (result,) = simulation.wait_for([client], 60 * SECOND_NS)
        told, stamps = result
        assert told == stamps[2:]


def test_verdicts_on_unknown_transactions_are_confirmed():
    """What a node decides on a commit that it no longer knows is confirmed by all participants."""
    with Simulation(3) as simulation:
        server, node = scene(
            simulation,
            NodeKnobs(split_keys=(b"m",), lifetime_ns=SECOND_NS // 2, expiry_ns=SECOND_NS // 2),
        )

        async def main(environment: Environment) -> None:
            async with connect(environment, timeout_s=10.0) as database:
                async for txn in database.transactions():
                    async with txn:
                        await txn.get(b"z")
                        txn.put(b"z", b"1")
                        txn.put(b"a", b"1")
                        if txn.id[-1] == 1:
                            server.pause()
                            environment.loop.schedule(
                                environment.loop.now_ns + SECOND_NS,
                                environment.loop.world.context,
                                server.resume,
                            )

        client = simulation.process("client", main)
        simulation.wait_for([client], 60 * SECOND_NS)
        simulation.run_for(2_000 * MILLISECOND_NS)
        assert node.unfinished() == []


def test_who_was_told_a_stamp_of_the_future_is_served_when_it_has_passed():
    """A node with a wrong clock does not end its clients for good: good nodes take them again."""
    ahead_ns = 2 * SECOND_NS
    with Simulation(4) as simulation:
        scene(simulation, NodeKnobs())

        async def main(environment: Environment) -> int:
            async with connect(environment) as database:
                first = await database.put(b"key", b"before")
                # As if another node, whose clock is wrong, had answered last.
                database.session.seen = stamp_before_ns(stamp_time_ns(first) + ahead_ns)
                while True:
                    try:
                        later = await database.put(b"key", b"after")
                    except k2store.Unavailable:
                        await asyncio.sleep(0.1)
                    else:
                        return stamp_time_ns(later) - stamp_time_ns(first)

        client = simulation.process("client", main)
        took_ns: Any
        (took_ns,) = simulation.wait_for([client], 20 * SECOND_NS)
        simulation.check()
        assert took_ns >= ahead_ns - MILLISECOND_NS


def test_a_node_stops_when_its_disk_refuses_to_let_old_segments_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sync that fails comes from no request: the node stops all the same, and comes back."""
    with Simulation(5) as simulation:
        node = Node(NodeKnobs(segment_bytes=1 << 14))
        machine = simulation.machine("node", bound_ns=500_000)
        server = simulation.process(
            machine, node.main, fail_stop=FAIL_STOP, restart_ns=100 * MILLISECOND_NS
        )

        async def main(environment: Environment) -> int:
            async with connect(environment, timeout_s=20.0) as database:
                await database.put(b"key", b"")
                assert node.engine is not None
                log = node.engine.log
                drop = log.drop_before

                def refuse(turn: int) -> int:
                    machine.disk.fail_syncs(1)
                    return drop(turn)

                monkeypatch.setattr(log, "drop_before", refuse)
                for number in range(40):
                    await database.put(b"key", bytes(1_000) + b"%d" % number)
                return node.starts

        client = simulation.process("client", main)
        starts: Any
        (starts,) = simulation.wait_for([client], 60 * SECOND_NS)
        simulation.check()
        assert starts == 2
        assert [type(error) for error in server.exits] == [StorageFailed]


def test_a_watch_whose_past_is_collected_meanwhile_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it still has to read is protected by its own node only: elsewhere it may be collected."""
    knobs = NodeKnobs(
        lifetime_ns=10 * SECOND_NS,
        retention_ns=SECOND_NS,
        collect_every_ns=100 * MILLISECOND_NS,
    )
    with Simulation(6) as simulation:
        _, node = scene(simulation, knobs)
        told: list[bytes | None] = []

        async def watch(database: k2store.Database, since: int) -> str:
            try:
                async with database.watch(k2store.prefix(b"key"), since=since) as watching:
                    async for event in watching:
                        if isinstance(event, k2store.Changes):
                            told.extend(record.value for record in event.records)
                        if told and told[-1] == b"last":
                            return "to the end"
            except k2store.TooOld:
                return "too old"
            return "ended"

        async def main(environment: Environment) -> str:
            async with connect(environment, early_write_count=1) as database:
                first = await database.put(b"key", b"first")
                assert node.engine is not None
                # As at a node that does not lead, of whose watches the leader knows nothing.
                monkeypatch.setattr(node.engine.feed, "oldest", lambda: 0)
                for number in range(5):
                    await database.put(b"key", b"%d" % number)
                async for txn in database.transactions():
                    async with txn:
                        txn.put(b"other", b"")
                        await asyncio.sleep(0.1)
                        watching = environment.loop.create_task(watch(database, first))
                        await asyncio.sleep(3.0)
                await database.put(b"key", b"last")
                return await watching

        client = simulation.process("client", main)
        outcome: Any
        (outcome,) = simulation.wait_for([client], 60 * SECOND_NS)
        simulation.check()
        assert (outcome, told) == ("too old", [])
