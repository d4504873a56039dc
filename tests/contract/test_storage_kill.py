"""Real processes, real files: kills, failing system calls, a full disk, a second process."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from k2store.storage import (
    Damaged,
    FormatUnknown,
    StorageFailed,
    StorageOptions,
    StoreLocked,
    open_store,
)
from k2store.storage.identity import FORMAT, encode_identity
from k2store.storage.ports import Identity
from tests.contract.storage_machines import SMALL
from tests.contract.storage_writer import OPTIONS, last_acknowledged, payload_of, verify

KILLS = int(os.environ.get("K2_KILLS", "5"))


def start_writer(path: Path, seed: int, *prefix: str) -> subprocess.Popen[str]:
    """The writer as a child process."""
    command = [*prefix, sys.executable, "-m", "tests.contract.storage_writer", str(path), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_kill_in_a_loop_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """A writer that is killed over and over finds, each time, everything it acknowledged: turns
    in the log, rows as far as they are marked settled (K2_KILLS sets the count)."""
    random = Random(20)
    path = tmp_path / "store"
    last = 0
    for kill in range(KILLS):
        with start_writer(path, kill) as writer:
            acknowledged = last_acknowledged(writer, random.randrange(1, 250))
            writer.kill()
            acknowledged = last_acknowledged(writer) or acknowledged
        assert acknowledged > last
        last = verify(path, acknowledged)
    assert last > 50 * KILLS


def test_a_failed_fdatasync_of_the_kernel_stops_the_writer(tmp_path: Path) -> None:
    """With the kernel refusing an fdatasync, the process stops with StorageFailed and everything
    it had acknowledged is there."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    path = tmp_path / "store"
    open_store(path, OPTIONS).close()
    inject = "inject=fdatasync:error=EIO:when=40"
    traced = (strace, "-f", "-qq", "-o", os.devnull, "-e", "trace=fdatasync", "-e", inject)
    command = [*traced, sys.executable, "-m", "tests.contract.storage_writer", str(path), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = done.stderr
    if "StorageFailed" not in errors and "ptrace" in errors:
        pytest.skip(f"strace may not trace here: {errors[-200:]}")
    acknowledged = int(done.stdout.split()[-1])
    assert "StorageFailed" in errors
    assert "Input/output error" in errors
    assert acknowledged > 0
    verify(path, acknowledged)


def test_a_file_limit_stops_the_log_and_loses_nothing(tmp_path: Path) -> None:
    """When the system refuses a larger file, as a full disk does, the log fails with a typed
    error; with room again everything acknowledged is there."""
    path = tmp_path / "store"
    store = open_store(path, SMALL)
    store.log.append(payload_of(1))
    store.log.sync()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL.segment_bytes // 2, old[1]))
    try:
        with pytest.raises(StorageFailed, match="File too large"):
            store.log.begin_segment(b"checkpoint")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert store.log.failed is not None
    store.close()
    assert not list((path / "log").glob("making*"))
    verify(path, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
def test_a_full_disk_stops_the_store_and_loses_nothing(tmp_path: Path) -> None:
    """On a file system that really is full, the store stops with StorageFailed; it opens again
    when there is room, with everything acknowledged."""
    mount = tmp_path / "small"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(mount)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr}")
    try:
        options = StorageOptions(segment_bytes=1 << 20, memtable_bytes=1 << 18, cache_bytes=1 << 20)
        store = open_store(mount / "store", options)
        acknowledged = 0
        while store.log.failed is None:
            with contextlib.suppress(StorageFailed):
                store.log.append(payload_of(store.log.next_lsn))
                acknowledged = store.log.sync()
        assert "No space left" in store.log.failed
        store.close()
        assert acknowledged > 1000
        subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
        assert verify(mount / "store", acknowledged) >= acknowledged
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """While a process has the store open another one is refused and told who; a killed process
    leaves no lock behind."""
    path = tmp_path / "store"
    with start_writer(path, 1) as writer:
        last_acknowledged(writer, 1)
        with pytest.raises(StoreLocked, match=f"pid {writer.pid}"):
            open_store(path, OPTIONS)
        writer.kill()
    open_store(path, OPTIONS).close()


def test_directories_that_are_no_store_are_refused(tmp_path: Path) -> None:
    """A missing directory is not made when it should exist, and a directory with other things in
    it is left alone."""
    with pytest.raises(FormatUnknown, match="not a directory"):
        open_store(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()
    (tmp_path / "letters").mkdir()
    with pytest.raises(FormatUnknown, match="holds no store"):
        open_store(tmp_path / "letters", create=False)
    (tmp_path / "letters" / "love.txt").write_text("dear")
    with pytest.raises(FormatUnknown, match=r"not empty.*love\.txt"):
        open_store(tmp_path / "letters")


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    """A store of another format version is refused by name and not touched; a broken identity is
    damage."""
    path = tmp_path / "store"
    store = open_store(path, SMALL)
    identity = store.identity
    store.close()
    assert identity.format == FORMAT
    other = encode_identity(Identity(FORMAT + 1, identity.store, identity.created_ns))
    (path / "IDENTITY").write_bytes(other)
    with pytest.raises(FormatUnknown, match=f"format {FORMAT + 1}"):
        open_store(path, SMALL)
    assert (path / "IDENTITY").read_bytes() == other
    renamed = other.replace(b'"format": %d' % (FORMAT + 1), b'"format": %d' % FORMAT)
    for broken in (b"", b"{}", b"[1]", other[:-9], renamed):
        (path / "IDENTITY").write_bytes(broken)
        with pytest.raises(Damaged):
            open_store(path, SMALL)


def test_an_interrupted_creation_starts_over(tmp_path: Path) -> None:
    """A store whose making was cut short, before it promised anything, is made anew."""
    path = tmp_path / "store"
    open_store(path, SMALL).close()
    (path / "IDENTITY").unlink()
    (path / "CREATING").touch()
    (path / "log" / "watermark").write_bytes(b"")
    store = open_store(path, SMALL)
    assert store.log.next_lsn == 1
    store.close()
    assert not (path / "CREATING").exists()


def test_parts_of_two_stores_do_not_mix(tmp_path: Path) -> None:
    """The log or the rows of another store are recognised."""
    for part in ("log", "settled"):
        one, two = tmp_path / f"one {part}", tmp_path / f"two {part}"
        open_store(one, SMALL).close()
        open_store(two, SMALL).close()
        shutil.rmtree(one / part)
        (two / part).rename(one / part)
        with pytest.raises(Damaged, match="another store"):
            open_store(one, SMALL)
