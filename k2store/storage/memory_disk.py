"""The disk port in memory, with everything that a real disk can do to one.

A write goes to the *cached* content at once and to the *durable* content with the next
``datasync``; a change of names becomes durable with ``sync_directory``.  Two ends of a process:

* :meth:`MemoryDisk.kill`: the process is gone, the cache is not (kill -9);
* :meth:`MemoryDisk.power_cut`: of each write that was not synced every sector survives or not, by
  the given generator, also out of order; of the changes of names a prefix survives.

After either, handles of the dead process refuse.  Faults to arm: failing syncs (what they covered
never becomes durable, even if a later sync succeeds), failing writes, a capacity, flipped bits.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

SECTOR_BYTES = 512
_PENDING_MAX = 64


class _Inode:
    def __init__(self, size: int) -> None:
        self.cached = bytearray(size)
        self.durable = bytearray(size)
        self.pending: list[tuple[int, bytes]] = []

    def write(self, offset: int, data: bytes) -> None:
        self.cached[offset : offset + len(data)] = data
        self.pending.append((offset, data))
        if len(self.pending) > _PENDING_MAX:  # write-back that nobody asked for
            self.land(self.pending.pop(0))

    def land(self, write: tuple[int, bytes]) -> None:
        offset, data = write
        self.durable[offset : offset + len(data)] = data

    def sync(self) -> None:
        for write in self.pending:
            self.land(write)
        self.pending.clear()

    def cut(self, random: Random) -> None:
        for offset, data in self.pending:
            fate = random.randrange(3)
            if fate == 0:
                continue
            at = offset
            while at < offset + len(data):
                end = min((at // SECTOR_BYTES + 1) * SECTOR_BYTES, offset + len(data))
                if fate == 1 or random.randrange(2):
                    self.land((at, data[at - offset : end - offset]))
                at = end
        self.pending.clear()
        self.cached = bytearray(self.durable)


class MemoryFile:
    """A handle of one life of the process; serves as File and as Cell."""

    def __init__(self, disk: MemoryDisk, inode: _Inode) -> None:
        self._disk = disk
        self._inode = inode
        self._life = disk.life

    def _check(self) -> None:
        if self._life != self._disk.life:
            raise OSError(errno.EIO, "the process that held this file is dead")

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._inode.cached)

    def read(self, offset: int, length: int) -> bytes:
        """Cached content."""
        self._check()
        return bytes(self._inode.cached[offset : offset + length])

    def load(self) -> bytes:
        """All of it."""
        return self.read(0, self.size)

    def write(self, offset: int, data: bytes) -> None:
        """Into the cache."""
        self._check()
        assert offset + len(data) <= self.size
        self._disk.count_write()
        self._inode.write(offset, data)

    def store(self, offset: int, data: bytes) -> None:
        """Into the cache; a memory write cannot fail."""
        if self._life == self._disk.life:
            self._inode.write(offset, data)

    def datasync_beside(self, meanwhile: Callable[[], object]) -> None:
        """One after the other."""
        meanwhile()
        self.datasync()

    def datasync(self) -> None:
        """Into the durable content."""
        self._check()
        if self._disk.take_sync_fault():
            self._inode.pending.clear()
            raise OSError(errno.EIO, "armed sync failure")
        self._inode.sync()

    def close(self) -> None:
        """Nothing to release."""


class MemoryDisk:
    """One directory in memory; outlives the processes that use it."""

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.life = 0
        """How often a process using it died."""
        self.syncs_to_fail = 0
        self.writes_to_fail = 0
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._pending_names: list[tuple[str, _Inode | None, str]] = []

    # ---- the port
    def names(self) -> list[str]:
        """Files, sorted."""
        return sorted(self._names)

    def create(self, name: str, size: int) -> MemoryFile:
        """A file of zeros."""
        self.count_write()
        if name in self._names:
            raise FileExistsError(errno.EEXIST, "it exists", name)
        used = sum(len(inode.cached) for inode in self._names.values())
        if self.capacity_bytes is not None and used + size > self.capacity_bytes:
            raise OSError(errno.ENOSPC, "no space left on the simulated disk", name)
        inode = _Inode(size)
        self._change(name, inode, "")
        return MemoryFile(self, inode)

    def open(self, name: str) -> MemoryFile:
        """An existing file."""
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return MemoryFile(self, self._names[name])

    def map(self, name: str) -> MemoryFile:
        """An existing file."""
        return self.open(name)

    def rename(self, old: str, new: str) -> None:
        """Atomically."""
        if old not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file", old)
        self._change(new, self._names[old], old)

    def remove(self, name: str) -> None:
        """Forget a name."""
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        self._change(name, None, "")

    def sync_directory(self) -> None:
        """Make names durable."""
        if self.take_sync_fault():
            self._pending_names.clear()
            raise OSError(errno.EIO, "armed sync failure")
        self._durable_names = dict(self._names)
        self._pending_names.clear()

    def _change(self, name: str, inode: _Inode | None, vacated: str) -> None:
        self._pending_names.append((name, inode, vacated))
        _apply(self._names, name, inode, vacated)

    # ---- ends
    def kill(self) -> None:
        """The process dies; nothing that it wrote is lost."""
        self.life += 1
        self.syncs_to_fail = self.writes_to_fail = 0

    def power_cut(self, random: Random) -> None:
        """The machine dies; what was not synced survives by chance."""
        self.kill()
        kept = random.randint(0, len(self._pending_names))
        for name, inode, vacated in self._pending_names[:kept]:
            _apply(self._durable_names, name, inode, vacated)
        self._pending_names.clear()
        self._names = dict(self._durable_names)
        for name in sorted(self._names):
            self._names[name].cut(random)

    # ---- faults
    def flip(self, name: str, offset: int, bit: int) -> None:
        """Flip one bit of the content, cached and durable."""
        inode = self._names[name]
        inode.cached[offset] ^= 1 << bit
        inode.durable[offset] ^= 1 << bit

    def flip_somewhere(self, random: Random) -> tuple[str, int, int]:
        """Flip a random bit of a random file, preferring bytes in use; tell which."""
        name = random.choice(self.names())
        content = self._names[name].cached
        used = [at for at in range(0, len(content), 64) if any(content[at : at + 64])]
        start = random.choice(used) if used else 0
        offset, bit = start + random.randrange(min(64, len(content) - start)), random.randrange(8)
        self.flip(name, offset, bit)
        return name, offset, bit

    def snapshot(self) -> dict[str, bytes]:
        """The cached content of every file, for :meth:`restore`."""
        return {name: bytes(inode.cached) for name, inode in self._names.items()}

    def restore(self, contents: dict[str, bytes]) -> None:
        """Replace everything by an older (stale) copy of the disk; handles die."""
        self.kill()
        self._names = {}
        for name, content in contents.items():
            inode = self._names[name] = _Inode(len(content))
            inode.cached[:] = inode.durable[:] = content
        self._durable_names = dict(self._names)
        self._pending_names.clear()

    def truncate(self, name: str, size: int) -> None:
        """Lose the end of a file."""
        inode = self._names[name]
        del inode.cached[size:], inode.durable[size:]

    def lose(self, name: str) -> None:
        """Lose a file."""
        del self._names[name]
        self._durable_names.pop(name, None)

    def count_write(self) -> None:
        """Raises when a write failure is armed."""
        if self.writes_to_fail > 0:
            self.writes_to_fail -= 1
            raise OSError(errno.EIO, "armed write failure")

    def take_sync_fault(self) -> bool:
        """Whether this sync is to fail."""
        if self.syncs_to_fail > 0:
            self.syncs_to_fail -= 1
            return True
        return False


def _apply(names: dict[str, _Inode], name: str, inode: _Inode | None, vacated: str) -> None:
    if vacated:
        names.pop(vacated, None)
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode
