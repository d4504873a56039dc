"""A disk that keeps only what was synced, and not always that.

Implements the disk port under the store's log, so the real log, its recovery and its checks run
on it. A machine has one `SimDisk`; each process opens its own `Mount`, which dies with it.

What is written is seen at once by every reader on the machine, and survives the death of the
process: the operating system has it. Only `datasync` (content) and `sync_directory` (names)
bring it to the platter. A power cut treats every write that did not get there on its own: kept,
lost, or torn into sectors of which some are kept; so later writes may survive earlier ones. Of
the changes to names a first part survives, as on a journaling file system.

A failed sync is final for what it covered: a later sync that succeeds does not bring it to the
platter although readers still see it, until the page cache lets go of it. (Rebello et al., "Can
Applications Recover from fsync Failures?", USENIX ATC 2020.)
"""

from __future__ import annotations

import errno
import random
import zlib
from collections.abc import Callable
from typing import Final

from k2store.testing.simulation.probes import Probes
from k2store.testing.simulation.trace import Trace

SECTOR_BYTES: Final = 512
PAGE_BYTES: Final = 4096
PENDING_MAX: Final = 64
"""Writes to one file that wait for a sync; the oldest beyond are written back unasked."""

Write = tuple[int, bytes]
"""Offset and bytes."""


class Blocks:
    """A file's content and what of it the platter has."""

    __slots__ = ("doomed", "durable", "pending", "seen")

    def __init__(self, size: int) -> None:
        self.durable = bytearray(size)
        self.seen = bytearray(size)
        self.pending: list[Write] = []
        """Written since the last sync, in order."""
        self.doomed: list[Write] = []
        """Covered by a failed sync: seen until the cache lets go, never again written back."""

    def copy(self) -> Blocks:
        """The platter's content as a new file."""
        blocks = Blocks(0)
        blocks.durable = bytearray(self.durable)
        blocks.seen = bytearray(self.durable)
        return blocks


Names = dict[str, Blocks]


