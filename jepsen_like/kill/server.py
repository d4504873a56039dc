"""The node under attack: `k2 node run` as a process of its own, on a port that stays."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

_K2 = "from k2store.cli import main; main()"
START_S = 60.0


class NodeFailed(Exception):
    """The node did not come up; the message ends with what it said."""


class Server:
    """A node's data folder, and the process on it while there is one."""

    def __init__(self, data: Path, log: Path) -> None:
        self._data = data
        self._log = log
        self._port = _free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        """The same after every start."""
        return f"k2://127.0.0.1:{self._port}"

    async def spawn(self) -> None:
        """Start the process; it is not up yet."""
        assert self._process is None, "it runs already"
        settings = {name: value for name, value in os.environ.items() if not name.startswith("K2_")}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _K2, "node", "run", "--data", str(self._data)),
                *("--listen", f"127.0.0.1:{self._port}", "--admin", "", "--json"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self._log.parent,
                env=settings,
            )

    async def ready(self) -> None:
        """Return when the node says that it can be used."""
        assert self._process is not None, "it does not run"
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            line = await self._process.stdout.readline()
        if not line:
            said = self._log.read_text(errors="replace").strip().splitlines()[-3:]
            raise NodeFailed(f"the node did not come up: {' | '.join(said)}")
        json.loads(line)

    async def kill(self) -> None:
        """kill -9, and wait until it is gone; nothing if it has gone by itself."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
