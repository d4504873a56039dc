"""A node on this machine for the length of a test: a real process with real storage.

The node is `k2 node run` on free loopback ports, with a declared clock. It can be killed as a crash
would and started again on the same data, which is how a program shows that it loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from k2store.errors import Rejected
from k2store.testing.child import Child
from k2store.testing.keeper import Keeper

if TYPE_CHECKING:
    from k2store import blocking
    from k2store.client.database import Database

LOG: Final = "node.log"
_DEFAULTS: Final = {
    "node.listen": "127.0.0.1:0",
    "admin.listen": "",
    "clock.source": "declared",
    "storage.segment": "4MiB",
    "logging.format": "json",
}


def local_node(path: str | os.PathLike[str] | None = None, **settings: object) -> LocalNode:
    """A node process, for ``with`` or ``async with``; it runs inside the block, and ends with this process.

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
        self._child: Child | None = None
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
        keeper = Keeper(self.path if self._given is None else None)
        self._child = Child(self.path, self.path / LOG, self._stack.enter_context(keeper))
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
        settings = self._said | {"node.data": str(self.path / "data")}
        options = [part for name in settings for part in ("--set", f"{name}={settings[name]}")]
        child = self._inside()
        child.spawn(options)
        self._ready = child.ready()
        self._said["node.listen"] = self._ready["address"]

    def stop(self) -> int | None:
        """End the process in an orderly way; gives its exit code, None if it did not run."""
        child = self._inside()
        child.terminate()
        return child.ended()

    def kill(self) -> int | None:
        """End the process as a crash would (SIGKILL); `start` brings it back."""
        return self._inside().kill()

    def _inside(self) -> Child:
        if self._child is None:
            raise Rejected("a node runs inside its `with` block only", field="node")
        return self._child

    # ------------------------------------------------------------------------- what it is

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._child is not None and self._child.running

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
        return self._inside().number

    def connect(self, **options: Any) -> Database:
        """A client, for ``async with``; options as of `k2store.connect`."""
        from k2store.client.connect import connect

        return connect(self.address, **options)

    def blocking(self, **options: Any) -> blocking.Database:
        """A client, for ``with``; options as of `k2store.blocking.connect`."""
        from k2store import blocking

        return blocking.connect(self.address, **options)
