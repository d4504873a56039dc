"""A process of a run, while there is one: started, killed, asked to end, and gone with its owner in any case."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.processes import BenchError, last_words
from k2store.testing.keeper import Keeper

START_S: Final = 120.0
END_S: Final = 15.0
_HELD: Final = ("sh", "-c", 'read -r go && exec "$@" < /dev/null', "k2")
"""Before a command: wait for a line, and end without having begun when none comes."""


class Member:
    """One process, which says a line when it answers.

    tie      how it ends with its owner. Bytes: a line that it reads from its input, which stays open; it ends when that
             closes. A keeper: it reads nothing, ends on a signal, and is killed should its owner be
    address  where it is asked, as far as that is known beforehand
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, tie: Keeper | bytes, address: str = ""
    ) -> None:
        self.name = name
        self.address = address
        self._command = list(command)
        self._log = log
        self._tie = tie
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether it was started, and has not ended as far as is known."""
        return self._process is not None

    def spawn(self) -> None:
        """Start it; `ready` belongs after it."""
        environment = {name: one for name, one in os.environ.items() if not name.startswith("K2_")}
        tie = self._tie
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command if isinstance(tie, bytes) else [*_HELD, *self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # One thread for each that computes: they share the cores, and compute the same bits.
                env=environment | {"OMP_NUM_THREADS": "1"},
                # Ctrl-C is for the owner, who ends its processes in its own order.
                start_new_session=True,
            )
        assert self._process.stdin is not None, "its input is a pipe"
        if isinstance(tie, bytes):
            self._process.stdin.write(tie + b"\n")
            self._process.stdin.flush()
        else:
            # Only who is known to the keeper begins: so no moment is left in which nobody ends it.
            tie.watch(self._process.pid)
            self._process.stdin.write(b"go\n")
            self._process.stdin.close()

    async def ready(self) -> str:
        """What it says when it answers; `BenchError` says why it does not."""
        process = self._process
        assert process is not None, "it was spawned"
        assert process.stdout is not None, "its output is a pipe"
        line = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                line = await asyncio.to_thread(process.stdout.readline)
        if not line:
            raise BenchError(f"{self.name} did not start: {last_words(self._log)}")
        return line.decode().strip()

    async def start(self) -> str:
        """Start it; gives what it says when it answers."""
        self.spawn()
        return await self.ready()

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def ended(self) -> str:
        """How it came to its end without being asked to; empty while it runs."""
        process = self._process
        if process is None or process.poll() is None:
            return ""
        code = process.returncode
        self._reap()
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with code {code}: {last_words(self._log, 1)}"

    def end(self) -> None:
        """Ask it to end; `reap` waits for that."""
        process = self._process
        if process is None:
            return
        if isinstance(self._tie, bytes):
            assert process.stdin is not None, "its input is a pipe"
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        else:
            process.terminate()

    def reap(self) -> None:
        """Wait for its end, and kill it when that does not come."""
        if self._process is None:
            return
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def _reap(self) -> None:
        process, self._process = self._process, None
        assert process is not None, "there was one"
        process.wait()
        if not isinstance(self._tie, bytes):
            self._tie.forget(process.pid)
        for stream in (process.stdin, process.stdout):
            assert stream is not None, "both are pipes"
            with contextlib.suppress(BrokenPipeError):
                stream.close()
