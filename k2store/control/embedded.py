"""The control plane in one node, on RocksDB: for small installations and trying things.

It is not highly available: while its node is away nobody takes over, joins or changes the map, and
if its disk is lost so are the map and the memory of which epochs were granted. Everything that it
answers is synced first, so it forgets nothing in a crash or a power cut.

::

    <data>/control     "map"          the document of the present map
                       "epoch" + id   the largest epoch granted for a partition

What is in memory decides, and moves only after the disk has it. One thread writes, one thing at a
time, and what it has begun it ends, also when the caller has stopped waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from rocksdict import Options, Rdict, WriteOptions

from k2store.control.map import Map, decode, encode
from k2store.control.ports import check_grant, check_update
from k2store.errors import Corruption, Unavailable
from k2store.storage.failures import StorageFailed, StoreLocked

_MAP: Final = b"map"
_EPOCH: Final = b"epoch"
_ID_BYTES: Final = 8


class EmbeddedControl:
    """See :class:`k2store.control.ports.Control`; one for a folder."""

    def __init__(self, directory: Path) -> None:
        """Raises StoreLocked when a process has the folder open, Corruption when it is damaged."""
        self._directory = directory
        self._map = Map()
        self._epochs: dict[int, int] = {}
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._closed = False
        self._failure: str | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._db = _open(directory)
        self._synced = WriteOptions()
        self._synced.sync = True
        try:
            self._recover()
        except BaseException:
            self._db.close()
            raise
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="control plane")

    async def load(self) -> Map:
        """The present map."""
        self._check("load")
        return self._map

    async def update(self, wanted: Map) -> None:
        """Store the next map, synced."""
        async with self._turn:
            self._check("update")
            check_update(self._map, wanted)
            await self._write(_MAP, encode(wanted), lambda: self._adopt(wanted))

    async def grant_epoch(self, partition: int, node: int, incarnation: bytes, above: int) -> int:
        """Grant the next epoch, synced."""
        async with self._turn:
            self._check("grant_epoch")
            check_grant(self._map, partition, node, incarnation, above)
            epoch = max(above, self._epochs.get(partition, 0)) + 1
            # Counted before it is written: an epoch whose writing was cut short is not used again.
            self._epochs[partition] = epoch
            name = _EPOCH + partition.to_bytes(_ID_BYTES, "big")
            await self._write(name, epoch.to_bytes(_ID_BYTES, "big"), lambda: None)
            return epoch

    async def watch(self) -> AsyncIterator[Map]:
        """The present map and every newer one."""
        told = -1
        while not self._closed:
            changed = self._changed
            if self._map.version > told:
                told = self._map.version
                yield self._map
            else:
                await changed.wait()

    async def close(self) -> None:
        """End the watches, finish what is being written, close the store."""
        if self._closed:
            return
        self._closed = True
        self._stir()
        async with self._turn:
            await asyncio.to_thread(self._writer.shutdown)
            self._db.close()

    # ------------------------------------------------------------------------------ the disk

    def _recover(self) -> None:
        try:
            document = self._db.get(_MAP)
            cursor = self._db.iter()
            cursor.seek(_EPOCH)
            while cursor.valid() and cursor.key().startswith(_EPOCH):
                partition = int.from_bytes(cursor.key()[len(_EPOCH) :], "big")
                self._epochs[partition] = int.from_bytes(cursor.value(), "big")
                cursor.next()
            cursor.status()
        except Exception as error:  # rocksdict has no narrower type
            raise Corruption(
                f"the control plane in {self._directory} cannot be read: {error}", what="control"
            ) from error
        if document is not None:
            self._map = decode(document)

    async def _write(self, name: bytes, value: bytes, then: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        written = loop.run_in_executor(self._writer, self._put, name, value)
        try:
            await asyncio.shield(written)
        except asyncio.CancelledError:
            # Who asked has gone, and what is on its way to the disk counts all the same.
            await asyncio.wait((written,))
            if written.exception() is None:
                then()
            raise
        then()

    def _put(self, name: bytes, value: bytes) -> None:
        try:
            self._db.put(name, value, self._synced)
        except Exception as error:  # rocksdict has no narrower type
            # Whether it is on the disk is not known, and may not be guessed until it is read again.
            self._failure = f"the control plane in {self._directory} cannot be written: {error}"
            raise StorageFailed(
                self._failure, operation="write", file=str(self._directory)
            ) from error

    def _check(self, what: str) -> None:
        if self._failure is not None:
            raise Unavailable(f"{what} was not done: {self._failure}")
        if self._closed:
            raise Unavailable(f"{what} was not done: the control plane was closed")

    def _adopt(self, present: Map) -> None:
        self._map = present
        self._stir()

    def _stir(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _open(directory: Path) -> Rdict:
    options = Options(raw_mode=True)
    options.create_if_missing(create_if_missing=True)
    options.set_write_buffer_size(1 << 20)
    options.set_keep_log_file_num(3)
    options.set_max_background_jobs(1)
    try:
        return Rdict(str(directory), options)
    except Exception as error:  # rocksdict has no narrower type
        text = str(error)
        if "lock" in text.lower():
            raise StoreLocked(f"another process has {directory} open") from error
        raise Corruption(f"{directory} cannot be opened: {text}", what="control") from error
