"""Watches: whole commits in order, marks, resuming without gap or repetition, slow readers."""

from __future__ import annotations

import asyncio

import pytest

import k2store
from k2store.client.settings import ClientSettings
from k2store.client.watch import Change
from tests.unit.client_peer import Peer, play


async def settle() -> None:
    """Let everything that is under way arrive."""
    await asyncio.sleep(0.01)


def test_commits_arrive_whole_and_marks_follow() -> None:
    """A commit is one event with all its changes in the range; a mark says that no more come."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        since = await db.put(b"m/0", b"before")
        async with db.watch(b"m/", since=since) as watch:
            await settle()
            async for txn in db.transactions():
                async with txn:
                    txn.put(b"m/b", b"1")
                    txn.put(b"m/a", b"2")
                    txn.put(b"other", b"3")
            gone = await db.delete(b"m/0")
            peer.tell()
            first = await anext(watch)
            assert first == k2store.Changes(
                txn.committed_at or 0, (Change(b"m/a", b"2"), Change(b"m/b", b"1"))
            )
            assert watch.cursor == txn.committed_at
            assert await anext(watch) == k2store.Changes(gone, (Change(b"m/0", None),))
            mark = await anext(watch)
            assert isinstance(mark, k2store.Resolved)
            assert watch.cursor == mark.at >= gone
        with pytest.raises(StopAsyncIteration):
            await anext(watch)
        await settle()
        assert peer.progress[-1][2]

    play(scenario)


@pytest.mark.parametrize("told", range(6))
def test_a_lost_connection_makes_no_gap_and_no_repetition(told: int) -> None:
    """Wherever the connection ends, every commit comes exactly once and in order."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        since = await db.put(b"w", b"start")
        async with db.watch(b"w", since=since) as watch:
            await settle()
            stamps = [await db.put(b"w%d" % number, b"v") for number in range(5)]
            peer.tell(lose_after=told)
            await asyncio.sleep(0.2)
            stamps.append(await db.put(b"w9", b"v"))
            peer.tell()
            seen = [await anext(watch) for _ in stamps]
            assert [event.at for event in seen] == stamps
            assert isinstance(await anext(watch), k2store.Resolved)

    play(scenario)


def test_a_watch_from_now_misses_nothing_when_its_start_is_lost() -> None:
    """Lost before the node said where "now" was, it goes on from no later than that."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        await db.put(b"w", b"start")
        async with db.watch(b"w") as watch:
            await settle()
            assert [call.since for one in peer.requests for call in one.watches] == [0]
            at = await db.put(b"w", b"missed?")
            peer.connections[-1].close("lost")
            await asyncio.sleep(0.2)
            peer.tell()
            events = [await anext(watch) for _ in range(2)]
            assert at in [event.at for event in events]

    play(scenario)


def test_consumption_is_reported_in_portions() -> None:
    """The node learns what was consumed often enough to go on, and not with every event."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        async with db.watch(b"w", since=1) as watch:
            await settle()
            for number in range(3000):
                peer.rows[b"w%04d" % number].append((peer.stamp(), b"v"))
            peer.tell()
            for number in range(3000):
                await anext(watch)
                if number % 100 == 0:
                    await settle()
            assert [consumed for _, consumed, _ in peer.progress] == [1024, 2048]

    play(scenario, seeds=2)


def test_a_slow_reader_gets_what_arrived_and_then_a_typed_failure() -> None:
    """Beyond its buffer a watch ends with Overloaded, and its cursor is where to go on."""
    settings = ClientSettings(watch_events_max=10)

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        watch = db.watch(b"w", since=1)
        reader = asyncio.ensure_future(anext(watch))
        await settle()
        stamps = [await db.put(b"w%02d" % number, b"v") for number in range(12)]
        peer.tell(mark=False)
        assert (await reader).at == stamps[0]
        for stamp in stamps[1:]:
            assert (await anext(watch)).at == stamp
        with pytest.raises(k2store.Overloaded, match="behind"):
            await anext(watch)
        assert watch.cursor == stamps[-1]

    play(scenario, settings=settings)


def test_a_cursor_behind_the_horizon_is_too_old() -> None:
    """The node's refusal comes out typed, with the stamp from which to start again."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        watch = db.watch(b"w", since=1)
        reader = asyncio.ensure_future(anext(watch))
        await settle()
        ((request, (connection, _)),) = peer.watches.items()
        answer = peer.frame()
        events = answer.watch_events.add(request=request)
        events.failure.reason = "TooOld"
        events.failure.stamp = 99
        connection.send(answer.SerializeToString())
        with pytest.raises(k2store.TooOld) as raised:
            await reader
        assert raised.value.horizon == 99

    play(scenario)


def test_a_watch_has_one_reader() -> None:
    """Two tasks cannot share the order of one watch."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        watch = db.watch(b"w", since=1)
        first = asyncio.ensure_future(anext(watch))
        await settle()
        with pytest.raises(k2store.Rejected, match="one reader"):
            await anext(watch)
        watch.close()
        with pytest.raises(StopAsyncIteration):
            await first

    play(scenario, seeds=1)
