"""The cluster of a run and the processes of the demo in it: where they stand, how they are reached, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from bench.demo.simulated.messages import Message, Setting
from bench.demo.simulated.plan import TTL_S, Plan
from bench.demo.simulated.process import READY
from bench.demo.simulated.wire import Peer, refuse
from bench.processes import BenchError, last_words
from k2store.testing.cluster import LocalCluster
from k2store.testing.cluster.local_cluster import free_ports

WORKER: Final = "bench.demo.simulated.worker"
ROUTER: Final = "bench.demo.simulated.router"
START_S: Final = 60.0
END_S: Final = 10.0
HOST_NUMBER: Final = 9
"""Of the address in a region's namespace at which processes of the demo answer; nodes have lower ones."""
PORT: Final = 7600


class Member:
    """One process of the demo, while there is one."""

    def __init__(
        self, module: str, setting: Setting, before: Sequence[str], address: str, log: Path
    ) -> None:
        self.name = setting.name
        self.region = setting.region
        self._module = module
        self._setting = setting
        self._before = before
        self._address = address
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._peer = Peer(address, refuse)

    @property
    def number(self) -> int:
        """Of the process."""
        assert self._process is not None, "it was started"
        return self._process.pid

    def spawn(self) -> None:
        """Start it; `ready` belongs after it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._before, sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C is for the owner, who ends its processes in its own order.
                start_new_session=True,
            )
        assert self._process.stdin is not None, "its input is a pipe"
        self._process.stdin.write(msgspec.json.encode(self._setting) + b"\n")
        self._process.stdin.flush()

    async def ready(self) -> None:
        """Return when it answers; `BenchError` says why it does not."""
        process = self._process
        assert process is not None, "it was spawned"
        assert process.stdout is not None, "its output is a pipe"
        try:
            async with asyncio.timeout(START_S):
                line = await asyncio.to_thread(process.stdout.readline)
        except TimeoutError:
            line = b""
        if line.decode().strip() != READY:
            raise BenchError(f"{self.name} did not start: {last_words(self._log)}")

    async def start(self) -> None:
        """Start it and return when it answers."""
        self.spawn()
        await self.ready()

    async def ask(self, message: Message) -> Message:
        """What it answers."""
        return await self._peer.ask(message)

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
        """Let it end: its owner has no more to say. `reap` waits for that."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def reap(self) -> None:
        """Wait for its end, and kill it when that does not come."""
        if self._process is None:
            return
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    async def hang_up(self) -> None:
        """End the connection to it."""
        await self._peer.close()

    def _reap(self) -> None:
        process, self._process = self._process, None
        assert process is not None, "there was one"
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


class Company:
    """All processes of the demo over a cluster that runs, for ``with``."""

    def __init__(self, plan: Plan, cluster: LocalCluster, folder: Path, namespace: bytes) -> None:
        names = [*[f"router-{region}" for region in plan.regions], *plan.workers]
        self.folder = folder
        self._plan = plan
        self._cluster = cluster
        self._namespace = namespace
        self._real = self._places(names)
        self.routers = {
            region: self._member(ROUTER, f"router-{region}", region) for region in plan.regions
        }
        self.workers = {
            name: self._member(WORKER, name, name.partition("/")[0]) for name in plan.workers
        }

    def __enter__(self) -> Self:
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
        """What they wrote down."""
        return sorted(self.folder.glob("*.journal"))

    def _places(self, names: Sequence[str]) -> dict[str, str]:
        """Where each process answers, as those of its region dial it."""
        wan = self._cluster.wan
        found = {}
        ports = free_ports(len(names)) if wan.kind == "proxy" else []
        for index, name in enumerate(names):
            region = _region_of(name)
            if wan.kind == "proxy":
                address = f"127.0.0.1:{ports[index]}"
                wan.place(region, address)
            else:
                address = f"{wan.host(region, HOST_NUMBER)}:{PORT + index}"
            found[name] = address
        return found

    def _dialled(self, viewer: str, name: str) -> str:
        real = self._real[name]
        wan = self._cluster.wan
        if wan.kind == "namespaces" or viewer == _region_of(name):
            return real
        return wan.address(viewer, real)

    def _member(self, module: str, name: str, region: str) -> Member:
        plan, wan = self._plan, self._cluster.wan
        real = self._real[name]
        proxied = wan.kind == "proxy"
        port = real.rpartition(":")[2]
        # Everybody speaks with the nodes of the own region, which forward what is led elsewhere: a client
        # that has gone over to another region's node would stay there, an ocean away from its blocks.
        addresses = [node.seat.address for node in self._cluster.nodes_in(region)]
        plain = name.replace("/", "-")
        setting = Setting(
            name=name,
            region=region,
            regions=plan.regions,
            listen=real if proxied else f"0.0.0.0:{port}",
            endpoint=real,
            client="k2://" + ",".join(addresses),
            journal=str(self.folder / f"{plain}.journal"),
            namespace=self._namespace,
            speed=plan.speed,
            cost=plan.cost,
            ttl_s=TTL_S,
            slots=plan.pool_slots if module == WORKER else 0,
            policy=plan.policy if module == ROUTER else "",
            workers={one: self._dialled(region, one) for one in plan.workers},
        )
        address = real if proxied else wan.address(region, real)
        before = wan.command(region, [])
        return Member(module, setting, before, address, self.folder / f"{plain}.log")


def _region_of(name: str) -> str:
    return name.removeprefix("router-").partition("/")[0]
