"""The client's session: natural batching, reconnecting, deadlines, limits and refusals."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import k2store
from k2store.client.settings import ClientSettings
from k2store.rpc.local import LocalTransport
from k2store.rpc.transport import ConnectFailed, Connection, Handler
from tests.unit.client_peer import START_NS, Peer, fail_once, lose_once, play


async def gather_on_a_real_loop() -> list[Any]:
    """A hundred operations at once, on asyncio's own first-in-first-out loop; the frames."""
    transport = LocalTransport()
    peer = Peer(lambda: START_NS + time.monotonic_ns())
    await transport.listen("a:7400", peer)
    async with k2store.connect("k2://a", dialer=transport) as db:
        before = len(peer.requests)
        await asyncio.gather(
            *(db.get(b"k%d" % number) for number in range(50)),
            *(db.put(b"k%d" % number, b"v") for number in range(50)),
        )
        return peer.requests[before:]


def test_operations_of_one_turn_share_a_frame() -> None:
    """What tasks ask for in one turn of the loop leaves as one frame of columns."""
    (frame,) = asyncio.run(gather_on_a_real_loop())
    assert len(frame.reads.request) == 50
    assert len(frame.one_shots.request) == 50


async def read_then_write_on_a_real_loop(
    count: int, after_read: Callable[[Peer, int], None] | None = None
) -> list[Any]:
    """So many workers read and then write, on asyncio's own loop; the frames."""
    transport = LocalTransport()
    peer = Peer(lambda: START_NS + time.monotonic_ns())
    await transport.listen("a:7400", peer)
    async with k2store.connect("k2://a", dialer=transport) as db:
        before = len(peer.requests)

        async def work(number: int) -> None:
            await db.session.read(b"", 1, b"k%d" % number, db.session.now_s() + 60, 0, None)
            if after_read is not None:
                after_read(peer, number)
                return
            await db.put(b"k%d" % number, b"v")

        await asyncio.gather(*(work(number) for number in range(count)))
        asked = peer.requests[before:]
        # On a slow machine one more may only say what is over.
        return [one for one in asked if one.reads.request or one.one_shots.request]


def test_many_answers_are_told_in_two_halves() -> None:
    """What the first half asks next leaves before the second half wakes; few are told at once."""
    frames = asyncio.run(read_then_write_on_a_real_loop(256))
    assert [len(one.reads.request) for one in frames] == [256, 0, 0]
    assert [len(one.one_shots.request) for one in frames] == [0, 128, 128]
    frames = asyncio.run(read_then_write_on_a_real_loop(191))
    assert [len(one.one_shots.request) for one in frames] == [0, 191]


def test_the_second_half_is_told_whatever_the_first_half_does() -> None:
    """It asks nothing, or ends the connection: the others have their answers and ask nothing again."""
    told: list[int] = []

    def note(_peer: Peer, number: int) -> None:
        told.append(number)

    def lose(peer: Peer, number: int) -> None:
        told.append(number)
        if number == 0:
            peer.connections[-1].close("lost")

    for after_read in (note, lose):
        told.clear()
        frames = asyncio.run(read_then_write_on_a_real_loop(300, after_read))
        assert sorted(told) == list(range(300))
        assert sum(len(one.reads.request) for one in frames) == 300


def test_long_frames_are_cut() -> None:
    """More than a frame's worth of writes leaves as several frames, and all of it arrives."""
    settings = ClientSettings(frame_bytes=10_000)

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(db.put(b"k%02d" % number, b"x" * 1000))
        rows = await db.scan(k2store.EVERYTHING).all()
        assert [row.key for row in rows] == [b"k%02d" % number for number in range(100)]
        sizes = [one.ByteSize() for one in peer.requests]
        assert max(sizes) < 12_000
        assert len(sizes) > 10

    play(scenario, settings=settings)


