"""A node on a real disk settles what is committed while the disk syncs, and loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import k2store
from k2store.node.solo import SETTLE_BESIDE_MIN
from k2store.storage.posix import PosixFile
from tests.integration.rpc_node import running_node

WRITERS = 3 * SETTLE_BESIDE_MIN


def test_a_loaded_node_settles_while_the_disk_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns that leave many versions hand their settling to the sync; single ones do not; and
    every version is there after a restart."""
    beside: list[int] = []
    original = PosixFile.datasync_beside

    def counting(self: PosixFile, meanwhile: Callable[[], object]) -> None:
        beside.append(1)
        original(self, meanwhile)

    async def write() -> None:
        async with running_node(tmp_path) as node:
            async with k2store.connect(f"k2://{node.address}") as db:
                for number in range(5):
                    await db.put(b"single", b"%d" % number)
                assert not beside, "what one client asks one after the other syncs at once"
                for round_ in range(10):
                    async with asyncio.TaskGroup() as group:
                        for number in range(WRITERS):
                            group.create_task(db.put(b"k%d" % number, b"%d" % round_))
                assert beside
            partition = node.engine.partitions[0]
            assert partition.state.unsettled_count <= WRITERS

    async def read() -> None:
        async with (
            running_node(tmp_path) as node,
            k2store.connect(f"k2://{node.address}") as db,
        ):
            rows = await db.scan(b"k").all()
            assert {row.key: row.value for row in rows} == {
                b"k%d" % number: b"9" for number in range(WRITERS)
            }
            assert len(await db.history(b"k0")) == 10

    monkeypatch.setattr(PosixFile, "datasync_beside", counting)
    asyncio.run(write())
    monkeypatch.undo()
    asyncio.run(read())
