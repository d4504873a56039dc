"""Settled rows in RocksDB.

One column family holds rows and named values together: its memtables reach the disk in the order
they were filled, so without a log of its own RocksDB still keeps a *prefix* of what was written,
which is all the contract asks.  (Two families would be flushed apart.)

Two traps of rocksdict 0.3.29 shape the reading here.  Iterators that give pairs end silently at a
damaged block; only hand-driven cursors have a status, so every loop ends by asking one.  And the
bounds of ReadOptions point into memory of the caller that may be gone, the lower one even acting as
the upper one; so no bounds are set and each row is compared instead.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import cast

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from k2store.errors import Corruption
from k2store.storage.failures import Damaged, StorageFailed
from k2store.storage.options import StorageOptions
from k2store.storage.paging import TOMBSTONE, VALUE, page_down, page_up, stored_value
from k2store.storage.ports import LATEST, Page, Row
from k2store.storage.row import (
    END,
    META,
    SPACE_BYTES,
    STAMP_BYTES,
    TAIL_BYTES,
    key_head,
    range_rows,
    row_key,
    space_prefix,
    split_row,
)

_NAMED = META + b"\x01"
_APPLIED = META + b"\x00applied"
NAME_BYTES_MAX = 255
_BATCH_ROWS = 4096
_BLOCK_BYTES = 16 << 10
"""Four times the default: a third less work to write and merge tables, and no more to read a row."""
_STEP_ROWS = 256  # of a reading that goes on beside the node's work, a batch a tick
_stamp_at = struct.Struct(">Q").unpack_from
_NEVER = 1 << 40


def _rocks_options(options: StorageOptions) -> Options:
    table = BlockBasedOptions()
    table.set_block_size(_BLOCK_BYTES)
    table.set_block_cache(Cache(options.cache_bytes))
    table.set_format_version(5)
    rocks = Options(raw_mode=True)
    rocks.create_if_missing(create_if_missing=True)
    rocks.set_block_based_table_factory(table)
    rocks.set_compression_type(DBCompressionType.lz4())
    rocks.set_write_buffer_size(options.memtable_bytes)
    rocks.set_max_write_buffer_number(8)
    rocks.set_max_background_jobs(2)
    rocks.set_allow_concurrent_memtable_write(allow=False)  # one writer: a plain, faster insert
    rocks.set_enable_write_thread_adaptive_yield(enabled=False)
    # A stalled write would stop the node's loop: let level 0 and the debt grow instead.
    rocks.set_level_zero_file_num_compaction_trigger(6)
    rocks.set_level_zero_slowdown_writes_trigger(200)
    rocks.set_level_zero_stop_writes_trigger(400)
    rocks.set_soft_pending_compaction_bytes_limit(_NEVER)
    rocks.set_hard_pending_compaction_bytes_limit(_NEVER)
    rocks.set_keep_log_file_num(3)
    rocks.set_bytes_per_sync(1 << 20)
    return rocks


def _put_rows(batch: WriteBatch, space: int, rows: Iterable[Row]) -> None:
    """The hot path: everything is inlined here and the batch does the rest."""
    prefix = space_prefix(space)
    put = batch.put
    for key, stamp, value in rows:
        put(
            prefix
            + key.replace(b"\x00", b"\x00\xff")
            + END
            + (LATEST - stamp).to_bytes(STAMP_BYTES, "big"),
            TOMBSTONE if value is None else VALUE + value,
        )


class RocksSettled:
    """See :class:`k2store.storage.ports.Settled`."""

    def __init__(self, directory: Path, options: StorageOptions) -> None:
        self._directory = str(directory)
        try:
            self._db = Rdict(self._directory, _rocks_options(options))
        except Exception as error:  # rocksdict has no narrower type
            raise _opening_failed(self._directory, error) from error
        self._write_options = WriteOptions()
        # a property at run time, a method in the library's stubs
        self._write_options.disable_wal = True  # type: ignore[method-assign, assignment]
        self._failed: str | None = None
        self._closed = False
        self._in_use = threading.Lock()
        applied = self._get(_APPLIED)
        self.applied_lsn = 0 if applied is None else int.from_bytes(applied, "big")

    # ---- writing
    def settle(self, space: int, rows: Iterable[Row]) -> None:
        """Write versions in one batch."""
        batch = WriteBatch(raw_mode=True)
        _put_rows(batch, space, rows)
        self._write(batch)

    def replace_range(
        self, space: int, start: bytes, end: bytes | None, rows: Iterable[Row]
    ) -> None:
        """Write versions in the place of all those in a range, in one batch."""
        lower, upper = range_rows(space, start, end)
        batch = WriteBatch(raw_mode=True)
        if lower < upper:
            batch.delete_range(lower, upper)
        _put_rows(batch, space, rows)
        self._write(batch)

    def forget(self, space: int, versions: Iterable[tuple[bytes, int]]) -> None:
        """Delete single versions."""
        prefix = space_prefix(space)
        batch = WriteBatch(raw_mode=True)
        for key, stamp in versions:
            batch.delete(row_key(prefix, key, stamp))
        self._write(batch)

    def put_meta(self, items: Mapping[bytes, bytes | None]) -> None:
        """Write named values."""
        batch = WriteBatch(raw_mode=True)
        for name, value in items.items():
            if len(name) > NAME_BYTES_MAX:
                raise ValueError(f"a name of {len(name)} bytes; at most {NAME_BYTES_MAX}")
            if value is None:
                batch.delete(_NAMED + name)
            else:
                batch.put(_NAMED + name, value)
        self._write(batch)

    def mark_applied(self, lsn: int) -> None:
        """Note how far the log is settled."""
        assert lsn >= self.applied_lsn, (lsn, self.applied_lsn)
        batch = WriteBatch(raw_mode=True)
        batch.put(_APPLIED, lsn.to_bytes(8, "big"))
        self._write(batch)
        self.applied_lsn = lsn

    def flush(self) -> int:
        """Make it durable; waits without holding the interpreter lock."""
        self._check()
        applied = self.applied_lsn
        try:
            with self._in_use:
                if self._closed:
                    return applied
                self._db.flush(wait=True)
        except Exception as error:
            raise self._fail("flush", error) from error
        return applied

    def _write(self, batch: WriteBatch) -> None:
        self._check()
        try:
            self._db.write(batch, self._write_options)
        except Exception as error:
            raise self._fail("write", error) from error

    # ---- reading
    def _get(self, row: bytes) -> bytes | None:
        try:
            value: bytes | None = self._db.get(row)
        except Exception as error:
            raise self._damaged(error) from error
        return value

    def get_meta(self, name: bytes) -> bytes | None:
        """A named value."""
        return self._get(_NAMED + name)

    def meta(self, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
        """Named values by prefix."""
        found: list[tuple[bytes, bytes]] = []
        cursor = self._db.iter()
        cursor.seek(_NAMED + prefix)
        while cursor.valid():
            row: bytes = cursor.key()
            if not row.startswith(_NAMED + prefix):
                break
            found.append((row[len(_NAMED) :], cursor.value()))
            cursor.next()
        self._ended(cursor)
        return found

    def newest(
        self, space: int, key: bytes, stamp: int = LATEST
    ) -> tuple[int, bytes | None] | None:
        """One seek."""
        head = key_head(space_prefix(space), key)
        cursor = self._db.iter()
        cursor.seek(head + (LATEST - stamp).to_bytes(STAMP_BYTES, "big"))
        if cursor.valid():
            row: bytes = cursor.key()
            if row.startswith(head):
                return LATEST - int.from_bytes(row[-STAMP_BYTES:], "big"), stored_value(
                    cursor.value()
                )
            return None
        self._ended(cursor)
        return None

    def versions(
        self, space: int, key: bytes, *, at_most: int = LATEST, count_max: int = 1000
    ) -> list[tuple[int, bytes | None]]:
        """Versions of one key."""
        head = key_head(space_prefix(space), key)
        cursor = self._db.iter()
        cursor.seek(head + (LATEST - at_most).to_bytes(STAMP_BYTES, "big"))
        found: list[tuple[int, bytes | None]] = []
        while len(found) < count_max and cursor.valid():
            row: bytes = cursor.key()
            if not row.startswith(head):
                break
            found.append((split_row(row)[1], stored_value(cursor.value())))
            cursor.next()
        self._ended(cursor)
        return found

    def scan(
        self,
        space: int,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        stamp: int = LATEST,
        rows_max: int = 1000,
        examined_max: int = 10_000,
        reverse: bool = False,
        tombstones: bool = False,
    ) -> Page:
        """A page of the range."""
        if rows_max < 1 or examined_max < 1:
            raise ValueError("the limits of a scan are at least 1")
        lower, upper = range_rows(space, start, end)
        if lower >= upper:
            return Page([], None)
        cursor = self._db.iter()
        limits = (rows_max, examined_max)
        inverted = (LATEST - stamp).to_bytes(STAMP_BYTES, "big")
        if reverse:
            cursor.seek_for_prev(upper)
            page = page_down(cursor, lower, inverted, limits, tombstones=tombstones)
        else:
            cursor.seek(lower)
            page = page_up(cursor, upper, inverted, limits, tombstones=tombstones)
        self._ended(cursor)
        return page

    def newest_rows(self, space: int) -> Iterator[list[Row]]:
        """Load a space: whole batches through one comprehension."""
        last = b""
        for batch in self._items(*range_rows(space, b"", None)):
            rows: list[Row] = [
                (
                    row[SPACE_BYTES:-TAIL_BYTES].replace(b"\x00\xff", b"\x00"),
                    LATEST - _stamp_at(row, len(row) - STAMP_BYTES)[0],
                    value[1:] if value else None,
                )
                for row, value in batch
                if (head := row[:-STAMP_BYTES]) != last and (last := head)
            ]
            if rows:
                yield rows

    def all_rows(
        self, space: int, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[list[Row]]:
        """Every version of a range."""
        for batch in self._items(*range_rows(space, start, end), rows_max=_STEP_ROWS):
            yield [(*split_row(row), stored_value(value)) for row, value in batch]

    def _items(
        self, lower: bytes, upper: bytes, *, rows_max: int = _BATCH_ROWS
    ) -> Iterator[list[tuple[bytes, bytes]]]:
        options = ReadOptions()
        options.set_readahead_size(2 << 20)
        # Reading all of a space once would push out what is read often.
        options.fill_cache(False)  # type: ignore[call-arg]  # the library's stubs forget the value
        pairs = cast(  # raw mode: bytes only
            "Iterator[tuple[bytes, bytes]]", self._db.items(from_key=lower, read_opt=options)
        )
        last = lower
        while batch := list(islice(pairs, rows_max)):
            last = batch[-1][0]
            if last >= upper:
                inside = [pair for pair in batch if pair[0] < upper]
                if inside:
                    yield inside
                return
            yield batch
        cursor = self._db.iter()  # was that the end, or a damaged block?
        cursor.seek(last)
        if cursor.valid():
            cursor.next()
        self._ended(cursor)

    def _ended(self, cursor: RdictIter) -> None:
        try:
            cursor.status()
        except Exception as error:
            raise self._damaged(error) from error

    @property
    def size_bytes(self) -> int:
        """Tables plus memtables."""
        names = ("rocksdb.live-sst-files-size", "rocksdb.cur-size-all-mem-tables")
        return sum(self._db.property_int_value(name) or 0 for name in names)

    # ---- ending
    def close(self) -> None:
        """Release everything; StorageFailed when the disk refuses what was not written yet."""
        if not self._closed:
            self._closed = True
            self._failed = self._failed or "the settled rows are closed"
            with self._in_use:  # a flush may be running in another thread
                try:
                    self._db.close()
                except Exception as error:
                    raise self._fail("close", error) from error

    def _check(self) -> None:
        if self._failed is not None:
            raise StorageFailed(self._failed, operation="settle")

    def _fail(self, operation: str, error: Exception) -> StorageFailed | Corruption:
        if str(error).startswith("Corruption"):
            # Met by a compaction, and told to whoever writes next: another opening does not help.
            damaged = self._damaged(error)
            self._failed = damaged.message
            return damaged
        self._failed = (
            f"settled rows failed in {operation} ({error}); the process must stop and open the"
            " store again, nothing that the log still holds is lost"
        )
        return StorageFailed(self._failed, operation=operation, file=self._directory)

    def _damaged(self, error: Exception) -> Corruption:
        return Damaged(f"settled rows are damaged: {error}", file=self._directory)


def _opening_failed(directory: str, error: Exception) -> Corruption | StorageFailed:
    text = str(error)
    if "No space left" in text or "IO error: While lock file" in text:
        return StorageFailed(
            f"settled rows cannot be opened: {text}", operation="open", file=directory
        )
    return Damaged(f"settled rows cannot be opened: {text}", file=directory)
