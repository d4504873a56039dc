"""From a file into a store: compare in order, then write what differs.

The comparison is a merge of two ordered streams, so neither has to fit into memory. It runs twice:
once to know whether the store may be written to at all, once to write. Rows are written in batches,
each a one-shot that takes effect whole or not at all; without `overwrite` each carries the condition
that its keys are absent, so a row that somebody else writes meanwhile is never lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from k2store.backup.file import Backup, Row
from k2store.client.conditions import absent
from k2store.client.ranges import KeyRange
from k2store.client.records import Record
from k2store.errors import ConditionFailed, Conflict

if TYPE_CHECKING:
    from k2store.client.database import Database

BATCH_ROWS: Final = 256
BATCH_BYTES: Final = 256 * 1024
"""Small enough that keys, their conditions and one more row of full size fit into a one-shot."""
BATCHES_IN_FLIGHT: Final = 8


class Difference(Struct, frozen=True, gc=False):
    """A key that the store does not have as the file has it.

    value  what the file has, None if the store has a row and the file none
    found  whether the store has a row
    """

    key: bytes
    value: bytes | None
    found: bool


class Restored(Struct, frozen=True, kw_only=True):
    """What a restore did: rows by what became of them, and stamps of the newest commit."""

    rows: int
    already_there: int
    written: int
    replaced: int
    deleted: int
    at: int


async def load(
    db: Database,
    backup: Backup,
    *,
    overwrite: bool = False,
    on_rows: Callable[[int], None] = lambda count: None,
) -> Restored:
    """Make the store hold the rows of a backup, in the backup's range of keys, and no others.

    Without `overwrite` the store may hold nothing there but rows of this backup, as a restore that
    was interrupted leaves it; else `Conflict` is raised before anything is written. With it, rows
    that differ are replaced and rows that the backup does not have are deleted. `on_rows` is told
    how many more rows are in place. Raises `Conflict`, too, when somebody else writes meanwhile.
    """
    if not overwrite:
        await _refuse_strangers(db, backup)
    restore = _Restore(db, overwrite=overwrite, on_rows=on_rows)
    try:
        async with asyncio.TaskGroup() as group:
            async for difference in differences(db, backup, on_equal=restore.equal):
                await restore.add(group, difference)
            await restore.send(group)
    except BaseExceptionGroup as failures:
        # The batches fail independently; the first failure says why.
        raise failures.exceptions[0] from None
    return restore.result(backup.header.rows)


async def differences(
    db: Database, backup: Backup, *, on_equal: Callable[[], None] = lambda: None
) -> AsyncIterator[Difference]:
    """Where the store differs from a backup, in the backup's range, in order of key."""
    header = backup.header
    wanted = _Ahead(backup.rows())
    async with db.snapshot(strong=True) as view:
        async for record in view.scan(KeyRange(header.start, header.end)):
            while wanted.row is not None and wanted.row.key < record.key:
                yield Difference(wanted.row.key, wanted.row.value, found=False)
                wanted.advance()
            row = wanted.row
            if row is None or row.key > record.key:
                yield Difference(record.key, None, found=True)
                continue
            if row.value != record.value:
                yield Difference(row.key, row.value, found=True)
            else:
                on_equal()
            wanted.advance()
    while wanted.row is not None:
        yield Difference(wanted.row.key, wanted.row.value, found=False)
        wanted.advance()


class _Ahead:
    """An iterator over rows whose next one can be looked at."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self.row = next(rows, None)

    def advance(self) -> None:
        self.row = next(self._rows, None)


class _Restore:
    """Gathers differences into batches and counts what became of them."""

    def __init__(self, db: Database, *, overwrite: bool, on_rows: Callable[[int], None]) -> None:
        self._db = db
        self._overwrite = overwrite
        self._on_rows = on_rows
        self._slots = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        # A row may take a condition and a write.
        self._rows_max = max(1, min(BATCH_ROWS, db.welcome.operations_max // 2))
        self._batch: list[Difference] = []
        self._batch_bytes = 0
        self._equal = self._written = self._replaced = self._deleted = self._at = 0

    def equal(self) -> None:
        self._equal += 1
        self._on_rows(1)

    async def add(self, group: asyncio.TaskGroup, difference: Difference) -> None:
        self._batch.append(difference)
        self._batch_bytes += len(difference.key) + len(difference.value or b"")
        if len(self._batch) >= self._rows_max or self._batch_bytes >= BATCH_BYTES:
            await self.send(group)

    async def send(self, group: asyncio.TaskGroup) -> None:
        """Let the batch leave, once fewer than `BATCHES_IN_FLIGHT` are under way."""
        if self._batch:
            batch, self._batch, self._batch_bytes = self._batch, [], 0
            await self._slots.acquire()
            group.create_task(self._write(batch))

    async def _write(self, batch: list[Difference]) -> None:
        try:
            conditions = [] if self._overwrite else [absent(each.key) for each in batch]
            result = await self._db.transact(
                conditions=conditions, writes=[(each.key, each.value) for each in batch]
            )
        except ConditionFailed as error:
            raise Conflict(
                "somebody else has written to the store during the restore; what they wrote stands",
                key=error.key,
            ) from error
        finally:
            self._slots.release()
        self._at = max(self._at, result.at)
        deleted = sum(each.value is None for each in batch)
        replaced = sum(each.found for each in batch) - deleted
        self._deleted += deleted
        self._replaced += replaced
        self._written += len(batch) - deleted - replaced
        self._on_rows(len(batch) - deleted)

    def result(self, rows: int) -> Restored:
        return Restored(
            rows=rows,
            already_there=self._equal,
            written=self._written,
            replaced=self._replaced,
            deleted=self._deleted,
            at=self._at,
        )


async def _refuse_strangers(db: Database, backup: Backup) -> None:
    """`Conflict` if the store holds a row that the backup does not have, or has otherwise."""
    header = backup.header
    where = KeyRange(header.start, header.end)
    newest: list[Record] = await db.scan(where, limit=1).all()
    if not newest:
        return
    async for difference in differences(db, backup):
        if difference.found:
            what = "which is not in the backup" if difference.value is None else "otherwise"
            raise Conflict(
                f"the store is not empty: it holds {difference.key!r} {what}; "
                "overwriting has to be asked for",
                key=difference.key,
            )