def test_reads_and_one_shots_survive_a_lost_connection() -> None:
    """Without an answer they are sent again on the next connection; a one-shot counts once."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        await db.put(b"k", b"1")
        for served in (True, False):
            peer.hooks.append(lose_once("reads", served=served))
            assert await db.get(b"k") == b"1"
            peer.hooks.append(lose_once("one_shots", served=served))
            at = await db.put(b"n", b"%d" % served)
            assert peer.rows[b"n"][-1] == (at, b"%d" % served)
        assert len(peer.rows[b"n"]) == 2
        assert len(peer.connections) == 5
        hellos = [one.hello.client for one in peer.requests if one.HasField("hello")]
        assert len(hellos) == 5
        assert len(set(hellos)) == 1

    play(scenario)


def test_a_repeated_one_shot_keeps_its_name_and_what_is_left_of_its_time() -> None:
    """The id stays; the timeout shrinks to what its deadline leaves."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        def deaf(peer: Peer, connection: Connection, request: Any) -> bool:
            return bool(request.one_shots.request)

        peer.hooks.append(deaf)
        task = asyncio.ensure_future(db.put(b"k", b"1", timeout="2s"))
        await asyncio.sleep(0.5)
        peer.hooks.clear()
        peer.connections[-1].close("lost")
        await task
        first, second = [one.one_shots for one in peer.requests if one.one_shots.request]
        assert list(first.txn) == list(second.txn)
        assert list(first.timeout_ms) == [2000]
        assert 1400 <= second.timeout_ms[0] <= 1500

    play(scenario)


def test_an_open_transaction_goes_on_after_a_reconnect() -> None:
    """A transaction that has its stamp keeps it through the loss of a connection."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        await db.put(b"k", b"1")
        async for txn in db.transactions():
            async with txn:
                await txn.get(b"k")
                at = txn.at
                peer.connections[-1].close("lost")
                assert await txn.get(b"k") == b"1"
                txn.put(b"k", b"2")
        assert txn.committed_at == at
        assert len(peer.connections) == 2

    play(scenario)


def test_two_first_reads_at_once_agree_on_the_stamp() -> None:
    """Reads that all begin the transaction get one stamp, also when one is sent again."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(lose_once("reads", served=True))
        async for txn in db.transactions():
            async with txn:
                await asyncio.gather(txn.get(b"a"), txn.get(b"b"), txn.get_many([b"c", b"d"]))
        assert txn.id[14:] == b"\0\1"

    play(scenario)


def test_deadlines_of_every_kind() -> None:
    """A silent node costs no more than the deadline, and each failure says what is certain."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        await db.put(b"k", b"1")
        peer.silent = True
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        with pytest.raises(k2store.Deadline):
            await db.get(b"k", timeout="500ms")
        assert 0.5 <= loop.time() - start_s < 0.6
        with pytest.raises(k2store.OutcomeUnknown) as raised:
            await db.put(b"k", b"2", timeout="500ms")
        with pytest.raises(k2store.Deadline):
            await db.scan(b"k", timeout="500ms").all()
        with pytest.raises(k2store.OutcomeUnknown):
            async for txn in db.transactions(timeout="500ms"):
                async with txn:
                    txn.put(b"k", b"3")
        peer.silent = False
        found = await db.outcome(raised.value.transaction or "")
        assert found.state == "committed"

    play(scenario)


def test_nothing_sent_is_unavailable_and_certain() -> None:
    """Without a connection until the deadline nothing was sent, and the failure says so."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        await db.session._dialer._listening["a:7400"].close()  # type: ignore[attr-defined]
        await asyncio.sleep(0.1)
        with pytest.raises(k2store.Unavailable, match="nothing was sent"):
            await db.put(b"k", b"1", timeout="1s")
        with pytest.raises(k2store.Unavailable, match="nothing was sent"):
            async for txn in db.transactions(timeout="1s"):
                async with txn:
                    txn.put(b"k", b"1")
        assert not peer.applied

    play(scenario)


class Reluctant:
    """A dialer to two addresses, of which the first refuses."""

    def __init__(self) -> None:
        self.transport = LocalTransport()
        self.tried: list[str] = []

    async def connect(
        self, address: str, metadata: Mapping[str, str], handler: Handler | None = None
    ) -> Connection:
        self.tried.append(address)
        if address.startswith("down"):
            raise ConnectFailed(address, "refused")
        return await self.transport.connect(address, metadata, handler)


