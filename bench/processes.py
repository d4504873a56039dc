"""Child processes on chosen cores."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

END_S = 20.0


class BenchError(Exception):
    """A measurement could not be made; the message says why and what to do."""


class Cores(NamedTuple):
    """Who runs where."""

    server: int
    load: int

    @property
    def shared(self) -> bool:
        """Whether both share one core, so that neither has it to itself."""
        return self.server == self.load


def choose_cores() -> Cores:
    """The first two cores this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[1] if len(usable) > 1 else usable[0])


@contextlib.contextmanager
def _on(core: int) -> Iterator[None]:
    """This thread, and what it starts meanwhile, runs on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(
    command: Sequence[str],
    core: int,
    *,
    errors: Path,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    talk: bool = True,
) -> subprocess.Popen[str]:
    """Start a program on a core; what it says of its troubles goes to the file `errors`.

    ``talk``: its standard input and output are pipes; else it has no input and its output goes to
    `errors`, too.
    """
    with errors.open("ab") as file, _on(core):
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talk else file,
            stderr=file,
            text=True,
            cwd=folder,
            env=None if environment is None else dict(environment),
        )


def end(process: subprocess.Popen[str], *, gently: bool = True) -> None:
    """End a process that we started, and wait until it has gone."""
    if process.poll() is None:
        if gently:
            process.terminate()
        else:
            process.kill()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def line_of(stream: IO[str] | None, who: str, errors: Path) -> str:
    """The next line a child writes; `BenchError` with its last words when it ends instead."""
    assert stream is not None
    line = stream.readline()
    if not line:
        raise BenchError(f"{who} ended: {last_words(errors)}")
    return line


def last_words(errors: Path, lines: int = 5) -> str:
    """The end of what a child said of its troubles."""
    said = errors.read_text(errors="replace").strip().splitlines()[-lines:]
    return " | ".join(said) or "it said nothing"


def free_port() -> int:
    """A loopback port that nobody listens on now, for programs that cannot pick one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
