"""Workers of the load as processes that can be killed and stopped; none of them outlives its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import msgspec

from jepsen_like.nemesis.processes import state_of
from jepsen_like.pool.member import Member

if TYPE_CHECKING:
    from k2store.testing.keeper import Keeper

END_S: Final = 60.0
"""From being asked to end until a worker has ended."""
STOPPED_S: Final = 1.0


class WorkerProcess:
    """A worker's process, over all its lives.

    keeper  ends it should this process be killed: one that stands still notices nothing by itself
    """

    def __init__(self, member: Member, log: Path, keeper: Keeper) -> None:
        self.name = f"{member.region}/{member.name}"
        self.files: list[Path] = []
        """Of each life its history."""
        self._member = member
        self._log = log
        self._keeper = keeper
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """A new process in the place of the last one."""
        number = len(self.files) + 1
        life = f"{self.name.replace('/', '-')}-{number}"
        file = self._log.with_name(f"{life}.jsonl")
        self.files.append(file)
        member = msgspec.structs.replace(
            self._member, life=life, file=str(file), seed=self._member.seed + number
        )
        with self._log.open("ab") as log:
            running = subprocess.Popen(
                [sys.executable, "-m", "jepsen_like.pool.member"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # A Ctrl-C on the terminal is for the owner.
                start_new_session=True,
            )
        self._running = running
        self._keeper.watch(running.pid)
        # One that cannot begin ends, and how it ended is told of.
        try:
            _stdin(running).write(msgspec.json.encode(member) + b"\n")
            _stdin(running).flush()
        except BrokenPipeError:
            running.wait()

    @property
    def process(self) -> int:
        """Its number."""
        return self._here.pid

    @property
    def running(self) -> bool:
        """Whether it is there, perhaps stopped."""
        return self._here.poll() is None

    @property
    def _here(self) -> subprocess.Popen[bytes]:
        assert self._running is not None, "it was started"
        return self._running

    def kill(self) -> tuple[int, int]:
        """SIGKILL; which process, and how it ended."""
        self._here.kill()
        return self.process, self._ended()

    def pause(self) -> None:
        """SIGSTOP; returns when it stands still."""
        os.kill(self.process, signal.SIGSTOP)
        until_s = time.monotonic() + STOPPED_S
        while state_of(self.process) != "T" and time.monotonic() < until_s:
            time.sleep(0.001)

    def resume(self) -> str:
        """SIGCONT; the letter that the kernel had for its state before."""
        state = state_of(self.process)
        os.kill(self.process, signal.SIGCONT)
        return state

    def end(self) -> str:
        """Ask it to end, and wait; what is wrong with how it ended."""
        _stdin(self._here).close()
        try:
            status = self._here.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"{self.name} does not end"
        self._ended()
        if not status:
            return ""
        said = self._log.read_text(encoding="utf-8", errors="replace")[-400:]
        return f"{self.name} ended with {status}: {said}"

    def close(self) -> None:
        """Leave nothing behind."""
        if self._running is not None and self.running:
            self.kill()

    def _ended(self) -> int:
        status = self._here.wait()
        self._keeper.forget(self.process)
        _stdin(self._here).close()
        return status


def _stdin(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None, "it was opened with a pipe"
    return process.stdin