def test_the_first_address_that_answers_is_taken() -> None:
    """Addresses are tried in turn; the token travels as metadata."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        dialer = Reluctant()
        await dialer.transport.listen("up:1", peer)
        clock = db.session.bounded_time.monotonic_ns
        async with k2store.connect(
            "k2://down:1,up:1", dialer=dialer, token="secret", monotonic_ns=clock
        ) as other:
            assert await other.get(b"k") is None
        assert dialer.tried == ["down:1", "up:1"]
        assert peer.metadata[-1] == {"token": "secret"}
        with pytest.raises(k2store.Unavailable, match="refused"):
            async with k2store.connect(
                "k2://down:1", dialer=dialer, timeout="1s", monotonic_ns=clock
            ):
                pass

    play(scenario, seeds=1)


def test_a_session_that_the_node_rejects_is_not_tried_again() -> None:
    """A refusal of the whole session as wrong is final and reaches who opens the database."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        def refuse(peer: Peer, connection: Connection, request: Any) -> bool:
            answer = peer.frame()
            answer.failures.add(request=0, reason="Rejected", message="no such protocol")
            connection.send(answer.SerializeToString())
            return True

        peer.hooks.append(refuse)
        before = len(peer.connections)
        other = k2store.connect(
            "k2://a",
            dialer=db.session._dialer,
            monotonic_ns=db.session.bounded_time.monotonic_ns,
        )
        with pytest.raises(k2store.Rejected, match="no such protocol"):
            async with other:
                pass
        assert len(peer.connections) == before + 1

    play(scenario, seeds=1)


def test_a_draining_node_is_left_when_nothing_waits() -> None:
    """What is open is finished on a draining node, then the session moves on."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        def drain(peer: Peer, connection: Connection, request: Any) -> bool:
            answer = peer.serve(request)
            answer.draining = True
            connection.send(answer.SerializeToString())
            return True

        peer.hooks.append(drain)
        assert await db.get(b"k") is None
        peer.hooks.clear()
        await asyncio.sleep(0.5)
        assert len(peer.connections) == 2
        assert peer.connections[0].closed

    play(scenario)


def test_a_draining_node_is_not_left_inside_a_transaction() -> None:
    """A block that has read may take its time: its transaction lives where the session is."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        def drain(peer: Peer, connection: Connection, request: Any) -> bool:
            answer = peer.serve(request)
            answer.draining = True
            connection.send(answer.SerializeToString())
            return True

        async for txn in db.transactions(attempts=1):
            async with txn:
                peer.hooks.append(drain)
                await txn.get(b"k")
                peer.hooks.clear()
                await asyncio.sleep(0.5)
                assert not peer.connections[0].closed
                txn.put(b"k", b"v")
        await asyncio.sleep(0.5)
        assert peer.connections[0].closed
        assert len(peer.connections) == 2

    play(scenario)


def test_limits_refuse_at_once_and_change_nothing() -> None:
    """More than the limit of operations in flight raises Overloaded; the others go on."""
    settings = ClientSettings(operations_max=10)

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.silent = True
        answers = await asyncio.gather(
            *(db.get(b"k%d" % number, timeout="1s") for number in range(15)),
            return_exceptions=True,
        )
        peer.silent = False
        assert sum(isinstance(one, k2store.Deadline) for one in answers) == 10
        refused = [one for one in answers if isinstance(one, k2store.Overloaded)]
        assert len(refused) == 5
        assert {one.limit for one in refused} == {"operations_max"}
        assert await db.get(b"k") is None

    play(scenario, settings=settings)


def test_queued_bytes_are_bounded_while_nobody_listens() -> None:
    """Writes that wait for a connection are refused beyond their limit in bytes."""
    settings = ClientSettings(queued_bytes_max=10_000, attempts_max=1)

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        await db.session._dialer._listening["a:7400"].close()  # type: ignore[attr-defined]
        await asyncio.sleep(0.1)
        answers = await asyncio.gather(
            *(db.put(b"k%d" % number, b"x" * 1000, timeout="1s") for number in range(20)),
            return_exceptions=True,
        )
        full = [one for one in answers if isinstance(one, k2store.Overloaded)]
        assert {one.limit for one in full} == {"queued_bytes_max"}
        assert 10 <= len(full) <= 12
        assert not peer.applied

    play(scenario, settings=settings)


