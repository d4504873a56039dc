"""System calls of a running process that fail or take long, by ``strace``.

``strace`` stops the process at each system call, so that it is slower as long as this lasts.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ATTACH_S: Final = 5.0
END_S: Final = 5.0
SYNCS: Final = "fsync,fdatasync"


class Traced:
    """A process under `strace`."""

    def __init__(self, told: Path) -> None:
        self._told = told

    def count(self, mark: str) -> int:
        """How many calls were tampered with: INJECTED for an error, DELAYED for a delay."""
        return self._told.read_text(encoding="utf-8", errors="replace").count(f"({mark})")


def refusal() -> str | None:
    """Why no system call can be tampered with; None when it can be tried."""
    return None if shutil.which("strace") else "there is no strace"


@contextmanager
def syncs(process: int, tampering: str) -> Iterator[Traced]:
    """Tamper with all syncs of a process from now on: ``error=EIO``, ``delay_enter=20000``.

    OSError where that is not possible.
    """
    if (reason := refusal()) is not None:
        raise OSError(reason)
    with tempfile.NamedTemporaryFile(prefix="k2-strace-") as file:
        command = ["strace", "-f", "-qq", "-o", file.name, "-p", str(process)]
        command += ["-e", f"trace={SYNCS}", "-e", f"inject={SYNCS}:{tampering}"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            try:
                _await(process, tracer)
                yield Traced(Path(file.name))
            finally:
                tracer.terminate()  # It lets go of the process and ends.
                try:
                    tracer.wait(END_S)
                except subprocess.TimeoutExpired:
                    tracer.kill()


def _await(process: int, tracer: subprocess.Popen[str]) -> None:
    until_s = time.monotonic() + ATTACH_S
    while tracer.poll() is None:
        tracers = [_tracer_of(task) for task in Path(f"/proc/{process}/task").glob("*/status")]
        if tracers and set(tracers) == {str(tracer.pid)}:
            return
        if time.monotonic() > until_s:
            raise OSError(f"strace did not attach to process {process}")
        time.sleep(0.02)
    _, said = tracer.communicate()
    raise OSError(f"strace: {said.strip() or tracer.returncode}")


def _tracer_of(task: Path) -> str:
    """The number of the process that traces a task; nothing for a task that has ended."""
    try:
        said = task.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return said.partition("TracerPid:\t")[2].partition("\n")[0]
