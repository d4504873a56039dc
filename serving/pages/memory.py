"""Stretches of memory that pages lie in, and what peers are told of them.

`Memory` is for this process alone: ordinary memory, or a file for a disk tier. Memory that other processes
may reach (`serving.transport.Memory`) has the same shape and keeps a table for them.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Protocol

import k2store


class PageMemory(Protocol):
    """Bytes of pages, one behind the other, and who is told when they are complete."""

    @property
    def data(self) -> memoryview:
        """All of them, writable."""
        ...

    def seal(self, page: int, generation: int, checksum: int | None = None) -> int:
        """The page's bytes are complete, and peers may read them."""
        ...

    def free(self, page: int) -> None:
        """The page's bytes are nobody's, and no peer may read or write them."""
        ...

    def close(self) -> None:
        """Let go of what outlives the process."""
        ...


class Memory:
    """So many bytes, zero at first; without a path, ordinary memory.

    With a path, the file is made anew for its owner's eyes alone, and `close` removes it. It gets all
    its bytes at once: a disk that is full is an error here, and not a signal that kills the process
    in the middle of a store. Raises `k2store.Rejected` for a path that cannot hold them.
    """

    def __init__(self, size_bytes: int, path: Path | None = None) -> None:
        if size_bytes < 1:
            raise ValueError(f"memory has at least one byte, not {size_bytes}")
        self._path = path
        self._map = mmap.mmap(-1, size_bytes) if path is None else _mapped(path, size_bytes)
        self._view = memoryview(self._map)

    @property
    def data(self) -> memoryview:
        """All the bytes."""
        return self._view

    def seal(self, page: int, generation: int, checksum: int | None = None) -> int:
        """Nobody else reads here, so nobody is told."""
        return checksum or 0

    def free(self, page: int) -> None:
        """Nobody else reads here, so nobody is told."""

    def close(self) -> None:
        """Remove the file, if there is one."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _mapped(path: Path, size_bytes: int) -> mmap.mmap:
    """A new file of so many bytes, mapped; an old one of this name is replaced, not written over."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
            return mmap.mmap(descriptor, size_bytes)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise k2store.Rejected(
            f"{path} cannot hold {size_bytes:,} bytes of pages: {error.strerror}", field="path"
        ) from None
