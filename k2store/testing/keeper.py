"""Ends processes whose owner was killed, which cannot do so itself any more.

``python -m k2store.testing.keeper [FOLDER]``: a process that reads from a pipe which processes it
has to watch. When the pipe closes, it kills those that are left, removes the folder, and ends. An
owner that ends in an orderly way has had it forget all of them before.

A parent-death signal would do without another process, but it comes when the *thread* that forked
ends, and nodes are started from threads of pools.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

END_S: Final = 10.0
_WATCH: Final = "watch"
_FORGET: Final = "forget"


class Keeper:
    """The owner's side, for ``with``. `folder` is removed as well should the owner be killed."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        folder = [] if self._folder is None else [str(self._folder)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "k2store.testing.keeper", *folder],
            bufsize=0,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process, self._process = self._process, None
        assert process is not None, "it was entered"
        assert process.stdin is not None, "its input is a pipe"
        process.stdin.close()
        process.wait()

    def watch(self, process: int) -> None:
        """Have a process killed when this one is gone."""
        self._say(f"{_WATCH} {process} {_begun(process)}\n")

    def forget(self, process: int) -> None:
        """A process has ended; its number may be another's soon."""
        self._say(f"{_FORGET} {process}\n")

    def _say(self, line: str) -> None:
        assert self._process is not None, "it was entered"
        assert self._process.stdin is not None, "its input is a pipe"
        self._process.stdin.write(line.encode("ascii"))


def _begun(process: int) -> str:
    """When a process began, in ticks since boot: tells it from a later one of its number.

    Empty for one that has ended, also while its end waits to be noticed.
    """
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state == "Z" else fields[18]


def keep() -> None:
    """Watch until the owner is gone, then kill what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[int, str] = {}
    for line in sys.stdin:
        verb, process, *begun = line.split()
        if verb == _WATCH:
            watched[int(process)] = begun[0] if begun else ""
        else:
            watched.pop(int(process), None)
    left = {process: begun for process, begun in watched.items() if _kill(process, begun)}
    patience = time.monotonic() + END_S
    while any(_begun(process) == begun for process, begun in left.items()):
        if time.monotonic() > patience:
            break
        time.sleep(0.01)
    for folder in sys.argv[1:]:
        shutil.rmtree(folder, ignore_errors=True)


def _kill(process: int, begun: str) -> bool:
    """Kill a process and the group it leads, unless its number is another's now."""
    if not begun or _begun(process) != begun:
        return False
    try:
        os.killpg(process, signal.SIGKILL)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    keep()
