"""The node under measurement: `k2 node run` as anybody starts it, on its own core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench.processes import end, line_of, start

_K2 = "from k2store.cli import main; main()"

CLOCK_BOUND_NS = 500_000
"""Latest minus earliest true time that the node is told to assume."""


class Node:
    """One data folder, and the process that serves it while there is one."""

    def __init__(self, folder: Path, core: int) -> None:
        self._folder = folder
        self._core = core
        self._errors = folder / "node.log"
        self._process: subprocess.Popen[str] | None = None
        self.address = ""
        self.start_s = 0.0

    def start(self) -> None:
        """Start it and wait until it says that it can be used."""
        assert self._process is None, "it runs already"
        self._process = start(
            [
                *(sys.executable, "-c", _K2),
                *("--set", f"clock.bound={CLOCK_BOUND_NS // 1000}us"),
                *("--set", "clock.source=declared", "--set", "storage.sync=true"),
                *("node", "run", "--data", str(self._folder / "data")),
                *("--listen", "127.0.0.1:0", "--admin", "", "--json"),
            ],
            self._core,
            errors=self._errors,
            folder=self._folder,
            environment=_without_settings(),
        )
        ready = json.loads(line_of(self._process.stdout, "the node", self._errors))
        self.address = f"k2://{ready['address']}"
        self.start_s = float(ready["start_s"])

    @property
    def process(self) -> int:
        """Its process number."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def kill(self) -> None:
        """End it without notice."""
        assert self._process is not None, "it does not run"
        end(self._process, gently=False)
        self._process = None

    def stop(self) -> None:
        """End it in an orderly way, if it runs."""
        if self._process is not None:
            end(self._process)
            self._process = None


def _without_settings() -> dict[str, str]:
    """The environment without settings of the user's own stores."""
    return {name: value for name, value in os.environ.items() if not name.startswith("K2_")}