WRONG: tuple[Callable[[Any], Any], ...] = (
    lambda db: db.get("text"),
    lambda db: db.get(b"x" * 5000),
    lambda db: db.put(b"k", "text"),
    lambda db: db.put(b"k", None),
    lambda db: db.put(b"k", b"x" * 3_000_000),
    lambda db: db.put(bytearray(b"k"), b"v"),
    lambda db: db.delete(7),
    lambda db: db.compare_and_put(b"k", b"v"),
    lambda db: db.compare_and_put(b"k", b"v", missing=True, version=3),
    lambda db: db.compare_and_put(b"k", b"v", version=-1),
    lambda db: db.compare_and_put(b"k", b"v", expected="v"),
    lambda db: db.transact(reads=["k"]),
    lambda db: db.transact(writes=[(b"k%d" % n, b"x" * 900_000) for n in range(3)]),
    lambda db: db.get_many([b"k", 3]),
    lambda db: db.history(3),
    lambda db: db.outcome(b"short", anchor=b"k"),
    lambda db: db.outcome(bytes(16)),
    lambda db: db.get(b"k", timeout="soon"),
    lambda db: db.get(b"k", timeout=-1),
)


@pytest.mark.parametrize("place", range(len(WRONG)))
def test_wrong_arguments_are_rejected_here(place: int) -> None:
    """Bad input raises Rejected with its field before anything is sent."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        before = len(peer.requests)
        with pytest.raises(k2store.Rejected):
            await WRONG[place](db)
        await asyncio.sleep(0.01)
        assert len(peer.requests) == before
        assert await db.get(b"k") is None

    play(scenario, seeds=1)


def test_finished_transactions_are_told_to_the_node() -> None:
    """Ids whose outcome has arrived ride on a later frame, at the latest when all is quiet."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        await db.put(b"k", b"1")
        async for txn in db.transactions():
            async with txn:
                await txn.get(b"k")
                txn.put(b"k", b"2")
        await asyncio.sleep(0.2)
        told = [name for one in peer.requests for name in one.finished]
        assert sorted(told) == sorted(peer.applied)

    play(scenario)


def test_a_one_shot_of_which_a_copy_may_be_alive_is_not_forgotten() -> None:
    """What was sent twice, or had no clear answer once, stays remembered: a late copy must meet it."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        await db.put(b"k", b"once")
        peer.hooks.append(lose_once("one_shots", served=True))
        await db.put(b"k", b"twice")
        peer.hooks.append(fail_once("one_shots", reason="OutcomeUnknown"))
        await db.put(b"k", b"in doubt")
        await db.put(b"k", b"once more")
        await asyncio.sleep(0.2)
        told = {name for one in peer.requests for name in one.finished}
        first, twice, in_doubt, last = peer.applied
        assert {first, last} <= told
        assert not {twice, in_doubt} & told

    play(scenario)


def test_a_refusal_of_what_was_sent_twice_is_made_to_last() -> None:
    """The other copy may meet a leader that knows nothing of it: only an abort for good is told."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        with pytest.raises(k2store.ConditionFailed):
            await db.put(b"k", b"1", conditions=[k2store.present(b"k")])
        assert not any(one.outcomes for one in peer.requests)
        peer.hooks.append(lose_once("one_shots", served=False))
        with pytest.raises(k2store.ConditionFailed):
            await db.put(b"k", b"2", conditions=[k2store.present(b"k")])
        [question] = [each for one in peer.requests for each in one.outcomes]
        assert question.decide
        assert question.anchor == b"k"

    play(scenario)


def test_closing_fails_what_waits_and_leaves_nothing() -> None:
    """Leaving the database's block ends waiting calls with certain failures."""
    waiting: list[asyncio.Task[Any]] = []

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.silent = True
        waiting.append(asyncio.ensure_future(db.get(b"k")))
        waiting.append(asyncio.ensure_future(db.put(b"k", b"1")))
        await asyncio.sleep(0.1)

        async def judge() -> None:
            with pytest.raises(k2store.Unavailable, match="closed"):
                await waiting[0]
            with pytest.raises(k2store.OutcomeUnknown):
                await waiting[1]
            with pytest.raises(k2store.Unavailable, match="closed"):
                await db.get(b"k")
            with pytest.raises(k2store.Rejected, match="opened before"):
                await db.__aenter__()

        judging.append(asyncio.ensure_future(judge()))

    judging: list[asyncio.Task[None]] = []

    async def whole(db: k2store.Database, peer: Peer) -> None:
        async with k2store.connect(
            "k2://a",
            dialer=db.session._dialer,
            monotonic_ns=db.session.bounded_time.monotonic_ns,
        ) as other:
            await scenario(other, peer)
        await judging[0]

    play(whole, seeds=1)


