"""The order of a measurement: machine, fill, workloads in turn, kill and restart, peer.

Everything runs one after the other: while one workload is measured nothing else of ours runs but
the node on its core and the load on the other. A run goes through all workloads; runs follow each
other, so a slow minute of the host does not fall on one workload alone.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from bench import etcd
from bench.machine import Machine, examine, resident_bytes
from bench.node import Node
from bench.plan import Answer, Connect, Done, Fill, Measure, Measured, Request
from bench.processes import BenchError, Cores, choose_cores, end, line_of, start
from bench.progress import Begin
from bench.workloads import KEY_BYTES, VALUE_BYTES

IN_FLIGHT: dict[str, tuple[int, ...]] = {
    "interactive": (1, 16, 256),
    "one-shot": (1, 16, 256),
    "snapshot": (1, 16, 256),
    "scan": (1, 16),
}
"""Requests under way at once, by workload."""

ETCD_IN_FLIGHT = 256
_PROBE = "key/000000000000"
_PROJECT = Path(__file__).resolve().parent.parent


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    keys: int
    seconds: float
    runs: int
    workloads: tuple[str, ...]
    folder: Path
    with_etcd: bool

    @property
    def warm_up_s(self) -> float:
        """Before each measurement."""
        return min(1.0, self.seconds / 4)


class Residence(msgspec.Struct, frozen=True):
    """What holding the keys costs, and coming back with them after a kill.

    bytes_per_key           growth of the node's resident memory, a key, less key and value
    bytes_per_key_restarted the same after the restart, against an empty node
    restart_s               from the start of the process until its first answer to a read
    """

    fill_s: float
    bytes_per_key: float
    bytes_per_key_restarted: float
    restart_s: float


class Findings(msgspec.Struct):
    """Everything that was measured."""

    machine: Machine
    cores: Cores
    settings: Settings
    residence: Residence | None = None
    measured: list[Measured] = msgspec.field(default_factory=list)
    etcd: list[etcd.EtcdRun] = msgspec.field(default_factory=list)
    beside_etcd: list[Measured] = msgspec.field(default_factory=list)


class LoadProcess:
    """The process that makes the load, asked over a pipe.

    `before` is the command line that runs a command where the load shall stand.
    """

    def __init__(
        self, keys: int, core: int, folder: Path, *, before: Callable[[list[str]], list[str]] = list
    ) -> None:
        self._errors = folder / "load.log"
        self._decoder = msgspec.json.Decoder(Answer)
        self._process = start(
            before([sys.executable, "-m", "bench.load", str(keys)]),
            core,
            errors=self._errors,
            folder=_PROJECT,
        )

    def ask(self, request: Request) -> Answer:
        """Send a request and wait for its answer."""
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # It has ended; its last words follow.
            pipe.write(msgspec.json.encode(request).decode() + "\n")
            pipe.flush()
        answer: Answer = self._decoder.decode(
            line_of(self._process.stdout, "the load", self._errors)
        )
        return answer

    def connect(self, node: Node) -> None:
        """Take a connection to a node that has just started."""
        self.ask(Connect(node.address, node.process, _PROBE))

    def measure(self, request: Measure) -> Measured:
        """Run a workload."""
        answer = self.ask(request)
        assert isinstance(answer, Measured)
        return answer

    def close(self) -> None:
        """End the process."""
        end(self._process)


def measure(settings: Settings, progress: Begin) -> Findings:
    """Measure everything that the settings ask for."""
    progress("calibrating", 1.0)
    findings = Findings(examine(settings.folder), choose_cores(), settings)
    with _node(settings.folder / "store", findings.cores) as (node, folder):
        load = LoadProcess(settings.keys, findings.cores.load, folder)
        try:
            empty_bytes, filled = _fill(node, load, settings.keys, progress)
            full_bytes = resident_bytes(node.process)
            for run in range(settings.runs):
                for request in _requests(settings):
                    title = (
                        f"run {run + 1}/{settings.runs}: {request.workload} x {request.in_flight}"
                    )
                    progress(title, request.seconds + request.warm_up_s)
                    findings.measured.append(load.measure(request))
            progress("kill and restart", 2 + settings.keys / 300_000)
            restart_s = _restart(node, load)
            own, keys = KEY_BYTES + VALUE_BYTES, settings.keys
            findings.residence = Residence(
                fill_s=filled.seconds,
                bytes_per_key=(full_bytes - empty_bytes) / keys - own,
                bytes_per_key_restarted=(resident_bytes(node.process) - empty_bytes) / keys - own,
                restart_s=restart_s,
            )
        finally:
            load.close()
    if settings.with_etcd:
        for run in range(settings.runs):
            _beside_etcd(findings, run, progress)
    return findings


def _requests(settings: Settings) -> Iterator[Measure]:
    for workload in settings.workloads:
        for in_flight in IN_FLIGHT[workload]:
            yield Measure(workload, in_flight, settings.seconds, settings.warm_up_s)


@contextlib.contextmanager
def _node(folder: Path, cores: Cores) -> Iterator[tuple[Node, Path]]:
    """A node on a fresh folder, which is gone afterwards."""
    folder.mkdir(parents=True)
    node = Node(folder, cores.server)
    try:
        node.start()
        yield node, folder
    finally:
        node.stop()
        shutil.rmtree(folder)


def _fill(node: Node, load: LoadProcess, keys: int, progress: Begin) -> tuple[int, Done]:
    """Write every key; gives the memory the node had before."""
    progress(f"filling {keys:,} keys", keys / 50_000)
    load.connect(node)
    empty_bytes = resident_bytes(node.process)
    filled = load.ask(Fill())
    assert isinstance(filled, Done)
    return empty_bytes, filled


def _restart(node: Node, load: LoadProcess) -> float:
    """Kill the node and bring it back; seconds until a client has read a key."""
    node.kill()
    began_s = time.perf_counter()
    node.start()
    load.connect(node)
    return time.perf_counter() - began_s


def _beside_etcd(findings: Findings, run: int, progress: Begin) -> None:
    """One run of etcd and one of ours, of the same sizes, each on a fresh folder."""
    settings, cores = findings.settings, findings.cores
    title = f"run {run + 1}/{settings.runs}: "
    if not etcd.installed():
        raise BenchError(etcd.HOW_TO_INSTALL)
    progress(title + "etcd, check perf", etcd.PERF_S + 5)
    findings.etcd.append(etcd.measure(settings.folder / "etcd", cores))
    progress(title + "the same sizes here", settings.seconds + settings.warm_up_s)
    with _node(settings.folder / "peer", cores) as (node, folder):
        load = LoadProcess(1, cores.load, folder)
        try:
            load.connect(node)
            request = Measure("etcd-sized", ETCD_IN_FLIGHT, settings.seconds, settings.warm_up_s)
            findings.beside_etcd.append(load.measure(request))
        finally:
            load.close()
