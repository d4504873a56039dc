"""Routers and workers of a run: `k2 fleet` as processes over a cluster, and how they are reached."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from bench.demo.real.plan import LEASE_S, MODEL, PAGES, Plan
from bench.processes import BenchError, last_words
from k2store.config.dial import dial_lines
from k2store.testing.child import K2
from k2store.testing.cluster import LocalCluster
from k2store.testing.cluster.local_cluster import free_ports
from k2store.testing.keeper import Keeper

START_S: Final = 120.0
END_S: Final = 15.0
HOST_NUMBER: Final = 9
"""Of the address in a region's namespace at which these processes answer; nodes have lower ones."""
PORT: Final = 7600
PREFILL_TOKENS_PER_S: Final = 150.0
"""What routers take a worker for: three of them share two cores."""


_HELD: Final = ("sh", "-c", 'read -r go && exec "$@" < /dev/null', "k2")
"""Before a command: wait for a line, and end without having begun when none comes."""


class Port(NamedTuple):
    """Where a process listens, and where it is dialled by its region and by whoever runs the demo."""

    listen: str
    real: str
    outside: str


class Member:
    """One process, while there is one. `address`: where it is asked, as far as that is known beforehand."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, keeper: Keeper, address: str = ""
    ) -> None:
        self.name = name
        self.address = address
        self._command = list(command)
        self._log = log
        self._keeper = keeper
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether it was started, and has not ended as far as is known."""
        return self._process is not None

    def spawn(self) -> None:
        """Start it; `ready` belongs after it."""
        environment = {name: one for name, one in os.environ.items() if not name.startswith("K2_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_HELD, *self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # One thread for each that computes: they share the cores, and compute the same bits.
                env=environment | {"OMP_NUM_THREADS": "1"},
                # Ctrl-C is for the owner, who ends its processes in its own order.
                start_new_session=True,
            )
        # Only who is known to the keeper begins: so no moment is left in which nobody ends it.
        self._keeper.watch(self._process.pid)
        assert self._process.stdin is not None, "its input is a pipe"
        self._process.stdin.write(b"go\n")
        self._process.stdin.close()

    async def ready(self) -> dict[str, str]:
        """What it says when it answers; `BenchError` says why it does not."""
        process = self._process
        assert process is not None, "it was spawned"
        assert process.stdout is not None, "its output is a pipe"
        line = b""
        try:
            async with asyncio.timeout(START_S):
                line = await asyncio.to_thread(process.stdout.readline)
            said: dict[str, str] = json.loads(line)
        except (TimeoutError, ValueError):
            raise BenchError(f"{self.name} did not start: {last_words(self._log)}") from None
        return said

    async def start(self) -> dict[str, str]:
        """Start it; gives what it says when it answers."""
        self.spawn()
        return await self.ready()

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def ended(self) -> str:
        """How it came to its end without being asked to; empty while it runs."""
        process = self._process
        if process is None or process.poll() is None:
            return ""
        code = process.returncode
        self._reap()
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with code {code}: {last_words(self._log, 1)}"

    def end(self) -> None:
        """Ask it to end; `reap` waits for that."""
        if self._process is not None:
            self._process.terminate()

    def reap(self) -> None:
        """Wait for its end, and kill it when that does not come."""
        if self._process is None:
            return
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def _reap(self) -> None:
        process, self._process = self._process, None
        assert process is not None, "there was one"
        process.wait()
        self._keeper.forget(process.pid)
        assert process.stdout is not None, "its output is a pipe"
        process.stdout.close()


class Company:
    """All of them over a cluster that runs, for ``with``."""

    def __init__(self, plan: Plan, cluster: LocalCluster, folder: Path) -> None:
        self._plan = plan
        self._cluster = cluster
        self._folder = folder
        self._keeper = Keeper()
        routers = [f"{region}/router" for region in plan.regions]
        self._http = self._ports([*routers, *plan.workers], 0)
        self._pages = self._ports(plan.workers, len(self._http))
        self._dial = {region: self._dial_file(region) for region in plan.regions}
        self.routers = {region: self._router(region) for region in plan.regions}
        self.workers = {name: self._worker(name) for name in plan.workers}

    def __enter__(self) -> Self:
        self._keeper.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for member in self.members:
            member.end()
        for member in self.members:
            member.reap()
        self._keeper.__exit__(kind, error, trace)

    @property
    def members(self) -> list[Member]:
        """Routers and workers."""
        return [*self.routers.values(), *self.workers.values()]

    async def start(self) -> None:
        """Start all of them side by side."""
        for member in self.members:
            member.spawn()
        await asyncio.gather(*[member.ready() for member in self.members])

    def journals(self) -> list[Path]:
        """What they took down."""
        return sorted(self._folder.glob("*.journal"))

    # ------------------------------------------------------------------------------ inside

    def _ports(self, names: Sequence[str], taken: int) -> dict[str, Port]:
        wan = self._cluster.wan
        if wan.kind == "proxy":
            found = {}
            for name, port in zip(names, free_ports(len(names)), strict=True):
                real = f"127.0.0.1:{port}"
                wan.place(_region_of(name), real)
                found[name] = Port(real, real, real)
            return found
        found = {}
        for number, name in enumerate(names, start=PORT + taken):
            region = _region_of(name)
            real = f"{wan.host(region, HOST_NUMBER)}:{number}"
            found[name] = Port(f"0.0.0.0:{number}", real, wan.address(region, real))
        return found

    def _dial_file(self, viewer: str) -> Path:
        """Where workers of a region dial those of others: through the emulated ocean."""
        wan = self._cluster.wan
        through = {}
        if wan.kind == "proxy":
            through = {
                port.real: wan.address(viewer, port.real)
                for name, port in self._pages.items()
                if _region_of(name) != viewer
            }
        path = self._folder / f"{viewer}.dial"
        path.write_text(dial_lines(through), encoding="utf-8")
        return path

    def _router(self, region: str) -> Member:
        port = self._http[f"{region}/router"]
        said = ["router", "--region", region, "--listen", port.listen]
        said += ["--prefill-rate", f"{PREFILL_TOKENS_PER_S:g}"]
        return self._member(f"{region}/router", said, port.outside)

    def _worker(self, name: str) -> Member:
        http, pages = self._http[name], self._pages[name]
        said = ["worker", "--worker", name, "--regions", ",".join(self._plan.regions)]
        said += ["--listen", http.listen, "--pages-at", pages.listen]
        said += ["--advertise", pages.real.rpartition(":")[0], "--no-shared-memory"]
        said += ["--pages", str(PAGES), "--lease", f"{LEASE_S:g}", "--threads", "1"]
        return self._member(name, said, http.outside)

    def _member(self, name: str, said: Sequence[str], address: str) -> Member:
        region = _region_of(name)
        plain = self._folder / name.replace("/", "-")
        # Everybody speaks with the nodes of the own region, which forward what is led elsewhere.
        nodes = [node.seat.address for node in self._cluster.nodes_in(region)]
        command = [
            *self._cluster.wan.command(region, []),
            *(*K2, "fleet", *said, "--model", MODEL, "--json"),
            *("--address", ",".join(nodes), "--dial", str(self._dial[region])),
            *("--journal", f"{plain}.journal"),
        ]
        return Member(name, command, Path(f"{plain}.log"), self._keeper, address)


def _region_of(name: str) -> str:
    return name.partition("/")[0]
