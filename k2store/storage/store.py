"""Opening a store: the directory, who may use it, what it says of itself, whether it is whole.

::

    PATH/
      IDENTITY      format version, store id, time of creation; checked; written last
      LOCK          held by the process that has the store open
      QUARANTINE    only after damage was found: why
      log/          segments, spares and the watermark
      settled/      RocksDB
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec

from k2store.errors import Corruption
from k2store.storage.failures import Damaged, FormatUnknown, Quarantined, StorageFailed, StoreLocked
from k2store.storage.identity import FORMAT, decode_identity, encode_identity
from k2store.storage.log import Entropy, SegmentedLog
from k2store.storage.memory import MemorySettled, MemoryTable
from k2store.storage.memory_disk import MemoryDisk
from k2store.storage.options import StorageOptions
from k2store.storage.ports import Identity, Log, Settled
from k2store.storage.posix import PosixDisk, sync_directory, write_file
from k2store.storage.recovery import create_log
from k2store.storage.rocks import RocksSettled

_STORE_ID = b"store"


class OpenStore:
    """See :class:`k2store.storage.ports.Store`."""

    def __init__(
        self,
        identity: Identity,
        log: Log,
        settled: Settled,
        mark_quarantine: Callable[[str], None],
        release: Callable[[], None],
    ) -> None:
        self.identity = identity
        self.log = log
        self.settled = settled
        self._mark_quarantine = mark_quarantine
        self._release = release
        self._closed = False

    def quarantine(self, reason: str) -> None:
        """Refuse to open from now on."""
        self._mark_quarantine(reason)

    def close(self) -> None:
        """Give everything free."""
        if not self._closed:
            self._closed = True
            self.log.close()
            try:
                self.settled.close()
            finally:
                self._release()


def open_store(
    path: Path,
    options: StorageOptions | None = None,
    *,
    create: bool = True,
    now_ns: Callable[[], int] = time.time_ns,
    entropy: Entropy = os.urandom,
) -> OpenStore:
    """Open the store at ``path``; make it when ``create`` and the directory is empty or missing.

    Raises StoreLocked, FormatUnknown, Quarantined; Damaged or Corruption, which quarantines the
    store; StorageFailed when the disk refuses (nothing is concluded about the data then).
    """
    options = options or StorageOptions()
    if not create and not path.is_dir():
        raise FormatUnknown(f"{path} is not a directory")
    path.mkdir(parents=True, exist_ok=True)
    lock = _lock(path)
    try:
        _refuse_quarantined(path)
        identity = _read_identity(path)
        if identity is None:
            if not create:
                raise FormatUnknown(f"{path} holds no store")
            identity = _create(path, options, now_ns, entropy)
        try:
            log, settled = _open_ports(path, identity, options, entropy)
        except Corruption as error:
            _mark_quarantine(path, error.message)
            raise
    except BaseException:
        os.close(lock)
        raise
    return OpenStore(
        identity,
        log,
        settled,
        lambda reason: _mark_quarantine(path, reason),
        lambda: os.close(lock),
    )


def lift_quarantine(path: Path) -> str | None:
    """An operator accepts what is left: remove the mark, give its reason; None without one.  The
    next opening verifies everything anew, so damage that is still there is found again."""
    mark = path / "QUARANTINE"
    if not mark.exists():
        return None
    reason = mark.read_text("utf-8", errors="replace").strip()
    mark.unlink()
    sync_directory(path)
    return reason


def _lock(path: Path) -> int:
    descriptor = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", errors="replace").strip()
        os.close(descriptor)
        raise StoreLocked(
            f"{path} is open in another process ({holder or 'unknown'}); stop it, or choose another"
            " directory"
        ) from None
    with contextlib.suppress(OSError):  # a help for the reader, not needed for the lock
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()}\n".encode(), 0)
    return descriptor


def _refuse_quarantined(path: Path) -> None:
    mark = path / "QUARANTINE"
    if mark.exists():
        reason = mark.read_text("utf-8", errors="replace").strip()
        raise Quarantined(
            f"{path} is in quarantine since damage was found: {reason}.  It refuses to serve until"
            " it is restored (k2 restore) or an operator lifts the quarantine",
            what=str(path),
            reason=reason,
        )


def _mark_quarantine(path: Path, reason: str) -> None:
    with contextlib.suppress(OSError):  # a full disk must not hide the damage itself
        write_file(path / "QUARANTINE", reason.encode() + b"\n")


def _read_identity(path: Path) -> Identity | None:
    """None when the directory is free for a new store."""
    file = path / "IDENTITY"
    if file.exists():
        return decode_identity(file.read_bytes(), str(file))
    if (path / "CREATING").exists():  # an earlier creation was cut short; nothing was promised yet
        for part in ("log", "settled"):
            shutil.rmtree(path / part, ignore_errors=True)
        return None
    strangers = sorted(
        entry.name
        for entry in path.iterdir()
        if entry.name not in {"LOCK", "lost+found", "control"}
    )
    if {"log", "settled"} & set(strangers):
        raise Damaged(f"{file} is missing beside the data of a store", file=str(file))
    if strangers:
        raise FormatUnknown(
            f"{path} is not empty and holds no store ({', '.join(strangers[:5])})", field="path"
        )
    return None


def _create(
    path: Path, options: StorageOptions, now_ns: Callable[[], int], entropy: Entropy
) -> Identity:
    """The identity is written last: a directory with one is complete."""
    identity = Identity(FORMAT, entropy(16).hex(), now_ns())
    try:
        write_file(path / "CREATING", b"")
        store = bytes.fromhex(identity.store)
        create_log(PosixDisk(path / "log"), store, options.segment_bytes, entropy(16))
        settled = RocksSettled(path / "settled", options)
        settled.put_meta({_STORE_ID: store})
        settled.flush()
        settled.close()
        write_file(path / "IDENTITY", encode_identity(identity))
        (path / "CREATING").unlink()
        sync_directory(path)
    except OSError as error:
        raise StorageFailed(
            f"cannot make a store in {path}: {error}", operation="create", file=str(path)
        ) from error
    return identity


def _open_ports(
    path: Path, identity: Identity, options: StorageOptions, entropy: Entropy
) -> tuple[SegmentedLog, RocksSettled]:
    store = bytes.fromhex(identity.store)
    for part in ("log", "settled"):
        if not (path / part).is_dir():
            raise Damaged(f"{path / part} is missing", file=str(path / part))
    log = SegmentedLog.open(PosixDisk(path / "log"), store, options.segment_bytes, entropy)
    try:
        settled = RocksSettled(path / "settled", options)
        try:
            if settled.get_meta(_STORE_ID) != store:
                raise Damaged(
                    f"the settled rows in {path} are missing or belong to another store",
                    file=str(path / "settled"),
                )
            _check_joint(log, settled, str(path))
        except BaseException:
            settled.close()
            raise
    except BaseException:
        log.close()
        raise
    return log, settled


def _check_joint(log: Log, settled: Settled, path: str) -> None:
    """The log must begin no later than settled rows end, and reach at least as far."""
    applied = settled.applied_lsn
    if applied >= log.next_lsn:
        raise Damaged(
            f"{path}: rows are settled up to turn {applied}, the log ends with {log.next_lsn - 1}",
            file=path,
            lsn=log.next_lsn,
            acknowledged_lsn=applied,
        )
    if log.first_lsn > applied + 1:
        raise Damaged(
            f"{path}: rows are settled up to turn {applied} only, the log begins with"
            f" {log.first_lsn}",
            file=path,
            lsn=applied + 1,
            acknowledged_lsn=log.durable_lsn,
        )


class MemoryMachine(msgspec.Struct):
    """The disks of one simulated machine; outlives the processes that use them."""

    disk: MemoryDisk = msgspec.field(default_factory=MemoryDisk)
    table: MemoryTable = msgspec.field(default_factory=MemoryTable)
    identity: Identity | None = None
    quarantine: str | None = None

    def kill(self, random: Random) -> None:
        """kill -9: the log keeps all that was appended, settled rows a prefix of what was not
        flushed."""
        self.disk.kill()
        self.table.kill(random)

    def power_cut(self, random: Random) -> None:
        """The log, too, loses or tears what was not synced."""
        self.disk.power_cut(random)
        self.table.kill(random)


def open_memory_store(
    machine: MemoryMachine,
    options: StorageOptions | None = None,
    *,
    now_ns: Callable[[], int],
    entropy: Entropy,
) -> OpenStore:
    """:func:`open_store` for a simulated machine; the log is the same code on a simulated disk."""
    options = options or StorageOptions(segment_bytes=1 << 18)
    if machine.quarantine is not None:
        raise Quarantined(
            f"the store is in quarantine: {machine.quarantine}", reason=machine.quarantine
        )
    if machine.identity is None:
        identity = Identity(FORMAT, entropy(16).hex(), now_ns())
        store = bytes.fromhex(identity.store)
        try:
            for name in machine.disk.names():  # of an earlier creation that was cut short
                machine.disk.remove(name)
            create_log(machine.disk, store, options.segment_bytes, entropy(16))
        except OSError as error:
            raise StorageFailed(f"cannot make a store: {error}", operation="create") from error
        machine.identity = identity

    def mark_quarantine(reason: str) -> None:
        machine.quarantine = reason

    store = bytes.fromhex(machine.identity.store)
    try:
        log = SegmentedLog.open(machine.disk, store, options.segment_bytes, entropy)
        settled = MemorySettled(machine.table)
        _check_joint(log, settled, "memory")
    except Corruption as error:
        mark_quarantine(error.message)
        raise
    return OpenStore(machine.identity, log, settled, mark_quarantine, lambda: None)
