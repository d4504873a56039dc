"""Cases with the real node and client that chance meets seldom, told as scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import k2store
from k2store.testing.simulation import MILLISECOND_NS, SECOND_NS, Environment, Simulation
from k2store.testing.simulation.node import (
    PORT,
    Node,
    NodeKnobs,
    stamp_before_ns,
    stamp_time_ns,
)


def scene(simulation: Simulation, knobs: NodeKnobs) -> tuple[Any, Node]:
    """One node on a machine with a good clock."""
    node = Node(knobs)
    machine = simulation.machine("node", bound_ns=500_000)
    return simulation.process(machine, node.main), node


def connect(environment: Environment, **settings: Any) -> k2store.Database:
    """A client of that node."""
    return k2store.connect(
        f"k2://node:{PORT}",
        dialer=environment.transport,
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