def test_a_transaction_leaves_no_cycle() -> None:
    """Nothing that a committed transaction has made waits for the cyclic collector."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        for _ in range(2):
            gc.collect()
            gc.disable()
            for number in range(20):
                async for txn in db.transactions():
                    async with txn:
                        await txn.get(b"k")
                        txn.put(b"k", b"%d" % number)
                del txn
            gc.enable()
        kinds = [type(one).__name__ for one in gc.get_objects()]
        assert kinds.count("Transaction") == 0
        assert kinds.count("Attempts") == 0

    play(scenario, seeds=1)


def test_strong_reads_wait_for_true_time_and_snapshots_do_not() -> None:
    """A read outside any transaction is told when its stamp has passed; a past view at once."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        await db.put(b"k", b"1")
        await asyncio.sleep(0.05)
        start_s = loop.time()
        assert await db.get(b"k") == b"1"
        assert 0.004 <= loop.time() - start_s < 0.0042
        start_s = loop.time()
        async with db.snapshot() as view:
            assert await view.get(b"k") == b"1"
        assert loop.time() == start_s
        with pytest.raises(k2store.Rejected, match="outside"):
            await view.get(b"k")

    play(scenario, doubt_ns=4_000_000)


def test_a_stale_safe_stamp_is_not_used() -> None:
    """When the newest safe stamp is staler than allowed the view takes a fresh one."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        await asyncio.sleep(10)
        peer.rows[b"k"].append((peer.stamp(), b"new"))
        async with db.snapshot(max_staleness="5s") as view:
            both = await asyncio.gather(view.get(b"k"), view.get(b"k"))
            assert both == [b"new", b"new"]
            assert await view.get_many([b"k", b"n"]) == {b"k": b"new", b"n": None}
            rows = [row.key async for row in view.scan(b"")]
            assert rows == [b"k"]
        asked = [at for one in peer.requests for at in one.reads.at]
        assert asked.count(0) == 1
        await asyncio.sleep(10)
        peer.rows[b"k"].append((peer.stamp(), b"newer"))
        async with db.snapshot(max_staleness="60s") as view:
            assert await view.get(b"k") == b"new"

    play(scenario)


def test_history_pages_backwards() -> None:
    """The versions of a key come newest first, over as many pages as it takes."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        stamps = [await db.put(b"k", b"%d" % number) for number in range(4)]
        stamps.append(await db.delete(b"k"))
        found = await db.history(b"k")
        assert [version.at for version in found] == stamps[::-1]
        assert [version.value for version in found] == [None, b"3", b"2", b"1", b"0"]
        assert [v.value for v in await db.history(b"k", limit=3)] == [None, b"3", b"2"]
        assert [v.value for v in await db.history(b"k", at=stamps[1])] == [b"1", b"0"]

    play(scenario)


def test_one_shots_state_and_keep_conditions() -> None:
    """Conditions decide; the failing one is named, with the stamp at which it failed."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        result = await db.transact(
            conditions=[k2store.absent(b"a")],
            reads=[b"a", b"b"],
            writes=[k2store.Write(b"a", b"1"), (b"b", b"2")],
        )
        assert result.values == (None, None)
        result = await db.transact(reads=[b"a", b"none", b"b"], writes=[(b"a", None)])
        assert result.values == (b"1", None, b"2")
        assert await db.get_many([b"a", b"b"]) == {b"a": None, b"b": b"2"}
        with pytest.raises(k2store.ConditionFailed) as raised:
            await db.transact(
                conditions=[k2store.present(b"b"), k2store.value_is(b"b", b"no")],
                writes=[(b"b", b"3")],
            )
        assert raised.value.condition == 1
        assert raised.value.at is not None
        at = await db.compare_and_put(b"b", b"3", expected=b"2")
        assert await db.compare_and_put(b"b", b"4", version=at) > at
        with pytest.raises(k2store.ConditionFailed):
            await db.compare_and_put(b"b", b"5", missing=True)

    play(scenario)


def test_one_shots_are_repeated_by_class_of_failure() -> None:
    """Unavailable keeps the id, Conflict takes a new attempt, doubt is asked again."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(fail_once("one_shots", reason="Unavailable", retry_after_ms=200))
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        await db.put(b"k", b"1")
        assert loop.time() - start_s >= 0.2
        peer.hooks.append(fail_once("one_shots", reason="Conflict"))
        await db.put(b"k", b"2")
        peer.hooks.append(fail_once("one_shots", reason="OutcomeUnknown"))
        await db.put(b"k", b"3")
        names = [txn for one in peer.requests for txn in one.one_shots.txn]
        assert names[0] == names[1]
        assert names[2][:14] == names[3][:14]
        assert (names[2][14:], names[3][14:]) == (b"\0\1", b"\0\2")
        assert names[4] == names[5]
        assert [value for _, value in peer.rows[b"k"]] == [b"1", b"2", b"3"]

    play(scenario)


