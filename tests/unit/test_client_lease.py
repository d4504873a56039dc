"""Leases: one holder at a time in true time, fencing tokens, renewal, and the ways to lose one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import k2store
from k2store.rpc.transport import Connection
from tests.unit.client_peer import START_NS, Peer, lose_once, play


async def other_client(db: k2store.Database) -> k2store.Database:
    """A second client of the same peer."""
    other = k2store.connect(
        "k2://a",
        dialer=db.session._dialer,
        monotonic_ns=db.session.bounded_time.monotonic_ns,
    )
    return await other.__aenter__()


def test_it_is_renewed_while_the_block_runs_and_then_given_back() -> None:
    """A block longer than the time to live keeps the lease; afterwards the row is gone."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        async with db.lease(b"l", "1s", holder=b"me") as lease:
            token = lease.token
            for _ in range(10):
                await asyncio.sleep(0.5)
                lease.check()
                assert 0 < lease.left_s <= 1.0
            assert lease.token == token == peer.rows[b"l"][0][0]
            assert len(peer.rows[b"l"]) > 10
        assert await db.get(b"l") is None
        assert not lease.held
        with pytest.raises(k2store.Expired):
            lease.check()

    play(scenario)


def test_one_holder_at_a_time_with_growing_tokens() -> None:
    """Contenders take turns: no two blocks overlap, and tokens only grow."""
    inside: list[int] = []
    tokens: list[int] = []

    async def work(db: k2store.Database) -> None:
        async with db.lease(b"l", "1s", wait="100s") as lease:
            assert not inside
            inside.append(1)
            tokens.append(lease.token)
            await asyncio.sleep(2)
            inside.pop()

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        tokens.clear()
        other = await other_client(db)
        await asyncio.gather(work(db), work(other), work(db), work(other))
        assert len(tokens) == 4
        assert tokens == sorted(tokens)
        await other.__aexit__(None, None, None)

    play(scenario)


def test_who_waits_too_long_gets_a_conflict() -> None:
    """A lease that somebody keeps is not had within the stated wait."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        async with db.lease(b"l", "1s"):
            with pytest.raises(k2store.Conflict, match="held by somebody else"):
                async with db.lease(b"l", "1s", wait="3s"):
                    pass

    play(scenario)


def test_a_cut_off_holder_stops_before_anybody_can_follow() -> None:
    """In true time the first block has left before the second one enters, whatever is cut."""
    left: list[int] = []

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        left.clear()
        other = await other_client(db)
        mine = peer.connections[0]

        def cut(peer: Peer, connection: Connection, request: Any) -> bool:
            return connection is mine

        async def hold() -> None:
            with pytest.raises(k2store.Expired):
                async with db.lease(b"l", "1s"):
                    peer.hooks.append(cut)
                    try:
                        await asyncio.sleep(60)
                    finally:
                        left.append(peer.now_ns())

        task = asyncio.ensure_future(hold())
        await asyncio.sleep(0.5)
        async with other.lease(b"l", "1s", wait="30s") as lease:
            entered = peer.now_ns()
            assert len(left) == 1
            assert left[0] < entered
            # And not much earlier than it had to: the expiry was one second after the last word.
            assert left[0] > START_NS + 990_000_000
            assert lease.token > peer.rows[b"l"][0][0]
        peer.hooks.clear()
        await task
        await other.__aexit__(None, None, None)

    play(scenario)


def test_a_deleted_row_ends_the_block() -> None:
    """Somebody deletes the lease's row: the block is cancelled and leaves with Expired."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        with pytest.raises(k2store.Expired, match="taken or deleted"):
            async with db.lease(b"l", "1s"):
                await db.delete(b"l")
                await asyncio.sleep(60)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    play(scenario)


def test_a_renewal_whose_answer_was_lost_is_recognised() -> None:
    """The renewal took, its answer did not arrive: the row is still ours and the block goes on."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        async with db.lease(b"l", "1s") as lease:
            peer.hooks.append(lose_once("one_shots", served=True))
            await asyncio.sleep(5)
            lease.check()

    play(scenario)


def test_a_cancelled_owner_stays_cancelled() -> None:
    """Cancellation from outside leaves the block as such, and gives the lease back."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        async def hold() -> None:
            async with db.lease(b"l", "1s"):
                await asyncio.sleep(60)

        task = asyncio.ensure_future(hold())
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await db.get(b"l") is None

    play(scenario)


def test_a_row_that_is_no_lease_is_refused() -> None:
    """A key that holds something else cannot be leased."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        await db.put(b"l", b"not a lease")
        with pytest.raises(k2store.Rejected, match="not a lease"):
            async with db.lease(b"l", "1s"):
                pass

    play(scenario, seeds=1)
