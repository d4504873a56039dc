"""`k2 node run` as a child of this process: spawn, ready line, signals, end.

The caller says which settings the node gets and where it runs; this module knows only processes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from k2store.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from k2store.testing.keeper import Keeper

START_S: Final = 60.0
STOP_S: Final = 20.0
K2: Final = (sys.executable, "-c", "from k2store.cli import main; main()")
"""The command line of `k2`, by this interpreter."""

_HELD: Final = ("sh", "-c", 'read -r go && exec "$@"', "k2")
"""Before a command: wait for a line, and end without having begun when none comes."""


class Child:
    """One node's process, while there is one.

    folder  of the node: where it runs
    log     file that takes what it says on the error stream
    keeper  ends the process, should this one be killed
    """

    def __init__(self, folder: Path, log: Path, keeper: Keeper | None = None) -> None:
        self._folder = folder
        self._log = log
        self._keeper = keeper
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    def spawn(self, options: Sequence[str], before: Sequence[str] = ()) -> None:
        """Start it with options of `k2`; `before` is the command line that runs a command there.

        Returns at once: `ready` tells when it can be used.
        """
        if self._process is not None:
            raise Rejected("the node runs already", field="node")
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*_HELD, *before, *K2, *options, "node", "run", "--json"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._folder,
                # Settings of the user's own stores are not the test's.
                env={name: one for name, one in os.environ.items() if not name.startswith("K2_")},
                # A Ctrl-C on the terminal is for the owner, who ends its nodes in its own order;
                # only a keeper makes sure that it does.
                start_new_session=self._keeper is not None,
            )
        self._process, self._paused = process, False
        assert process.stdin is not None, "its input is a pipe"
        # Only who is known to the keeper begins: so no moment is left in which nobody ends it.
        if self._keeper is not None:
            self._keeper.watch(process.pid)
        process.stdin.write(b"go\n")
        process.stdin.close()

    def ready(self, patience_s: float = START_S) -> dict[str, Any]:
        """What it says when it can be used. `Unavailable` says why it did not come up."""
        process = self._process
        assert process is not None, "it was spawned"
        assert process.stdout is not None, "its output is a pipe"
        readable, _, _ = select.select([process.stdout], [], [], patience_s)
        line = process.stdout.readline() if readable else b""
        if not line:
            self.kill()
            raise Unavailable(f"the node did not start: {self._last_words(patience_s)}")
        said: dict[str, Any] = json.loads(line)
        return said

    @property
    def running(self) -> bool:
        """Whether the process is there, perhaps paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def paused(self) -> bool:
        """Whether it is stopped by `pause`."""
        return self._paused and self.running

    @property
    def number(self) -> int:
        """Number of the process."""
        if self._process is None:
            raise Rejected("the node does not run", field="node")
        return self._process.pid

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP), as a machine that hangs; returns when it has stopped."""
        os.kill(self.number, signal.SIGSTOP)
        patience = time.monotonic() + STOP_S
        while self._state() not in ("T", "Z") and time.monotonic() < patience:
            time.sleep(0.001)
        self._paused = True

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.number, signal.SIGCONT)
        self._paused = False

    def terminate(self) -> None:
        """Ask it to end in an orderly way; `ended` waits for that."""
        if self._process is not None:
            self._process.terminate()
            if self._paused:
                self.resume()

    def kill(self) -> int | None:
        """End it as a crash would (SIGKILL); gives its exit code, None if it did not run."""
        if self._process is not None:
            self._process.kill()
        return self.ended()

    def ended(self) -> int | None:
        """Wait for its end, and kill it when that does not come; gives its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdout is not None, "its output is a pipe"
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            if self._keeper is not None:
                self._keeper.forget(process.pid)
            process.stdout.close()

    def _state(self) -> str:
        return Path(f"/proc/{self.number}/stat").read_text("ascii").rpartition(")")[2].split()[0]

    def _last_words(self, patience_s: float) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else f"it said nothing for {patience_s:.0f} s"
