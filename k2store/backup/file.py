"""The file of a backup. Knows bytes and files; knows no store.

::

    offset 0     header block, 4096 bytes
                     0   8 bytes   "K2BACKUP"
                     8   4 bytes   length of the header, big endian
                    12   header    msgpack map, the fields of `Header`
                   ...   zeros
    offset 4096  frames, each
                     0   4 bytes   length of the payload, big endian, not 0
                     4   payload   msgpack array of rows [key, value, version], keys ascending
                 4 zero bytes      no frame follows
                 32 bytes          SHA-256(header block + SHA-256(all after the header block))

The header is written last, over zeros, since it tells how many rows there are. A payload has at most
`FRAME_BYTES_MAX` bytes, so a reader never needs more memory than that.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec

from k2store.errors import Corruption, Rejected

FORMAT: Final = 1
MAGIC: Final = b"K2BACKUP"
HEADER_BLOCK_BYTES: Final = 4096
FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
FRAME_BYTES: Final = 1024 * 1024
"""A frame is ended as soon as its keys and values are longer than this."""

_LENGTH: Final = struct.Struct(">I")
_DIGEST_BYTES: Final = 32


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is of.

    format       layout of the file; readers refuse the ones they do not know
    software     version of the software that wrote it
    node         name of the node that was asked, its region, and its incarnation in hex
    stamp        the stamp of the snapshot
    time         the same for people
    start, end   the range of keys, as of `k2store.KeyRange`
    rows         how many rows
    data_bytes   how many bytes of keys and values they have
    """

    format: int = FORMAT
    software: str
    node: str
    region: str
    incarnation: str
    stamp: int
    time: str
    start: bytes = b""
    end: bytes = b""
    rows: int = 0
    data_bytes: int = 0


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row, with the stamp of the commit that had written it."""

    key: bytes
    value: bytes
    version: int


class Writer:
    """Writes a backup beside its final name, which it gets when `finish` has synced it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._hash = hashlib.sha256()
        self._frame: list[Row] = []
        self._frame_bytes = 0
        self._last = b""
        self.rows = 0
        self.data_bytes = 0
        try:
            self._file: BinaryIO = self._partial.open("w+b")
        except OSError as error:
            raise Rejected(f"cannot write {path}: {error.strerror}", field="file") from None
        self._file.write(bytes(HEADER_BLOCK_BYTES))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def add(self, row: Row) -> None:
        """Append a row; keys ascend."""
        assert not self.rows or row.key > self._last, "keys ascend"
        self._last = row.key
        size = len(row.key) + len(row.value)
        self._frame.append(row)
        self._frame_bytes += size
        self.rows += 1
        self.data_bytes += size
        if self._frame_bytes > FRAME_BYTES:
            self._end_frame()

    def finish(self, header: Header) -> Header:
        """Complete the file under its name; the header gets its counts."""
        if self._frame:
            self._end_frame()
        self._write(_LENGTH.pack(0))
        header = msgspec.structs.replace(header, rows=self.rows, data_bytes=self.data_bytes)
        encoded = msgspec.msgpack.encode(header)
        block = MAGIC + _LENGTH.pack(len(encoded)) + encoded
        if len(block) > HEADER_BLOCK_BYTES:
            # Only very long names or range ends get here.
            raise Rejected("names and range do not fit the header of a backup", field="file")
        block = block.ljust(HEADER_BLOCK_BYTES, b"\0")
        self._file.write(_seal(block, self._hash.digest()))
        self._file.seek(0)
        self._file.write(block)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._partial.replace(self._path)
        _sync_folder(self._path.parent)
        return header

    def _end_frame(self) -> None:
        payload = msgspec.msgpack.encode(self._frame)
        assert len(payload) <= FRAME_BYTES_MAX, len(payload)
        self._write(_LENGTH.pack(len(payload)))
        self._write(payload)
        self._frame = []
        self._frame_bytes = 0

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)


