"""Two machines on which one suite of storage contracts runs: real files and simulated ones."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Protocol

from k2store.storage import MemoryMachine, StorageOptions, open_memory_store, open_store
from k2store.storage.store import OpenStore

SMALL = StorageOptions(segment_bytes=1 << 16, memtable_bytes=1 << 16, cache_bytes=1 << 20)


class Machine(Protocol):
    """Something that keeps a store over the deaths of the process that uses it."""

    def open(self) -> OpenStore:
        """Open the store, as a new process would."""
        ...

    def stop(self, store: OpenStore) -> None:
        """The process ends without another sync or flush; the machine keeps running."""
        ...


class FileMachine:
    """A real directory."""

    def __init__(self, path: Path, options: StorageOptions = SMALL) -> None:
        self.path = path
        self.options = options

    def open(self) -> OpenStore:
        """In this process."""
        return open_store(self.path, self.options)

    def stop(self, store: OpenStore) -> None:
        """Closing syncs nothing of the log; what was written stays in the page cache."""
        store.close()


class SimulatedMachine:
    """Memory, with a seeded chance."""

    def __init__(self, options: StorageOptions = SMALL, seed: int = 1) -> None:
        self.machine = MemoryMachine()
        self.options = options
        self.random = Random(seed)

    def open(self) -> OpenStore:
        """A new life."""
        return open_memory_store(
            self.machine, self.options, now_ns=lambda: 0, entropy=self.random.randbytes
        )

    def stop(self, store: OpenStore) -> None:
        """A kill."""
        store.close()
        self.machine.kill(self.random)


def machine_of(kind: str, path: Path) -> Machine:
    """A machine by name."""
    return FileMachine(path) if kind == "files" else SimulatedMachine()


KINDS = ("files", "memory")
