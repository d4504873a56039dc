"""Transactions of the client: attempts, outcomes, buffered writes, and the end of their use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import k2store
from k2store.client.settings import ClientSettings
from k2store.rpc.transport import Connection
from k2store.testing.simulation.loop import UnhandledError
from k2store.v1 import session_pb2 as wire
from tests.unit.client_peer import Peer, fail_once, lose_once, play


async def increment(db: k2store.Database, key: bytes) -> int:
    """Add one to a counter; how many attempts it took."""
    attempts = 0
    async for txn in db.transactions():
        async with txn:
            attempts += 1
            txn.put(key, b"%d" % (int(await txn.get(key) or 0) + 1))
    return attempts


def test_read_and_write_commit_together() -> None:
    """A block that reads and writes commits both with one message after its read."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        async for txn in db.transactions():
            async with txn:
                assert await txn.get(b"k") is None
                txn.put(b"k", b"1")
        assert await db.get(b"k") == b"1"
        assert txn.committed_at == peer.rows[b"k"][0][0]
        commits = [one for one in peer.requests if one.commits.request]
        assert len(commits) == 1
        assert list(commits[0].commits.at) == [txn.at]

    play(scenario)


def test_concurrent_increments_lose_nothing() -> None:
    """Conflicting transactions are retried as new attempts until each has counted once."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        attempts = await asyncio.gather(*(increment(db, b"n") for _ in range(8)))
        assert await db.get(b"n") == b"8"
        assert sum(attempts) > 8
        assert len({txn[:14] for txn in peer.applied}) == 8
        assert max(txn[14] for txn in peer.applied) > 0

    play(scenario)


def test_a_lost_answer_is_resolved_before_any_retry() -> None:
    """The commit took and its answer was lost: the body does not run again."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(lose_once("commits", served=True))
        assert await increment(db, b"n") == 1
        assert peer.rows[b"n"][-1][1] == b"1"
        asked = [one for one in peer.requests if one.outcomes]
        assert [question.decide for question in asked[0].outcomes] == [True]
        assert asked[0].outcomes[0].anchor == b"n"

    play(scenario)


def test_a_lost_commit_is_resolved_and_then_done_again() -> None:
    """The commit never arrived: its record is aborted for good, and a new attempt follows."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(lose_once("commits", served=False))
        assert await increment(db, b"n") == 2
        assert [value for _, value in peer.rows[b"n"]] == [b"1"]
        assert list(peer.outcomes.values()).count(0) == 1

    play(scenario)


def test_an_outcome_is_asked_for_until_somebody_answers() -> None:
    """Refused and lost questions are asked again: the outcome is learned before the deadline."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(lose_once("commits", served=True))
        peer.hooks.append(lose_once("outcomes", served=False))
        peer.hooks.append(fail_once("outcomes", reason="Unavailable", message="no leader"))
        assert await increment(db, b"n") == 1

    play(scenario)


def test_an_outcome_that_cannot_be_learned_is_raised_and_can_be_asked_later() -> None:
    """Without an answer until the deadline the caller gets the id, and no retry happens."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(lose_once("commits", served=True))

        def deaf(peer: Peer, connection: Any, request: Any) -> bool:
            return bool(request.outcomes)

        peer.hooks.append(deaf)
        with pytest.raises(k2store.OutcomeUnknown) as raised:
            await increment(db, b"n")
        peer.hooks.clear()
        assert raised.value.transaction == peer.applied[0].hex()
        outcome = await db.outcome(raised.value.transaction)
        assert (outcome.state, outcome.at) == ("committed", peer.rows[b"n"][0][0])

    play(scenario)


@pytest.mark.parametrize("reason", ["OutcomeUnknown", "Unavailable", "Deadline", "Corruption"])
def test_a_doubtful_answer_to_a_commit_is_resolved(reason: str) -> None:
    """A node that does not know whether a commit took is asked for its record first."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(fail_once("commits", reason=reason))
        assert await increment(db, b"n") == 2
        assert any(one.outcomes for one in peer.requests)

    play(scenario, seeds=1)


