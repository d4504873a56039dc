"""The little that the log asks of a disk: one directory of files, as a protocol.

The log and its recovery are written against this, so the very same code runs on a real directory
(:mod:`k2store.storage.posix`) and on a simulated disk that loses, tears and flips
(:mod:`k2store.storage.memory_disk`).

Every method may raise OSError.  Nothing here is durable before the matching ``datasync`` (content)
or ``sync_directory`` (names).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class File(Protocol):
    """A file of fixed size."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Put all of ``data`` at ``offset``, inside the file's size."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes; fewer only at the end of the file."""
        ...

    def datasync(self) -> None:
        """Make everything written so far durable.  Callable from any thread."""
        ...

    def datasync_beside(self, meanwhile: Callable[[], object]) -> None:
        """The same, while the disk works on it running ``meanwhile``, which must not touch this
        disk.  Owner's thread only.  Returns or raises when both are over."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


class Cell(Protocol):
    """A small file that is written by storing to memory: no system call, and it outlives the
    process."""

    def load(self) -> bytes:
        """All of it."""
        ...

    def store(self, offset: int, data: bytes) -> None:
        """A plain memory write; a kill in the middle can tear it."""
        ...

    def datasync(self) -> None:
        """Make it durable."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


class Disk(Protocol):
    """One directory."""

    def names(self) -> list[str]:
        """Files, sorted."""
        ...

    def create(self, name: str, size: int) -> File:
        """A new file of ``size`` zeros, all its blocks really written, content durable.  Leaves
        nothing behind when it fails."""
        ...

    def open(self, name: str) -> File:
        """An existing file."""
        ...

    def map(self, name: str) -> Cell:
        """An existing file as a cell."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Atomically; replaces ``new`` if it exists."""
        ...

    def remove(self, name: str) -> None:
        """FileNotFoundError when it is not there."""
        ...

    def sync_directory(self) -> None:
        """Make creations, renames and removals durable."""
        ...
