"""A small ext4 on a loop device whose power can be cut, and the fixture that proves it works.

The ext4 shutdown call ends all writing at once, as if the machine had lost power; unmounting and
mounting again is the restart. Where that is not possible the tests are skipped with the reason;
with K2_REQUIRE_POWER_CUT=1 they fail instead.

A process that takes a mount namespace of its own (`ip netns exec` of the tests beside these) holds
a copy of every mount, and the file system that was shut down lives on in it. So the mount lies in
a shared one: its end is told to the copies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
WITHOUT_FLUSHING = 2
SIZE_BYTES = 384 << 20


class PowerSwitch:
    """A small ext4 whose power can be cut."""

    def __init__(self, directory: Path) -> None:
        self.image = directory / "disk.img"
        self.shared = directory / "shared"
        self.mount = self.shared / "mounted"

    def make(self) -> None:
        """Make the file system; it is not mounted yet."""
        self.mount.mkdir(parents=True)
        with self.image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        _run("mkfs.ext4", "-q", "-F", str(self.image))
        _run("mount", "--bind", str(self.shared), str(self.shared))
        _run("mount", "--make-shared", str(self.shared))

    def on(self) -> None:
        """Mount; the file system replays its journal."""
        _run("mount", "-o", "loop", str(self.image), str(self.mount))

    def cut(self) -> None:
        """No byte reaches the disk from now on."""
        descriptor = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING))
        finally:
            os.close(descriptor)

    def off(self) -> None:
        """Unmount."""
        _run("umount", str(self.mount))

    def remove(self) -> None:
        """Leave no mount behind, whatever happened."""
        for mount in (self.mount, self.shared):
            subprocess.run(["umount", "-l", str(mount)], capture_output=True, check=False)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")


def _cannot(reason: str) -> None:
    if os.environ.get("K2_REQUIRE_POWER_CUT") == "1":
        pytest.fail(f"power cuts are required but not possible: {reason}")
    pytest.skip(f"NO POWER CUT WAS TESTED: {reason}")


@pytest.fixture
def power(tmp_path: Path) -> Iterator[PowerSwitch]:
    """A mounted file system that has survived one cut already: the mechanism works here."""
    missing = [name for name in ("mkfs.ext4", "mount", "umount") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        _cannot(f"needs root and {', '.join(missing) or 'nothing else'}")
    switch = PowerSwitch(tmp_path)
    try:
        switch.make()
        switch.on()
        lost = switch.mount / "never synced"
        lost.write_bytes(b"x" * 100_000)
        switch.cut()
        switch.off()
        switch.on()
        if lost.exists() and lost.stat().st_size == 100_000:
            raise OSError("an unsynced file survived the cut, so it was none")
    except OSError as error:
        switch.remove()
        _cannot(str(error))
    yield switch
    switch.remove()
