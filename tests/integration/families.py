"""Which processes came from which, and who of them is left."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path


def parents() -> dict[int, int]:
    """Every process with its parent; those that only wait to be noticed are left out."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            fields = (folder / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
            if fields[0] != "Z":
                found[int(folder.name)] = int(fields[1])
    return found


def descendants(process: int) -> set[int]:
    """All processes that came from this one and still hang on it."""
    known = parents()
    found = {process}
    while more := {one for one, parent in known.items() if parent in found} - found:
        found |= more
    return found - {process}


def remaining(processes: set[int], patience_s: float = 10.0) -> set[int]:
    """Which of them are still there when they have had time to go."""
    end_s = time.monotonic() + patience_s
    while (left := processes & parents().keys()) and time.monotonic() < end_s:
        time.sleep(0.1)
    return left


def command_of(process: int) -> str:
    """The command line of a process; empty when it has gone."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
