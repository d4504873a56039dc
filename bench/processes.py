"""Child processes on chosen cores, and a folder of their own; nothing of either outlives this process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Final, NamedTuple

from k2store.testing.keeper import Keeper

END_S = 20.0
_HELD: Final = ("/bin/sh", "-c", 'read -r go && exec "$@"', "bench")
"""Before a command: wait for a line, and end without having begun when none comes."""
_KEEPER: ContextVar[Keeper] = ContextVar("keeper")


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
def own_folder(prefix: str, parent: Path) -> Iterator[Path]:
    """A new folder, in which programs may be started (`start`).

    It is gone afterwards, and so are they, also when this process is killed and can clear up nothing itself.
    """
    with (
        tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name,
        Keeper(Path(name)) as keeper,
    ):
        token = _KEEPER.set(keeper)
        try:
            yield Path(name)
        finally:
            _KEEPER.reset(token)


@contextlib.contextmanager
def _on(core: int | None) -> Iterator[None]:
    """This thread, and what it starts meanwhile, runs on one core; None: wherever it may."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(
    command: Sequence[str],
    core: int | None,
    *,
    errors: Path,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    talk: bool = True,
) -> subprocess.Popen[str]:
    """Start a program on a core, inside an `own_folder`; what it says of its troubles goes to `errors`.

    ``talk``: its standard input and output are pipes; else it has no input and its output goes to
    `errors`, too.
    """
    keeper = _KEEPER.get()
    with errors.open("ab") as file, _on(core):
        process = subprocess.Popen(
            [*_HELD, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if talk else file,
            stderr=file,
            text=True,
            cwd=folder,
            env=None if environment is None else dict(environment),
            # A Ctrl-C on the terminal is for this process, which ends the others in its own order.
            start_new_session=True,
        )
    # Only who is known to the keeper begins: so no moment is left in which nobody ends it.
    keeper.watch(process.pid)
    pipe = process.stdin
    assert pipe is not None, "its input is a pipe"
    with contextlib.suppress(BrokenPipeError):  # It has ended; who waits for its words is told so.
        pipe.write("go\n")
        pipe.flush()
    if not talk:
        pipe.close()
    return process


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
    _KEEPER.get().forget(process.pid)
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
