"""A real node as a deployment starts it: its command, its settings file, its probes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

TIMEOUT_S = 30
PROGRAM = (sys.executable, "-c", "from k2store.cli.group import main; main()")
"""What stands for the installed `k2` of a deployment."""

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("K2_")}

ALONE = {"K2_CLUSTER__CONTROL": ""}
"""For a test about the commands of one node, in whose settings file others are named."""


class Running(NamedTuple):
    """A node that said it is ready: its process, its ready line, its two addresses."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    address: str
    admin: str

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        return self.process.wait(TIMEOUT_S)


@contextmanager
def running(
    folder: Path,
    command: Sequence[str] = ("k2", "node", "run"),
    *,
    environment: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
) -> Iterator[Running]:
    """Run a command that a deployment names, in a folder, with ports and data of its own.

    The command is taken as it stands; its first word, wherever the deployment keeps it, is
    this environment's `k2`. What the test must change (ports, the data folder) it says in the
    environment, which the settings file does not override. `before` is a command that is given
    this one as its arguments.
    """
    assert Path(command[0]).name == "k2", command
    own = {
        "K2_NODE__LISTEN": "127.0.0.1:0",
        "K2_ADMIN__LISTEN": "127.0.0.1:0",
        "K2_NODE__DATA": str(folder / "data"),
    }
    words = [*before, *PROGRAM, *command[1:]]
    if "--json" not in words:
        words.append("--json")
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=CLEAN | own | dict(environment or {}),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (folder / "log").read_text()
        ready = json.loads(line)
        yield Running(process, ready, ready["address"], ready["admin"])
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(TIMEOUT_S)
        process.stdout.close()


def get(address: str, path: str) -> tuple[int, str]:
    """Code and text of a page of the admin port; code 0 when nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=TIMEOUT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def k2(
    folder: Path, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that a deployment names and that ends by itself."""
    assert Path(command[0]).name == "k2", command
    return subprocess.run(
        [*PROGRAM, *command[1:]],
        cwd=folder,
        env=CLEAN | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
