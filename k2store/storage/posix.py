"""The disk port over a real directory."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

from k2store.storage.sync_thread import SyncThread

_ZEROS = bytes(1 << 20)
_SYNC_EVERY_BYTES = 8 << 20  # while filling: short writebacks disturb a concurrent commit less


class PosixFile:
    """A file of fixed size, read and written at offsets."""

    def __init__(self, descriptor: int, size: int, beside: SyncThread) -> None:
        self._descriptor = descriptor
        self._beside = beside
        self.size = size

    def write(self, offset: int, data: bytes) -> None:
        """Put all of ``data`` at ``offset``."""
        written = os.pwrite(self._descriptor, data, offset)
        while written < len(data):  # rare: a signal, or a nearly full disk
            more = os.pwrite(self._descriptor, data[written:], offset + written)
            if more == 0:
                raise OSError(errno.EIO, "the file takes no more bytes")
            written += more

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes."""
        pieces: list[bytes] = []
        while length > 0:
            piece = os.pread(self._descriptor, min(length, 1 << 28), offset)
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def datasync(self) -> None:
        """fdatasync; releases the interpreter lock while it waits."""
        os.fdatasync(self._descriptor)

    def datasync_beside(self, meanwhile: Callable[[], object]) -> None:
        """fdatasync in another thread."""
        self._beside.run(self._descriptor, meanwhile)

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class PosixCell:
    """A small file mapped into memory."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, 0)
        self._open = True

    def load(self) -> bytes:
        """All of it."""
        return self._map[:]

    def store(self, offset: int, data: bytes) -> None:
        """A memory write."""
        self._map[offset : offset + len(data)] = data

    def datasync(self) -> None:
        """msync."""
        self._map.flush()

    def close(self) -> None:
        """Idempotent."""
        if self._open:
            self._map.close()
            self._open = False


class PosixDisk:
    """One directory of the file system; made if it is missing."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._beside = SyncThread()

    def names(self) -> list[str]:
        """Files, sorted."""
        return sorted(path.name for path in self._directory.iterdir())

    def create(self, name: str, size: int) -> PosixFile:
        """Zeros written out block by block: an fdatasync over them later has no metadata to
        commit, which makes it a third cheaper than on a growing file."""
        path = self._directory / name
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            offset = 0
            while offset < size:
                offset += os.pwrite(descriptor, _ZEROS[: size - offset], offset)
                if offset % _SYNC_EVERY_BYTES == 0:
                    os.fdatasync(descriptor)
            os.fsync(descriptor)
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return PosixFile(descriptor, size, self._beside)

    def open(self, name: str) -> PosixFile:
        """An existing file."""
        descriptor = os.open(self._directory / name, os.O_RDWR | os.O_CLOEXEC)
        return PosixFile(descriptor, os.fstat(descriptor).st_size, self._beside)

    def map(self, name: str) -> PosixCell:
        """An existing file, mapped."""
        descriptor = os.open(self._directory / name, os.O_RDWR | os.O_CLOEXEC)
        try:
            return PosixCell(descriptor)
        finally:
            os.close(descriptor)  # the mapping keeps its own reference

    def rename(self, old: str, new: str) -> None:
        """Atomically."""
        (self._directory / old).replace(self._directory / new)

    def remove(self, name: str) -> None:
        """Unlink."""
        (self._directory / name).unlink()

    def sync_directory(self) -> None:
        """fsync of the directory itself."""
        sync_directory(self._directory)


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes) -> None:
    """Replace a whole small file atomically and durably."""
    scratch = path.with_name(path.name + ".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    scratch.replace(path)
    sync_directory(path.parent)