def test_reads_that_nobody_could_serve_are_asked_again() -> None:
    """Between two leaders a read, a read of a view and a page of a scan wait for the next one; in a
    transaction the attempt fails, and without time the failure is told as it was."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        await db.put(b"k", b"v")
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        peer.hooks.append(fail_once("reads", reason="Unavailable", retry_after_ms=200))
        assert await db.get(b"k") == b"v"
        assert loop.time() - start_s >= 0.1
        peer.hooks.append(fail_once("reads", reason="Unavailable"))
        async with db.snapshot(strong=True) as view:
            assert await view.get(b"k") == b"v"
        peer.hooks.append(fail_once("reads", reason="ClockUncertain"))
        assert await db.get(b"k") == b"v"
        peer.hooks.append(fail_once("scans", reason="Unavailable"))
        assert [row.key async for row in db.scan(b"k")] == [b"k"]
        peer.hooks.append(fail_once("reads", reason="Unavailable", message="nobody leads"))
        with pytest.raises(k2store.Unavailable, match="nobody leads"):
            await db.get(b"k", timeout=0.015)
        peer.hooks.append(fail_once("reads", reason="Unavailable", message="nobody leads"))
        with pytest.raises(k2store.Unavailable, match="nobody leads"):
            async for txn in db.transactions(attempts=1):
                async with txn:
                    await txn.get(b"k")
        assert db.session.in_flight == 0

    play(scenario)


def test_what_was_called_unsent_is_never_sent() -> None:
    """A commit begun at the moment at which deadlines are looked at either leaves, or its caller
    is told that nothing was sent; never both, in whichever order the moment plays out."""
    told: list[str] = []

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(lambda _peer, _connection, request: b"slow" in request.reads.key)

        async def fifth_sweep() -> None:
            for _ in range(5):
                await asyncio.sleep(db.session.settings.sweep_interval_s)

        slow = asyncio.ensure_future(db.get(b"slow", timeout=10))
        moment = asyncio.ensure_future(fifth_sweep())
        await asyncio.sleep(0.01)
        try:
            async for txn in db.transactions(timeout=0.2, attempts=1):
                async with txn:
                    await txn.get(b"k")
                    txn.put(b"k", b"late")
                    await moment
        except k2store.Unavailable:
            await asyncio.sleep(1)
            assert not peer.rows[b"k"]
            told.append("unsent")
        else:
            assert peer.rows[b"k"]
            told.append("committed")
        slow.cancel()

    play(scenario, seeds=200)
    assert set(told) == {"unsent", "committed"}


def test_what_an_earlier_connection_carried_is_never_called_unsent() -> None:
    """A one-shot that left once and waits to leave again may have taken: its outcome is unknown."""

    async def scenario(db: k2store.Database, peer: Peer) -> None:
        peer.hooks.append(lambda _peer, _connection, request: bool(request.one_shots.request))
        task = asyncio.ensure_future(db.put(b"k", b"1", timeout="1s"))
        await asyncio.sleep(0.5)
        db.session._flushing = True  # as while the new connection takes nothing more
        peer.connections[-1].close("lost")
        with pytest.raises(k2store.OutcomeUnknown):
            await task
        db.session._flushing = False

    play(scenario)
