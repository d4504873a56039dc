"""Values near the limit: answers that are larger than a frame leave in several, and nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import k2store
from k2store.errors import Overloaded, Rejected

LONG = 900_000
COUNT = 8


def test_many_long_values_are_read_scanned_and_listed(tmp_path: Path) -> None:
    """Reads, scans and histories whose answers exceed a frame many times over are whole."""

    async def run() -> None:
        async with k2store.open_async(tmp_path / "store") as db:
            values = {f"k{n:02}".encode(): bytes([n]) * LONG for n in range(COUNT)}
            for key, value in values.items():
                await db.put(key, value)
            read = await asyncio.gather(*(db.get(key) for key in values))
            assert read == list(values.values())
            scanned = {record.key: record.value async for record in db.scan(k2store.prefix(b"k"))}
            assert scanned == values
            backwards = [r.key async for r in db.scan(k2store.prefix(b"k"), reverse=True)]
            assert backwards == sorted(values, reverse=True)
            for n in range(3):
                await db.put(b"k00", bytes([n]) * LONG)
            assert len(await db.history(b"k00")) == 4

    asyncio.run(run())


def test_reading_more_than_the_queue_holds_is_refused_in_part(tmp_path: Path) -> None:
    """Reads beyond what may wait for a client get a typed refusal; the others are answered."""

    async def run() -> None:
        async with k2store.open_async(tmp_path / "store") as db:
            await db.put(b"k", b"x" * LONG)
            reads = (db.get(b"k") for _ in range(40))
            answers = await asyncio.gather(*reads, return_exceptions=True)
            assert all(isinstance(one, Overloaded) or one == b"x" * LONG for one in answers)
            assert {type(one) for one in answers} == {Overloaded, bytes}
            assert await db.get(b"k") == b"x" * LONG

    asyncio.run(run())


def test_a_one_shot_that_reads_too_much_is_refused(tmp_path: Path) -> None:
    """A one-shot whose reads fit no answer gets a typed refusal and changes nothing."""

    async def run() -> None:
        async with k2store.open_async(tmp_path / "store") as db:
            await db.put(b"a", b"x" * LONG)
            await db.put(b"b", b"y" * LONG)
            with pytest.raises(Rejected) as refused:
                await db.transact(reads=[b"a", b"b"], writes=[(b"c", b"1")])
            assert refused.value.field == "reads"
            assert await db.get(b"c") is None

    asyncio.run(run())