class Backup:
    """A file that was found whole: its header, and its rows as often as they are wanted."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.header = header

    def rows(self) -> Iterator[Row]:
        """Every row, keys ascending; `Corruption` if the file has changed since it was verified."""
        last: bytes | None = None
        count = 0
        with self.path.open("rb") as file:
            file.seek(HEADER_BLOCK_BYTES)
            for payload in _payloads(self.path, file):
                for row in _decode(self.path, payload):
                    if last is not None and row.key <= last:
                        raise _damaged(self.path, "its keys do not ascend")
                    last = row.key
                    count += 1
                    yield row
        if count != self.header.rows:
            raise _damaged(self.path, f"{count} rows instead of {self.header.rows}")


def verified(path: Path, *, on_bytes: Callable[[int], None] | None = None) -> Backup:
    """The backup in a file, after a look at every byte of it.

    `on_bytes` is told how many more bytes have been looked at. Raises `Rejected` when there is no
    such file, when it is no backup or has a format that is not known, and `Corruption` when
    anything in it is damaged or missing.
    """
    try:
        with path.open("rb") as file:
            return _verify(path, file, on_bytes or (lambda _: None))
    except OSError as error:
        raise Rejected(f"cannot read {path}: {error.strerror}", field="file") from None


def _verify(path: Path, file: BinaryIO, on_bytes: Callable[[int], None]) -> Backup:
    block = file.read(HEADER_BLOCK_BYTES)
    if not block.startswith(MAGIC):
        raise Rejected(f"{path} is no backup of a store", field="file")
    if len(block) < HEADER_BLOCK_BYTES:
        raise _damaged(path, "it ends inside its header")
    header = _header(path, block)
    digest = hashlib.sha256()
    rows = size = 0
    on_bytes(len(block))
    for payload in _payloads(path, file):
        digest.update(_LENGTH.pack(len(payload)))
        digest.update(payload)
        on_bytes(_LENGTH.size + len(payload))
        found = _decode(path, payload)
        rows += len(found)
        size += sum(len(row.key) + len(row.value) for row in found)
    digest.update(_LENGTH.pack(0))
    seal = file.read(_DIGEST_BYTES)
    if seal != _seal(block, digest.digest()):
        raise _damaged(path, "its checksum does not match")
    if file.read(1):
        raise _damaged(path, "something follows its end")
    if (rows, size) != (header.rows, header.data_bytes):
        raise _damaged(path, f"it has {rows} rows, and its header says {header.rows}")
    return Backup(path, header)


def _header(path: Path, block: bytes) -> Header:
    (length,) = _LENGTH.unpack_from(block, len(MAGIC))
    start = len(MAGIC) + _LENGTH.size
    if length > HEADER_BLOCK_BYTES - start:
        raise _damaged(path, "its header has an impossible length")
    try:
        told = msgspec.msgpack.decode(block[start : start + length])
        layout = told.get("format") if isinstance(told, dict) else None
        if isinstance(layout, int) and layout != FORMAT:
            raise Rejected(
                f"{path} has format {layout}; this version of k2store knows {FORMAT}",
                field="format",
            )
        return msgspec.convert(told, Header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(path, f"its header cannot be read ({error})") from None


def _payloads(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The payload of each frame; afterwards the file stands behind the mark of the end."""
    while True:
        head = file.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            raise _damaged(path, "it ends too early")
        (length,) = _LENGTH.unpack(head)
        if length == 0:
            return
        if length > FRAME_BYTES_MAX:
            raise _damaged(path, f"a frame of {length} bytes is impossible")
        payload = file.read(length)
        if len(payload) < length:
            raise _damaged(path, "it ends too early")
        yield payload


def _decode(path: Path, payload: bytes) -> list[Row]:
    try:
        return msgspec.msgpack.decode(payload, type=list[Row])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(path, f"a frame cannot be read ({error})") from None


def _seal(block: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(block + digest).digest()


def _damaged(path: Path, why: str) -> Corruption:
    return Corruption(f"{path} is damaged: {why}; nothing of it was used", what=str(path))


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