class SimDisk:
    """One machine's disk."""

    def __init__(
        self,
        rng: random.Random,
        trace: Trace,
        probes: Probes,
        *,
        label: str = "disk",
        capacity_bytes: int = 1 << 40,
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.syncs = 0
        self.faults = 0
        """How many operations were spoilt by an order given below."""
        self._rng = rng
        self._trace = trace
        self._probes = probes
        self._label = label
        self._names: Names = {}
        self._history: list[Names] = [{}]
        """The directory after every change since it was last synced; the first is durable."""
        self._syncs_to_fail = 0
        self._reads_to_fail = 0
        self._writes_to_misdirect = 0

    # What a test orders

    def fail_syncs(self, count: int = 1) -> None:
        """Let the next syncs fail with an input/output error."""
        self._syncs_to_fail += count

    def fail_reads(self, count: int = 1) -> None:
        """Let the next reads fail with an input/output error."""
        self._reads_to_fail += count

    def misdirect_writes(self, count: int = 1) -> None:
        """Let the next writes go to another page of their file."""
        self._writes_to_misdirect += count

    def behave(self) -> None:
        """Take back every order that has not been met yet."""
        self._syncs_to_fail = self._reads_to_fail = self._writes_to_misdirect = 0
        self.capacity_bytes = 1 << 40

    def flip_bit(self) -> str | None:
        """Change one stored bit of a file's used part; gives where, None on an empty disk."""
        used = [
            (name, len(bytes(blocks.durable).rstrip(b"\0")))
            for name, blocks in sorted(self._names.items())
        ]
        used = [(name, size) for name, size in used if size]
        if not used:
            return None
        name, size = self._rng.choice(used)
        blocks = self._names[name]
        bit = self._rng.randrange(size * 8)
        for content in (blocks.durable, blocks.seen):
            content[bit // 8] ^= 1 << bit % 8
        self.faults += 1
        self._probes.hit("disk.flipped")
        self._trace.event("flip", self._label, name, bit)
        return f"{name} bit {bit}"

    def power_cut(self) -> None:
        """Lose what the platter does not have, wholly or in part."""
        kept = self._rng.randrange(len(self._history))
        if kept + 1 < len(self._history):
            self._probes.hit("disk.lost_name")
        self._names = dict(self._history[kept])
        self._history = [dict(self._names)]
        for name in sorted(self._names):
            self._lose_pending(self._names[name])
        self._trace.event("power", self._label, self.digest())

    def process_died(self) -> None:
        """After the death of a process the cache lets go of what a failed sync left behind."""
        for name in sorted(self._names):
            blocks = self._names[name]
            if blocks.doomed:
                self._probes.hit("disk.sync_failed_lost")
                blocks.doomed.clear()
                blocks.seen = bytearray(blocks.durable)
                for offset, data in blocks.pending:
                    blocks.seen[offset : offset + len(data)] = data

    def wipe(self) -> None:
        """A new, empty disk."""
        self._names = {}
        self._history = [{}]

    def snapshot(self) -> Names:
        """What the platter has now, for `restore`."""
        return {name: blocks.copy() for name, blocks in self._history[0].items()}

    def restore(self, snapshot: Names) -> None:
        """Put an old copy back: a stale disk."""
        self._names = {name: blocks.copy() for name, blocks in snapshot.items()}
        self._history = [dict(self._names)]

    def digest(self) -> int:
        """A checksum over everything a reader would see, for traces and tests."""
        value = 0
        for name in sorted(self._names):
            value = zlib.crc32(name.encode(), value)
            value = zlib.crc32(self._names[name].seen, value)
        return value

    @property
    def used_bytes(self) -> int:
        """Bytes that files take."""
        return sum(len(blocks.seen) for blocks in self._names.values())

    # What a mount does

    def mount(self) -> Mount:
        """A process's access to the disk."""
        return Mount(self)

    def _lose_pending(self, blocks: Blocks) -> None:
        blocks.doomed.clear()
        for offset, data in blocks.pending:
            fate = self._rng.random()
            if fate < 0.4:
                blocks.durable[offset : offset + len(data)] = data
            elif fate < 0.7 or len(data) < 2:
                self._probes.hit("disk.lost_write")
            else:
                self._probes.hit("disk.torn_write")
                self._tear(blocks.durable, offset, data)
        blocks.pending.clear()
        blocks.seen = bytearray(blocks.durable)

    def _tear(self, content: bytearray, offset: int, data: bytes) -> None:
        """Write some of the sectors that a write touches."""
        start = offset
        end = offset + len(data)
        while start < end:
            stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
            if self._rng.random() < 0.5:
                content[start:stop] = data[start - offset : stop - offset]
            start = stop

    def _changed_names(self) -> None:
        self._history.append(dict(self._names))

    def _misdirected(self, blocks: Blocks, offset: int, length: int) -> int:
        """Where a write to `offset` goes."""
        if not self._writes_to_misdirect or len(blocks.seen) < 2 * PAGE_BYTES:
            return offset
        self._writes_to_misdirect -= 1
        self.faults += 1
        self._probes.hit("disk.misdirected")
        pages = (len(blocks.seen) - length) // PAGE_BYTES
        return self._rng.randrange(max(1, pages)) * PAGE_BYTES


class Mount:
    """A process's access to the disk; implements `k2store.storage.disk.Disk`."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk
        self._alive = True

    def detach(self) -> None:
        """The process is dead: nothing it still does reaches the disk."""
        self._alive = False

    def names(self) -> list[str]:
        """Files, sorted."""
        self._check()
        return sorted(self._disk._names)

    def create(self, name: str, size: int) -> SimFile:
        """A new file of zeros."""
        self._check()
        disk = self._disk
        if name in disk._names:
            raise FileExistsError(errno.EEXIST, "it is there already", name)
        if disk.used_bytes + size > disk.capacity_bytes:
            disk._probes.hit("disk.create_failed_full")
            disk.faults += 1
            raise OSError(errno.ENOSPC, "no space left on the simulated disk", name)
        disk._names[name] = Blocks(size)
        disk._changed_names()
        disk._trace.event("create", disk._label, name, size)
        return SimFile(self, name, disk._names[name])

    def open(self, name: str) -> SimFile:
        """An existing file."""
        self._check()
        return SimFile(self, name, self._find(name))

    def map(self, name: str) -> SimCell:
        """An existing file as a cell."""
        self._check()
        return SimCell(SimFile(self, name, self._find(name)))

    def rename(self, old: str, new: str) -> None:
        """Atomically; replaces `new`."""
        self._check()
        blocks = self._find(old)
        del self._disk._names[old]
        self._disk._names[new] = blocks
        self._disk._changed_names()
        self._disk._trace.event("rename", self._disk._label, old, new)

    def remove(self, name: str) -> None:
        """Unlink."""
        self._check()
        self._find(name)
        del self._disk._names[name]
        self._disk._changed_names()
        self._disk._trace.event("remove", self._disk._label, name)

    def sync_directory(self) -> None:
        """Make names durable."""
        self._check()
        self._take_order_to_fail("directory")
        self._disk._history = [dict(self._disk._names)]

    def _find(self, name: str) -> Blocks:
        blocks = self._disk._names.get(name)
        if blocks is None:
            raise FileNotFoundError(errno.ENOENT, "no such file on the simulated disk", name)
        return blocks

    def _check(self) -> None:
        if not self._alive:
            raise OSError(errno.EIO, "the process is dead")

    def _take_order_to_fail(self, name: str) -> None:
        disk = self._disk
        disk.syncs += 1
        if disk._syncs_to_fail:
            disk._syncs_to_fail -= 1
            disk.faults += 1
            disk._probes.hit("disk.sync_failed")
            disk._trace.event("sync failed", disk._label, name)
            raise OSError(errno.EIO, "the simulated disk refused to sync", name)


class SimFile:
    """An open file; implements `k2store.storage.disk.File`."""

    def __init__(self, mount: Mount, name: str, blocks: Blocks) -> None:
        self._mount = mount
        self._name = name
        self._blocks = blocks

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._blocks.seen)

    def write(self, offset: int, data: bytes) -> None:
        """Put all of `data` at `offset`."""
        self._mount._check()
        blocks = self._blocks
        if offset < 0 or offset + len(data) > len(blocks.seen):
            raise OSError(errno.EINVAL, "a write beyond the end of the file", self._name)
        offset = self._mount._disk._misdirected(blocks, offset, len(data))
        data = bytes(data)
        blocks.seen[offset : offset + len(data)] = data
        blocks.pending.append((offset, data))
        if len(blocks.pending) > PENDING_MAX:
            old_offset, old = blocks.pending.pop(0)
            blocks.durable[old_offset : old_offset + len(old)] = old
        disk = self._mount._disk
        disk._trace.event("write", disk._label, self._name, offset, zlib.crc32(data))

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes."""
        self._mount._check()
        disk = self._mount._disk
        if disk._reads_to_fail:
            disk._reads_to_fail -= 1
            disk.faults += 1
            disk._probes.hit("disk.read_failed")
            raise OSError(errno.EIO, "the simulated disk cannot read", self._name)
        return bytes(self._blocks.seen[offset : offset + length])

    def datasync(self) -> None:
        """Make everything written so far durable."""
        self._mount._check()
        blocks = self._blocks
        try:
            self._mount._take_order_to_fail(self._name)
        except OSError:
            # Some of it may have reached the platter before the error.
            for offset, data in blocks.pending:
                if self._mount._disk._rng.random() < 0.5:
                    blocks.durable[offset : offset + len(data)] = data
                else:
                    blocks.doomed.append((offset, data))
            blocks.pending.clear()
            raise
        for offset, data in blocks.pending:
            blocks.durable[offset : offset + len(data)] = data
        blocks.pending.clear()
        disk = self._mount._disk
        disk._trace.event("sync", disk._label, self._name)

    def datasync_beside(self, meanwhile: Callable[[], object]) -> None:
        """One after the other."""
        meanwhile()
        self.datasync()

    def close(self) -> None:
        """Nothing to give back."""


class SimCell:
    """A file mapped into memory; implements `k2store.storage.disk.Cell`."""

    def __init__(self, file: SimFile) -> None:
        self._file = file

    def load(self) -> bytes:
        """All of it."""
        return self._file.read(0, self._file.size)

    def store(self, offset: int, data: bytes) -> None:
        """A memory write."""
        self._file.write(offset, data)

    def datasync(self) -> None:
        """Make it durable."""
        self._file.datasync()

    def close(self) -> None:
        """Nothing to give back."""
