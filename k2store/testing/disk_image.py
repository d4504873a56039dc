"""Small ext4 file systems on loop devices, whose power can be cut and which can be filled.

::

    with open_disks(("fra-1", "fra-2")) as disks:
        disks["fra-1"].path             # a mounted file system of its own
        disks["fra-1"].cut()            # no byte reaches it from now on, as if the power had failed
        ... kill whoever writes there ...
        disks["fra-1"].restore()        # as after the restart: what was never synced may be gone
        disks["fra-1"].fill()           # no room is left; `free` gives it back

The ext4 shutdown call ends all writing at once; unmounting and mounting again is the restart. Needs
root, ``mkfs.ext4`` and loop devices. The images are files of a folder; in memory (``/dev/shm``) a
sync costs little and loses nothing that a disk would not.

A process that takes a mount namespace of its own (``ip netns exec``) holds a copy of every mount,
and the file system that was shut down lives on in it. So the mounts lie in a shared one: their end
is told to the copies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SIZE_BYTES: Final = 384 << 20
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
"""Where images lie unless somebody says otherwise, if it is there."""
_SHUTDOWN: Final = 0x8004587D  # EXT4_IOC_SHUTDOWN = _IOR('X', 125, __u32)
_WITHOUT_FLUSHING: Final = 2
_CANARY_BYTES: Final = 100_000
_CANARY: Final = ".never-synced"
_FILLING: Final = ".filling"
_BLOCK_BYTES: Final = 1 << 20


def refusal() -> str | None:
    """Why this process cannot have such disks; None when it can try."""
    missing = [name for name in ("mkfs.ext4", "mount", "umount") if shutil.which(name) is None]
    if missing:
        return f"there is no {', '.join(missing)}"
    return None if os.geteuid() == 0 else "mounting needs root"


class DiskImage:
    """One file system. `path` is where it is mounted."""

    def __init__(self, image: Path, path: Path, size_bytes: int = SIZE_BYTES) -> None:
        self.image = image
        self.path = path
        self._size_bytes = size_bytes
        self._has_canary = False

    def make(self) -> None:
        """Make the file system and mount it. OSError says why not."""
        self.path.mkdir(parents=True)
        with self.image.open("wb") as file:
            file.truncate(self._size_bytes)
        # Nothing is reserved for root: a full disk is full for everybody.
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self.image))
        self.on()

    def on(self) -> None:
        """Mount; the file system replays its journal."""
        _run("mount", "-o", "loop", str(self.image), str(self.path))

    def cut(self) -> None:
        """No byte reaches the disk from now on. A file that was never synced is left to be lost."""
        canary = self.path / _CANARY
        try:
            canary.write_bytes(b"x" * _CANARY_BYTES)
            self._has_canary = True
        except OSError:
            self._has_canary = False  # A full disk can lose its power as well.
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSHING))
        finally:
            os.close(descriptor)

    def restore(self) -> bool:
        """Unmount and mount again; whether the file that was never synced is gone.

        Nobody may have a file open there.
        """
        self.off()
        self.on()
        canary = self.path / _CANARY
        whole = canary.exists() and canary.stat().st_size == _CANARY_BYTES
        canary.unlink(missing_ok=True)
        return self._has_canary and not whole

    def off(self) -> None:
        """Unmount."""
        _run("umount", str(self.path))

    def fill(self) -> int:
        """Leave no room; gives the bytes that it took."""
        taken = 0
        with (self.path / _FILLING).open("ab", buffering=0) as file:
            for piece_bytes in (_BLOCK_BYTES, 4096):
                try:
                    while True:
                        taken += file.write(bytes(piece_bytes))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        return taken

    def free(self) -> None:
        """Give the room back."""
        (self.path / _FILLING).unlink(missing_ok=True)

    def remove(self) -> None:
        """Leave no mount behind, whatever happened."""
        subprocess.run(["umount", "-l", str(self.path)], capture_output=True, check=False)


@contextmanager
def open_disks(
    names: Sequence[str], *, folder: Path | None = None, size_bytes: int = SIZE_BYTES
) -> Iterator[Mapping[str, DiskImage]]:
    """A disk of each name, mounted in folders of that name side by side.

    folder  where the images lie; one in memory unless given, where there is such a place

    OSError says why they cannot be had, or that the mechanism does not work here: the first disk
    has survived a cut when they are handed out.
    """
    if (reason := refusal()) is not None:
        raise OSError(reason)
    place = folder or (MEMORY if os.access(MEMORY, os.W_OK) else None)
    with tempfile.TemporaryDirectory(prefix="k2-disks-", dir=place) as made:
        shared = Path(made) / "mounted"
        shared.mkdir()
        disks = {
            name: DiskImage(Path(made) / f"{name}.img", shared / name, size_bytes) for name in names
        }
        try:
            _run("mount", "--bind", str(shared), str(shared))
            _run("mount", "--make-shared", str(shared))
            for disk in disks.values():
                disk.make()
            first = disks[names[0]]
            first.cut()
            if not first.restore():
                raise OSError("an unsynced file survived the cut, so it was none")
            yield disks
        finally:
            for disk in disks.values():
                disk.remove()
            subprocess.run(["umount", "-l", str(shared)], capture_output=True, check=False)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
