"""One node of a local cluster: where it sits, what it is told, and its process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from k2store.clock import ClockFile
from k2store.errors import Rejected
from k2store.testing.child import Child
from k2store.testing.cluster.places import Place
from k2store.testing.keeper import Keeper

CONFIG: Final = "k2.toml"
CLOCK: Final = "clock"
DATA: Final = "data"
LOG: Final = "node.log"


class Seat(NamedTuple):
    """Where a node is. `address` and `admin` are ``host:port``, as others in the network dial it;
    `place` is where it stands in the emulated network.
    """

    name: str
    region: str
    number: int
    address: str
    admin: str
    place: Place


class ClusterNode:
    """A node that can be started, ended, killed, paused and robbed of its disk.

    `settings` are by path (``{"clock.bound": "1ms"}``) and in force from the next start. Every verb
    returns when it has happened. Starting takes about a second: `asyncio.to_thread` in async code.
    """

    def __init__(
        self,
        seat: Seat,
        folder: Path,
        settings: Mapping[str, object],
        before: Sequence[str],
        keeper: Keeper,
    ) -> None:
        self.seat = seat
        self.folder = folder
        self.settings = dict(settings)
        self._before = tuple(before)
        self._child = Child(folder, folder / LOG, keeper)
        self._ready: dict[str, Any] = {}
        self.clock: ClockFile | None = None
        """What its clock does, in a cluster with ``clock__source="file"``."""

    def __repr__(self) -> str:
        return f"<ClusterNode {self.name} {self.state}>"

    @property
    def name(self) -> str:
        """Its name, such as ``fra-1``."""
        return self.seat.name

    @property
    def region(self) -> str:
        """The region it is in."""
        return self.seat.region

    @property
    def data(self) -> Path:
        """The folder of its data."""
        return Path(str(self.settings["node.data"]))

    @property
    def state(self) -> str:
        """``up``, ``paused`` or ``down``, as far as its process tells."""
        if not self._child.running:
            return "down"
        return "paused" if self._child.paused else "up"

    @property
    def running(self) -> bool:
        """Whether its process is there, perhaps paused."""
        return self._child.running

    @property
    def process(self) -> int:
        """Number of its process."""
        return self._child.number

    @property
    def ready(self) -> dict[str, Any]:
        """What it said when it was last ready, as `k2 node run --json` prints it."""
        return dict(self._ready)

    def start(self) -> None:
        """Start it and return when it can be used. `Unavailable` says why it did not come up."""
        self.spawn()
        self.await_ready()

    def spawn(self) -> None:
        """Start it and return at once; `await_ready` belongs after it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / CONFIG
        config.write_text(toml(self.settings), encoding="utf-8")
        self._child.spawn(("--config", str(config)), self._before)

    def await_ready(self) -> None:
        """The second half of `start`."""
        self._ready = self._child.ready()

    def stop(self) -> int | None:
        """End it in an orderly way; gives its exit code, None if it did not run."""
        self.terminate()
        return self._child.ended()

    def terminate(self) -> None:
        """Ask it to end; `stop` waits for it."""
        self._child.terminate()

    def kill(self) -> int | None:
        """End it as a crash would (SIGKILL)."""
        return self._child.kill()

    def restart(self) -> None:
        """End it in an orderly way and start it again."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop its process where it is (SIGSTOP): to the others, a node that hangs."""
        self._child.pause()

    def resume(self) -> None:
        """Let it go on, which then finds that time has passed."""
        self._child.resume()

    def wipe(self) -> None:
        """Take its disk away; the node must not run. What it starts as next has a new identity."""
        if self.running:
            raise Rejected(f"{self.name} runs: kill or stop it before", field="node")
        data = self.data
        if data.exists():
            shutil.rmtree(data)

    @property
    def log_path(self) -> Path:
        """The file of what it said."""
        return self.folder / LOG

    def log(self) -> str:
        """What it said so far, over all its lives."""
        path = self.log_path
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def toml(settings: Mapping[str, object]) -> str:
    """A settings file from values by path."""
    sections: dict[str, list[str]] = {}
    for path, value in settings.items():
        section, _, name = path.partition(".")
        plain = value if isinstance(value, bool | int) else str(value)
        sections.setdefault(section, []).append(f"{name} = {json.dumps(plain)}")
    return "\n".join("\n".join([f"[{section}]", *lines, ""]) for section, lines in sections.items())
