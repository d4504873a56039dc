"""A node on this machine for the length of a test: a real process with real storage.

The node is `k2 node run` on free loopback ports, with a declared clock. It can be killed as a crash
would and started again on the same data, which is how a program shows that it loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from k2store.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from k2store import blocking
    from k2store.client.database import Database

START_S: Final = 60.0
STOP_S: Final = 20.0
LOG: Final = "node.log"
_K2: Final = "from k2store.cli import main; main()"
_DEFAULTS: Final = {
    "node.listen": "127.0.0.1:0",
    "admin.listen": "",
    "clock.source": "declared",
    "storage.segment": "4MiB",
    "logging.format": "json",
}


def local_node(path: str | os.PathLike[str] | None = None, **settings: object) -> LocalNode:
    """A node process, for ``with`` or ``async with``; it runs inside the block.

    path      folder of the node; data lie in ``data`` and logs in ``node.log`` below it. Without
              one it is a folder that is removed at the end.
    settings  of the node, with two underscores for the dot: ``clock__bound="300us"``
    """
    return LocalNode(None if path is None else Path(path), settings)


class LocalNode:
    """See `local_node`. Outside its block it does not run."""

    def __init__(self, path: Path | None, settings: dict[str, object]) -> None:
        self._said = _DEFAULTS | {name.replace("__", "."): one for name, one in settings.items()}
        self._given = path
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: dict[str, Any] = {}
        self.path = path or Path()

    def __repr__(self) -> str:
        state = self.address if self.running else "not running"
        return f"<LocalNode {state}>"

    # ------------------------------------------------------------------------------- life

    def __enter__(self) -> Self:
        if self._given is None:
            made = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="k2-node-"))
            self.path = Path(made)
        else:
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            self.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            self._stack.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def start(self) -> None:
        """Start the process, again if it ended; returns when it can be used.

        On the port that it had before. `Unavailable` says why it did not start.
        """
        if self._process is not None:
            raise Rejected("the node runs already", field="node")
        settings = self._said | {"node.data": str(self.path / "data")}
        command = [sys.executable, "-c", _K2]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        with (self.path / LOG).open("ab") as log:
            process = subprocess.Popen(
                [*command, "node", "run", "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.path,
                # Settings of the user's own stores are not the test's.
                env={name: one for name, one in os.environ.items() if not name.startswith("K2_")},
            )
        assert process.stdout is not None, "its output is a pipe"
        readable, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if readable else b""
        if not line:
            process.kill()
            process.wait()
            process.stdout.close()
            raise Unavailable(f"the node did not start: {self._last_words()}")
        self._process = process
        self._ready = json.loads(line)
        self._said["node.listen"] = self._ready["address"]

    def stop(self) -> int | None:
        """End the process in an orderly way; gives its exit code, None if it did not run."""
        if self._process is not None:
            self._process.terminate()
        return self._ended()

    def kill(self) -> int | None:
        """End the process as a crash would (SIGKILL); `start` brings it back."""
        if self._process is not None:
            self._process.kill()
        return self._ended()

    def _ended(self) -> int | None:
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
            process.stdout.close()

    def _last_words(self) -> str:
        lines = (self.path / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else f"it said nothing for {START_S:.0f} s"

    # ------------------------------------------------------------------------- what it is

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def address(self) -> str:
        """``k2://host:port``."""
        if not self._ready:
            raise Rejected("the node has not been started", field="node")
        return f"k2://{self._ready['address']}"

    @property
    def ready(self) -> dict[str, Any]:
        """What the node said when it was ready, as `k2 node run --json` prints it."""
        return dict(self._ready)

    @property
    def process(self) -> int:
        """Number of the process."""
        if self._process is None:
            raise Rejected("the node does not run", field="node")
        return self._process.pid

    def connect(self, **options: Any) -> Database:
        """A client, for ``async with``; options as of `k2store.connect`."""
        from k2store.client.connect import connect

        return connect(self.address, **options)

    def blocking(self, **options: Any) -> blocking.Database:
        """A client, for ``with``; options as of `k2store.blocking.connect`."""
        from k2store import blocking

        return blocking.connect(self.address, **options)