def test_the_budget_of_attempts_ends_in_the_failure_itself() -> None:
    """After the last attempt the conflict comes out of the block, with its fields."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        for _ in range(3):
            peer.hooks.append(fail_once("commits", reason="Conflict", rule="read_by", key=b"k"))
        count = 0
        with pytest.raises(k2store.Conflict) as raised:
            async for txn in db.transactions(attempts=3):
                async with txn:
                    count += 1
                    txn.put(b"k", b"1")
        assert count == 3
        assert (raised.value.rule, raised.value.key) == ("read_by", b"k")

    play(scenario)


def test_late_attempts_are_placed_in_the_future() -> None:
    """Ids never repeat; only after several attempts does the last byte ask for a later stamp."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        for _ in range(300):
            peer.hooks.append(fail_once("commits", reason="Conflict"))
        names = []
        async for txn in db.transactions(attempts=301, timeout="10m"):
            async with txn:
                names.append(txn.id)
                txn.put(b"k", b"1")
        assert len(names) == len(set(names)) == 301
        assert [name[14] for name in names[:3]] == [0, 1, 2]
        assert [name[15] for name in names[:11]] == [1] * 8 + [2, 3, 4]

    play(scenario, seeds=1)


def test_a_failure_that_permits_no_retry_is_raised_at_once() -> None:
    """Rejected and the like are not repeated."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(fail_once("reads", reason="TooOld", stamp=77))
        with pytest.raises(k2store.TooOld) as raised:
            await increment(db, b"n")
        assert raised.value.horizon == 77
        assert not any(one.commits.request for one in peer.requests)

    play(scenario)


def test_an_error_of_the_body_rolls_back() -> None:
    """Nothing of a block that raises is written, and the node is told."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        with pytest.raises(ZeroDivisionError):
            async for txn in db.transactions():
                async with txn:
                    await txn.get(b"k")
                    txn.put(b"k", b"1")
                    _ = 1 // 0
        assert await db.get(b"k") is None
        assert txn.state.name == "ROLLED_BACK"
        assert [one.rollbacks[0].txn for one in peer.requests if one.rollbacks] == [txn.id]

    play(scenario)


def test_a_swallowed_failure_does_not_look_like_a_commit() -> None:
    """A body that catches the conflict of its read is still run again."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(fail_once("reads", reason="Conflict"))
        count = 0
        async for txn in db.transactions():
            async with txn:
                count += 1
                try:
                    await txn.get(b"k")
                except k2store.Conflict:
                    pass
                else:
                    txn.put(b"k", b"1")
        assert count == 2
        assert await db.get(b"k") == b"1"

    play(scenario)


def test_a_failure_inside_a_task_group_is_retried() -> None:
    """The conflict of a read that comes out wrapped by a task group is still the conflict."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(fail_once("reads", reason="Conflict"))
        count = 0
        async for txn in db.transactions():
            async with txn:
                count += 1
                async with asyncio.TaskGroup() as group:
                    group.create_task(txn.get(b"k"))
                txn.put(b"k", b"1")
        assert count == 2

    play(scenario)


def test_somebody_elses_conflict_is_not_ours() -> None:
    """A failure of the same class that another call raised leaves the block as it is."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        with pytest.raises(k2store.Conflict, match="mine"):
            async for txn in db.transactions():
                async with txn:
                    raise k2store.Conflict("mine")

    play(scenario, seeds=1)


def test_own_writes_are_seen() -> None:
    """Reads and scans of a transaction lie on its own writes and deletions."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        for name in "abcdefg":
            await db.put(b"p/" + name.encode(), b"old")
        async for txn in db.transactions():
            async with txn:
                txn.put(b"p/bb", b"new")
                txn.delete(b"p/c")
                txn.put(b"p/g", b"new")
                txn.put(b"p/z", b"new")
                assert await txn.get(b"p/g") == b"new"
                assert await txn.get(b"p/c") is None
                assert await txn.get_record(b"p/c") is None
                assert (await txn.get_record(b"p/z")).value == b"new"  # type: ignore[union-attr]
                many = await txn.get_many([b"p/a", b"p/c", b"p/g", b"p/none"])
                assert many == {b"p/a": b"old", b"p/c": None, b"p/g": b"new", b"p/none": None}
                names = [row.key[2:] async for row in txn.scan(k2store.prefix(b"p/"))]
                assert names == [b"a", b"b", b"bb", b"d", b"e", b"f", b"g", b"z"]
                back = [row.key[2:] async for row in txn.scan(b"p/", reverse=True)]
                assert back == names[::-1]
                few = await txn.scan(b"p/", limit=2, reverse=True).all()
                assert [row.key[2:] for row in few] == [b"z", b"g"]
                first = await txn.scan(b"p/", limit=4).all()
                assert [row.key[2:] for row in first] == [b"a", b"b", b"bb", b"d"]

    play(scenario)


