"""A process with less: control groups of version 1, below the one that this process is in.

Made below one's own so that what holds for this process holds for the other one as well. A group is
removed when its fault is over, and the process goes back to where it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
PERIOD_US: Final = 100_000
EMPTY_S: Final = 2.0


class Group:
    """A control group with one process in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def say(self, name: str, value: object) -> None:
        """Set one of its files. OSError."""
        (self._folder / name).write_text(str(value), encoding="ascii")

    def throttled(self) -> tuple[int, float]:
        """How often, and for how many seconds, its processes were kept from running."""
        said = dict(
            line.split() for line in (self._folder / "cpu.stat").read_text("ascii").splitlines()
        )
        return int(said["nr_throttled"]), int(said["throttled_time"]) / 1e9

    def failures(self) -> int:
        """How often its memory had reached the limit."""
        return int((self._folder / "memory.failcnt").read_text("ascii"))


def own(controller: str) -> Path:
    """The folder of this process's group; OSError where there is no such controller."""
    for line in Path("/proc/self/cgroup").read_text("ascii").splitlines():
        _, names, place = line.split(":", 2)
        if controller in names.split(","):
            folder = ROOT / controller / place.lstrip("/")
            if folder.is_dir():
                return folder
    raise OSError(f"there is no control group of {controller}")


@contextmanager
def _group(controller: str, process: int) -> Iterator[Group]:
    parent = own(controller)
    folder = parent / f"k2-{process}"
    folder.mkdir()
    try:
        yield Group(folder)
    finally:
        _dissolve(folder, parent)


def _dissolve(folder: Path, parent: Path) -> None:
    """Send its processes back and remove it; one that ends right now needs a moment to be gone."""
    until_s = time.monotonic() + EMPTY_S
    while True:
        for process in (folder / "cgroup.procs").read_text("ascii").split():
            try:
                (parent / "cgroup.procs").write_text(process, encoding="ascii")
            except OSError:
                pass  # It has ended.
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def processor(process: int, share: float) -> Iterator[Group]:
    """Let a process have a share of one processor. OSError where that cannot be had."""
    with _group("cpu", process) as group:
        group.say("cpu.cfs_period_us", PERIOD_US)
        group.say("cpu.cfs_quota_us", max(1_000, int(share * PERIOD_US)))
        group.say("cgroup.procs", process)
        yield group


@contextmanager
def memory(process: int, left_bytes: int) -> Iterator[Group]:
    """Let a process have so much beside what it has already. OSError where that cannot be had."""
    with _group("memory", process) as group:
        group.say("memory.limit_in_bytes", left_bytes)
        group.say("cgroup.procs", process)
        yield group
