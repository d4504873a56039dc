"""Backups of a store that is being written to, and restores elsewhere."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import k2store
from k2store.backup.file import Backup, verified
from k2store.backup.load import BATCH_ROWS, Restored, differences, load
from k2store.backup.save import save
from k2store.testing import embedded, local_node

ACCOUNTS = 600
TOTAL = 100


def account(number: int) -> bytes:
    """The key of an account; some of them need escapes."""
    return b"account/%04d/\xff" % number


async def fill(db: k2store.Database) -> None:
    """Accounts that hold TOTAL each."""
    await db.transact(writes=[(account(number), b"%d" % TOTAL) for number in range(ACCOUNTS)])


async def transfer_until(
    db: k2store.Database, done: asyncio.Event, moves: asyncio.Semaphore, seed: int
) -> None:
    """Move amounts between accounts and make and drop rows, until told to stop."""
    rng = random.Random(seed)
    while not done.is_set():
        one, other = (account(number) for number in rng.sample(range(ACCOUNTS), 2))

        async def move(txn: k2store.Transaction, one: bytes = one, other: bytes = other) -> None:
            held, has = await asyncio.gather(txn.get(one), txn.get(other))
            assert held is not None
            assert has is not None
            txn.put(one, b"%d" % (int(held) - 1))
            txn.put(other, b"%d" % (int(has) + 1))

        await db.run(move)
        moves.release()
        key = b"churn/%d" % rng.randrange(200)
        await (db.delete(key) if rng.random() < 0.4 else db.put(key, b"x" * rng.randrange(900)))


async def rows(db: k2store.Database, at: int | None = None) -> dict[bytes, bytes]:
    """Every row, now or at a stamp."""
    view = db.snapshot(strong=True) if at is None else db.snapshot(at=at)
    async with view:
        return {record.key: record.value async for record in view.scan(b"")}


async def backup_of(db: k2store.Database, path: Path) -> Backup:
    """A backup of everything, read back."""
    async with db.snapshot(strong=True) as view:
        await save(db, view, k2store.EVERYTHING, path)
    return verified(path)


def test_a_backup_under_load_is_the_store_at_its_stamp(tmp_path: Path) -> None:
    """Taken while transfers run, restored into another node, equal to what a reader at the stamp
    sees, and no amount is lost or made: the backup is one consistent state."""

    async def scene() -> None:
        async with local_node(tmp_path / "one") as node, node.connect() as db:
            await fill(db)
            done = asyncio.Event()
            moves = asyncio.Semaphore(0)
            users = [asyncio.create_task(transfer_until(db, done, moves, n)) for n in range(8)]
            taken = []
            for number in range(3):
                for _ in range(20):
                    await moves.acquire()
                taken.append(await backup_of(db, tmp_path / f"backup{number}"))
            assert not any(user.done() for user in users)
            done.set()
            await asyncio.gather(*users)
            states = [await rows(db, backup.header.stamp) for backup in taken]
        assert states[0] != states[1] != states[2]
        async with embedded(tmp_path / "two") as other:
            for backup, state in zip(taken, states, strict=True):
                await load(other, backup, overwrite=True)
                assert await rows(other) == state
                held = [int(state[account(number)]) for number in range(ACCOUNTS)]
                assert sum(held) == ACCOUNTS * TOTAL

    asyncio.run(scene())


def with_store(tmp_path: Path, body: Callable[[k2store.Database], Awaitable[None]]) -> None:
    """Run a body with a store in this process."""

    async def scene() -> None:
        async with embedded(tmp_path / "store") as db:
            await body(db)

    asyncio.run(scene())


def test_a_restore_can_be_repeated(tmp_path: Path) -> None:
    """Interrupted, it goes on where it was; complete, it changes nothing any more."""

    async def body(db: k2store.Database) -> None:
        count = 3 * BATCH_ROWS
        await db.transact(writes=[(b"%05d" % number, b"v") for number in range(count)])
        backup = await backup_of(db, tmp_path / "b")
        # What an interrupted restore leaves: some batches, not always the first ones.
        await db.transact(
            writes=[(b"%05d" % number, None) for number in range(count) if 99 < number < 600]
        )
        told: list[int] = []
        restored = await load(db, backup, on_rows=told.append)
        assert restored == Restored(
            rows=count,
            already_there=count - 500,
            written=500,
            replaced=0,
            deleted=0,
            at=restored.at,
        )
        assert sum(told) == count
        again = await load(db, backup)
        assert (again.already_there, again.written, again.at) == (count, 0, 0)

    with_store(tmp_path, body)


def test_a_store_with_other_rows_is_refused(tmp_path: Path) -> None:
    """A row that differs, or that the backup lacks, stops a restore before it writes anything."""

    async def body(db: k2store.Database) -> None:
        await db.transact(writes=[(b"a", b"1"), (b"b", b"2")])
        backup = await backup_of(db, tmp_path / "b")
        await db.transact(writes=[(b"a", None), (b"b", b"other")])
        with pytest.raises(k2store.Conflict, match="otherwise"):
            await load(db, backup)
        await db.transact(writes=[(b"b", b"2"), (b"c", b"3")])
        with pytest.raises(k2store.Conflict, match="not in the backup"):
            await load(db, backup)
        assert await rows(db) == {b"b": b"2", b"c": b"3"}
        restored = await load(db, backup, overwrite=True)
        assert (restored.written, restored.replaced, restored.deleted) == (1, 0, 1)
        assert await rows(db) == {b"a": b"1", b"b": b"2"}
        assert [each async for each in differences(db, backup)] == []

    with_store(tmp_path, body)


def test_what_somebody_writes_meanwhile_stands(tmp_path: Path) -> None:
    """A row that appears between the comparison and the write ends the restore, and is kept."""

    async def body(db: k2store.Database) -> None:
        await db.transact(writes=[(b"%04d" % number, b"v") for number in range(BATCH_ROWS * 2)])
        backup = await backup_of(db, tmp_path / "b")
        await db.transact(writes=[(b"%04d" % number, None) for number in range(1, BATCH_ROWS * 2)])
        rivals: list[asyncio.Task[int]] = []

        def rival(count: int) -> None:
            if not rivals:
                last = b"%04d" % (BATCH_ROWS * 2 - 1)
                rivals.append(asyncio.create_task(db.put(last, b"rival")))

        # The first row is there; that it is equal is told before anything is written.
        with pytest.raises(k2store.Conflict, match="somebody else"):
            await load(db, backup, on_rows=rival)
        await rivals[0]
        assert await db.get(b"%04d" % (BATCH_ROWS * 2 - 1)) == b"rival"

    with_store(tmp_path, body)


def test_rows_of_full_size_fit_into_batches(tmp_path: Path) -> None:
    """Rows with the longest keys and values that a node takes come back, also where a transaction
    may have few operations."""

    async def scene() -> None:
        async with embedded(tmp_path / "one") as db:
            key_bytes, value_bytes = db.welcome.key_bytes_max, db.welcome.value_bytes_max
            # Many long keys without values, and then one row of full size.
            for number in range(70):
                await db.put(b"k%03d" % number + b"k" * (key_bytes - 4), b"")
            await db.put(b"k" * key_bytes, b"v" * value_bytes)
            backup = await backup_of(db, tmp_path / "b")
            state = await rows(db)
        async with embedded(tmp_path / "two", limits__operations=7) as db:
            assert (await load(db, backup)).written == 71
            assert await rows(db) == state

    asyncio.run(scene())


def test_a_range_is_restored_alone(tmp_path: Path) -> None:
    """A backup of a prefix compares and writes there only, even with `overwrite`."""

    async def body(db: k2store.Database) -> None:
        await db.transact(writes=[(b"a/1", b"1"), (b"b/1", b"1")])
        async with db.snapshot(strong=True) as view:
            await save(db, view, k2store.prefix(b"a/"), tmp_path / "b")
        await db.transact(writes=[(b"a/2", b"2"), (b"b/2", b"2")])
        await load(db, verified(tmp_path / "b"), overwrite=True)
        assert await rows(db) == {b"a/1": b"1", b"b/1": b"1", b"b/2": b"2"}

    with_store(tmp_path, body)
