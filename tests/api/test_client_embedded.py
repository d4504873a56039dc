"""The public client on the real engine, embedded: what a program sees, end to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

import k2store

Program = Callable[[k2store.Database], Awaitable[None]]


def run(path: Path, program: Program) -> None:
    """Run a program on the store in a folder."""

    async def main() -> None:
        async with k2store.open_async(path) as db:
            await program(db)

    asyncio.run(main())


class Block(msgspec.Struct, frozen=True):
    """Where a block of a cache lies, and until when it is held."""

    tier: str
    size: int
    until_ns: int = 0


async def balance(db: k2store.Database) -> int:
    """The sum over all accounts, in one view."""
    async with db.snapshot(strong=True) as view:
        return sum([int(row.value) async for row in view.scan(b"account/")])


def test_transfers_keep_the_sum(tmp_path: Path) -> None:
    """Concurrent transfers between few accounts neither make nor lose money, also after a restart."""

    async def transfer(txn: k2store.Transaction, source: bytes, target: bytes) -> None:
        found = await txn.get_many([source, target])
        txn.put(source, b"%d" % (int(found[source] or 0) - 1))
        txn.put(target, b"%d" % (int(found[target] or 0) + 1))

    async def program(db: k2store.Database) -> None:
        names = [b"account/%d" % number for number in range(5)]
        await db.transact(writes=[(name, b"100") for name in names])
        pairs = [(names[i % 5], names[(i + 1 + i // 5) % 5]) for i in range(10)]
        pairs = [(source, target) for source, target in pairs if source != target]
        await asyncio.gather(*(db.run(transfer, *pair) for pair in pairs))
        assert await balance(db) == 500

    async def later(db: k2store.Database) -> None:
        assert await balance(db) == 500

    run(tmp_path, program)
    run(tmp_path, later)


def test_values_conditions_and_time_travel(tmp_path: Path) -> None:
    """One-shots, versions, snapshots of the past and history agree with each other."""

    async def program(db: k2store.Database) -> None:
        first = await db.compare_and_put(b"k", b"1", missing=True)
        second = await db.compare_and_put(b"k", b"2", expected=b"1")
        third = await db.compare_and_put(b"k", b"3", version=second)
        with pytest.raises(k2store.ConditionFailed) as raised:
            await db.compare_and_put(b"k", b"4", version=second)
        assert raised.value.key == b"k"
        gone = await db.delete(b"k")
        assert await db.get(b"k") is None
        assert first < second < third < gone
        for at, value in [(first, b"1"), (second, b"2"), (third, b"3"), (gone, None)]:
            async with db.snapshot(at=at) as view:
                assert await view.get(b"k") == value
        found = await db.history(b"k")
        assert [(one.at, one.value) for one in found] == [
            (gone, None),
            (third, b"3"),
            (second, b"2"),
            (first, b"1"),
        ]

    run(tmp_path, program)


def test_write_skew_is_refused(tmp_path: Path) -> None:
    """Two transactions that each read what the other writes cannot both commit unchanged."""

    async def leave(txn: k2store.Transaction, me: bytes, other: bytes) -> bool:
        if await txn.get(other) == b"on duty":
            await asyncio.sleep(0)
            txn.put(me, b"off")
            return True
        return False

    async def program(db: k2store.Database) -> None:
        await db.transact(writes=[(b"x", b"on duty"), (b"y", b"on duty")])
        left = await asyncio.gather(db.run(leave, b"x", b"y"), db.run(leave, b"y", b"x"))
        assert sorted(left) == [False, True]

    run(tmp_path, program)


def test_a_scan_sees_own_writes_and_all_pages(tmp_path: Path) -> None:
    """A scan of many pages inside a transaction shows its own writes in their place."""

    async def program(db: k2store.Database) -> None:
        async for txn in db.transactions():
            async with txn:
                for number in range(0, 3000, 2):
                    txn.put(b"s/%05d" % number, b"even")
        async for txn in db.transactions():
            async with txn:
                for number in range(1, 3000, 2):
                    txn.put(b"s/%05d" % number, b"odd")
                txn.delete(b"s/%05d" % 10)
                keys = [row.key async for row in txn.scan(b"s/")]
                assert keys == [b"s/%05d" % n for n in range(3000) if n != 10]
                back = await txn.scan(b"s/", reverse=True, limit=3).all()
                assert [row.value for row in back] == [b"odd", b"even", b"odd"]
        assert len(await db.scan(b"s/").all()) == 2999

    run(tmp_path, program)


def test_records_and_conditions_on_their_fields(tmp_path: Path) -> None:
    """Collections store records that field and range conditions can look into."""

    async def program(db: k2store.Database) -> None:
        blocks = db.collection("blocks", Block)
        await blocks.put(b"a", Block("hbm", 1))
        free = [blocks.field(b"a", "until_ns").earlier_than(k2store.own_time())]
        await blocks.put(b"a", Block("hbm", 1, until_ns=2**62), conditions=free)
        with pytest.raises(k2store.ConditionFailed):
            await blocks.put(b"a", Block("hbm", 2), conditions=free)
        nobody = blocks.no_entry("until_ns").later_than(k2store.own_time())
        with pytest.raises(k2store.ConditionFailed):
            await blocks.put(b"b", Block("dram", 2), conditions=[nobody])
        assert await blocks.get_many([b"a", b"b"]) == {b"a": Block("hbm", 1, 2**62), b"b": None}
        await db.put(b"blocks/torn", b"\xc1")
        with pytest.raises(k2store.Corruption, match="torn"):
            await blocks.get(b"torn")

    run(tmp_path, program)


def test_a_watch_resumes_from_its_cursor(tmp_path: Path) -> None:
    """Two watches, one after the other, together see every commit exactly once and in order."""

    async def program(db: k2store.Database) -> None:
        start = await db.put(b"w/0", b"start")
        stamps = [await db.put(b"w/%d" % number, b"v") for number in range(6)]
        seen: list[int] = []
        async with db.watch(b"w/", since=start) as watch:
            async for event in watch:
                if isinstance(event, k2store.Changes):
                    seen.append(event.at)
                    if len(seen) == 3:
                        break
        stamps.append(await db.delete(b"w/1"))
        async with db.watch(b"w/", since=watch.cursor) as watch:
            async for event in watch:
                if isinstance(event, k2store.Changes):
                    seen.append(event.at)
                elif event.at >= stamps[-1]:
                    break
        assert seen == stamps
        with pytest.raises(k2store.Rejected, match="future"):
            await anext(db.watch(b"w/", since=2**63))

    run(tmp_path, program)


def test_a_lease_excludes_and_fences(tmp_path: Path) -> None:
    """Two workers never hold one lease at once, and the second one's token is larger."""

    async def program(db: k2store.Database) -> None:
        holding: list[int] = []
        tokens: list[int] = []

        async def work() -> None:
            async with db.lease(b"l", "500ms", wait="20s") as lease:
                assert not holding
                holding.append(1)
                tokens.append(lease.token)
                await asyncio.sleep(0)
                holding.pop()
                lease.check()

        await asyncio.gather(work(), work(), work())
        assert tokens == sorted(tokens)
        assert await db.get(b"l") is None

    run(tmp_path, program)


def test_outcomes_of_others_can_be_asked(tmp_path: Path) -> None:
    """The record of a transaction answers, also to somebody who did not run it."""

    async def program(db: k2store.Database) -> None:
        async for txn in db.transactions():
            async with txn:
                await txn.get(b"k")
                txn.put(b"k", b"1")
        unknown = await db.outcome(bytes(16), anchor=b"k", at=txn.at)
        assert unknown.state in {"unknown", "aborted"}

    run(tmp_path, program)


def test_one_folder_has_one_owner(tmp_path: Path) -> None:
    """A second store on the same folder is refused while the first one is open."""

    async def program(db: k2store.Database) -> None:
        with pytest.raises(k2store.K2Error):
            async with k2store.open_async(tmp_path):
                pass
        await db.put(b"k", b"1")

    run(tmp_path, program)