def test_many_writes_leave_early_and_are_seen_all_the_same() -> None:
    """Beyond the limit writes travel before the commit, and count as this transaction's own."""
    settings = ClientSettings(early_write_count=4)

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        async for txn in db.transactions():
            async with txn:
                for number in range(10):
                    txn.put(b"w%d" % number, b"1")
                txn.delete(b"w1")
                txn.put(b"w0", b"2")
                assert await txn.get(b"w0") == b"2"
                assert await txn.get(b"w1") is None
                assert await txn.get(b"w5") == b"1"
                assert len(await txn.scan(b"w").all()) == 9
        early = [call for one in peer.requests for call in one.writes]
        assert [len(call.key) for call in early] == [4, 4, 4]
        rows = await db.scan(b"w").all()
        assert [row.value for row in rows] == [b"2"] + [b"1"] * 8
        assert {row.version for row in rows} == {txn.committed_at}

    play(scenario, settings=settings)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("resume", [b"", b"k/", b"l"])
def test_a_scan_that_would_go_back_fails(resume: bytes, *, reverse: bool) -> None:
    """A node that says it goes on outside of what is left is not followed: a node whose map was ahead of
    its replica once said so, and the client read the whole store over and over."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        async for txn in db.transactions():
            async with txn:
                for name in (b"a", b"k/1", b"k/2", b"z"):
                    txn.put(name, b"1")
        answered = peer.serve_scan

        def astray(scan: wire.ScanCall, answer: wire.SessionResponse) -> None:
            answered(scan, answer)
            answer.rows[-1].resume = resume if resume or not reverse else b"k0"

        peer.serve_scan = astray  # type: ignore[method-assign]
        with pytest.raises(k2store.Corruption, match="goes on at"):
            await db.scan(k2store.prefix(b"k/"), reverse=reverse).all()

    play(scenario)


def test_a_refused_early_write_fails_the_transaction() -> None:
    """The refusal of a write that left early reaches the block before or at its commit."""
    settings = ClientSettings(early_write_count=2)

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(fail_once("writes", reason="Conflict"))
        count = 0
        async for txn in db.transactions():
            async with txn:
                count += 1
                txn.put(b"a", b"1")
                txn.put(b"b", b"1")
                txn.put(b"c", b"1")
        assert count == 2
        assert len(await db.scan(b"").all()) == 3

    play(scenario, settings=settings)


def test_a_refused_early_write_does_not_cancel_who_commits() -> None:
    """While the commit waits for one early write another is refused: that is what it fails with."""
    settings = ClientSettings(early_write_count=1)

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        held: list[wire.WriteCall] = []

        def second_refused(
            peer: Peer, connection: Connection, request: wire.SessionRequest
        ) -> bool:
            held.extend(request.writes)
            if len(held) < 2 or not request.writes:
                return bool(request.writes)
            answer = peer.frame()
            answer.failures.add(request=held[1].request, reason="Conflict")
            connection.send(answer.SerializeToString())
            return bool(request.writes)

        peer.hooks.append(second_refused)
        with pytest.raises(k2store.Conflict):
            async for txn in db.transactions(attempts=1):
                async with txn:
                    txn.put(b"a", b"1")
                    await asyncio.sleep(0)
                    txn.put(b"b", b"1")
        assert len(held) == 2

    play(scenario, settings=settings)


def test_use_after_the_end_says_how_it_ended() -> None:
    """A transaction refuses every use outside its block and says when and how it ended."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        async for txn in db.transactions():
            async with txn:
                txn.put(b"k", b"1")
        await asyncio.sleep(1.5)
        for use in (lambda: txn.put(b"k", b"2"), lambda: txn.scan(b"k"), lambda: txn.delete(b"k")):
            with pytest.raises(k2store.Rejected, match=r"committed at \d+ 1\.5\d* s ago"):
                use()
        with pytest.raises(k2store.Rejected, match="committed"):
            await txn.get(b"k")
        async for txn in db.transactions():
            async with txn:
                await txn.rollback()
                with pytest.raises(k2store.Rejected, match="was rolled back"):
                    await txn.get(b"k")

    play(scenario, seeds=1)


def test_an_unused_transaction_is_refused() -> None:
    """A loop without the inner block would commit nothing, and says so."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        with pytest.raises(k2store.Rejected, match="async with"):
            async for txn in db.transactions():
                txn.put(b"k", b"1")

    play(scenario, seeds=1)


def test_a_node_that_forgot_the_transaction_is_noticed() -> None:
    """Two stamps for one attempt end it as a conflict: its reads would not be of one moment."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        loop = asyncio.get_running_loop()

        def forget(peer: Peer, connection: Any, request: Any) -> bool:
            # As a node does that is restarted between two frames, of which neither has a stamp.
            if not request.reads.request:
                return False
            peer.stamps.clear()
            loop.call_later(0.05, connection.send, peer.serve(request).SerializeToString())
            return True

        counts = 0
        async for txn in db.transactions():
            async with txn:
                counts += 1
                if counts == 1:
                    peer.hooks.append(forget)
                first = asyncio.ensure_future(txn.get(b"a"))
                await asyncio.sleep(0.01)
                second = txn.get(b"b")
                try:
                    await asyncio.gather(first, second)
                finally:
                    peer.hooks.clear()
                txn.put(b"c", b"1")
        assert counts == 2
        assert await db.get(b"c") == b"1"

    play(scenario)


def test_read_only_waits_for_true_time() -> None:
    """A transaction that only read ends when true time has certainly passed its stamp."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        async for txn in db.transactions():
            async with txn:
                await txn.get(b"k")
        # The frame's lower bound lies 3 ms below the stamp; the clock may drift by 1000 ppm.
        assert 0.003 <= loop.time() - start_s < 0.0031
        assert not any(one.commits.request for one in peer.requests)
        await db.put(b"k", b"1")
        assert any(txn.id in one.finished for one in peer.requests)

    play(scenario, doubt_ns=3_000_000)


def test_run_retries_and_gives_the_result() -> None:
    """`run` calls again after a conflict and returns what the committed call returned."""

    async def take(txn: k2store.Transaction, key: bytes, *, by: int) -> int:
        left = int(await txn.get(key) or 10) - by
        txn.put(key, b"%d" % left)
        return left

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(fail_once("commits", reason="Conflict"))
        assert await db.run(take, b"stock", by=3) == 7
        wrapped = k2store.transactional(take)
        assert await wrapped(db, b"stock", by=3) == 4
        async for txn in db.transactions():
            async with txn:
                assert await wrapped(txn, b"stock", by=1) == 3
                assert await wrapped(txn, b"stock", by=1) == 2
        assert await db.get(b"stock") == b"2"

    play(scenario)


def test_generators_are_refused() -> None:
    """A generator's body would run after the commit: neither run nor the decorator takes it."""

    async def rows(txn: k2store.Transaction) -> AsyncIterator[int]:
        yield 1

    function: Callable[..., Awaitable[int]] = rows  # type: ignore[assignment]
    with pytest.raises(k2store.Rejected, match="generator"):
        k2store.transactional(function)

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        with pytest.raises(k2store.Rejected, match="generator"):
            await db.run(function)

    play(scenario, seeds=1)


def test_leaving_the_loop_before_the_retry_is_reported() -> None:
    """`return` out of a block whose commit failed cannot raise, but the loop's handler hears."""

    async def hasty(db: k2store.Database) -> None:
        async for txn in db.transactions():
            async with txn:
                txn.put(b"k", b"1")
                return

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(fail_once("commits", reason="Conflict"))
        await hasty(db)

    with pytest.raises(UnhandledError, match="left with `return` or `break`"):
        play(scenario, seeds=1)


def test_cancelling_a_commit_does_not_retry() -> None:
    """A cancelled task leaves at once; what it had under way is not repeated."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.silent = True
        task = asyncio.ensure_future(increment(db, b"n"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        peer.silent = False
        assert await db.get(b"other") is None

    play(scenario)
