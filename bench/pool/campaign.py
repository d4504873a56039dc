"""The order of the measurement: the learner beside Dynamo, the directory on a node, then each peer.

Everything runs one after the other. The learner and Dynamo's tree take turns on one core, so that a slow minute of
the host falls on both. Each measurement of the directory has a node of its own, on a fresh folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from bench import trace as traces
from bench.machine import Machine, examine
from bench.node import Node
from bench.pool.chains import deal, write
from bench.pool.learning import Learned
from bench.pool.peers import etcd, packages, redis
from bench.pool.plan import Acquire, Answer, Fence, Fenced, Publish, Rate, Request, Warm, Warmed
from bench.processes import BenchError, Cores, choose_cores, end, line_of, start
from bench.progress import Begin

A = TypeVar("A", bound=Answer)

PEERS: Final = ("redis", "etcd", "dynamo", "mooncake")
PUBLISHES_IN_FLIGHT: Final = (16, 256)
ACQUIRES_IN_FLIGHT: Final = (16, 64)
FENCES: Final = 5
_PROJECT: Final = Path(__file__).resolve().parents[2]


class Settings(Struct, frozen=True, kw_only=True):
    """What was asked for.

    trace   the file; None for a trace that is made up
    limit   so many prompts from its beginning; 0 for all
    rounds  how often the learner and Dynamo's tree are measured in turn
    fenced  blocks of a worker that is fenced
    """

    trace: Path | None
    limit: int
    block_tokens: int
    seconds: float
    rounds: int
    fenced: int
    peers: tuple[str, ...]
    folder: Path


class Findings(Struct):
    """Everything that was measured at one size of blocks; None stands for peers that are not there.

    row_bytes  of the mean row that a publish writes, which peers are given as well
    missing    what to do about a peer that is not installed
    load       mean length of the machine's run queue at the beginning and the end
    """

    machine: Machine
    cores: Cores
    settings: Settings
    load: list[float]
    row_bytes: int = 0
    publishes: int = 0
    new_blocks: int = 0
    learned: list[Learned] = msgspec.field(default_factory=list)
    dynamo: list[dict[str, float]] = msgspec.field(default_factory=list)
    publish: list[Rate] = msgspec.field(default_factory=list)
    acquire: list[Rate] = msgspec.field(default_factory=list)
    sessions_publish: list[Rate] = msgspec.field(default_factory=list)
    sessions_acquire: list[Rate] = msgspec.field(default_factory=list)
    fenced: Fenced | None = None
    warmed: Warmed | None = None
    redis: redis.RedisRun | None = None
    etcd: etcd.EtcdRun | None = None
    mooncake: dict[str, float] | None = None
    missing: dict[str, str] = msgspec.field(default_factory=dict)


MEMBERS: Final = "bench.pool.members"
VOLLEY: Final = "bench.pool.volley"


class Driver:
    """A process that loads the node, with the pool's sessions (`bench.pool.members`) or with frames made
    before (`bench.pool.volley`), asked over a pipe."""

    def __init__(
        self, program: str, node: Node, settings: Settings, core: int, folder: Path
    ) -> None:
        self._errors = folder / "driver.log"
        self._decoder = msgspec.json.Decoder(Answer)
        self._process = start(
            [
                *(sys.executable, "-m", program, node.address, str(node.process)),
                *("-" if settings.trace is None else str(settings.trace), str(settings.limit)),
                str(settings.block_tokens),
            ],
            core,
            errors=self._errors,
            folder=_PROJECT,
        )

    def ask(self, request: Request, kind: type[A]) -> A:
        """Send a request and wait for its answer."""
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # It has ended; its last words follow.
            pipe.write(msgspec.json.encode(request).decode() + "\n")
            pipe.flush()
        answer = self._decoder.decode(
            line_of(self._process.stdout, "the process that loads the node", self._errors)
        )
        assert isinstance(answer, kind), answer
        return answer

    def close(self) -> None:
        """End the process."""
        end(self._process)


def measure(settings: Settings, begin: Begin) -> Findings:
    """Measure everything that the settings ask for."""
    begin("calibrating", 1.0)
    cores = choose_cores()
    found = Findings(examine(settings.folder), cores, settings, [os.getloadavg()[0]])
    begin("dealing the prompts", 3.0)
    chains = settings.folder / "chains"
    requests = _requests(settings)
    prompts = deal(requests, settings.block_tokens)
    found.publishes = sum(prompt.new < prompt.blocks for prompt in prompts)
    found.new_blocks = sum(prompt.blocks - prompt.new for prompt in prompts)
    write(prompts, chains)
    del prompts, requests
    _tree(found, chains, begin)
    _directory(found, begin)
    _others(found, chains, begin)
    chains.unlink()
    found.load.append(os.getloadavg()[0])
    return found


def _requests(settings: Settings) -> Sequence[traces.Request]:
    if settings.trace is None:
        return traces.generate(0, settings.limit or traces.CONVERSATION.requests)
    return list(traces.read(settings.trace, settings.limit or None))


# ------------------------------------------------------------------------------ the learner


def _tree(found: Findings, chains: Path, begin: Begin) -> None:
    settings = found.settings
    python = None
    if "dynamo" in settings.peers:
        python = packages.interpreter(packages.DYNAMO)
        if python is None:
            found.missing["dynamo"] = packages.HOW_TO_INSTALL.format(package=packages.DYNAMO)
    for number in range(settings.rounds):
        begin(f"learner, {number + 1}/{settings.rounds}", 6.0)
        found.learned.append(_learner(found, chains))
        if python is not None:
            begin(f"dynamo's tree, {number + 1}/{settings.rounds}", 5.0)
            found.dynamo.append(packages.dynamo(python, chains, 2, found.cores, settings.folder))
    for theirs in found.dynamo:
        if theirs["scores"] != found.learned[0].scores:
            raise BenchError(
                f"the two trees differ: scores add up to {found.learned[0].scores} here and to "
                f"{theirs['scores']:.0f} there"
            )
    found.row_bytes = found.learned[0].row_bytes


def _learner(found: Findings, chains: Path) -> Learned:
    errors = found.settings.folder / "learner.log"
    process = start(
        [
            *(sys.executable, "-m", "bench.pool.learning", str(chains)),
            *(str(found.settings.block_tokens), "2"),
        ],
        found.cores.load,
        errors=errors,
        folder=_PROJECT,
    )
    try:
        return msgspec.json.decode(line_of(process.stdout, "the learner", errors), type=Learned)
    finally:
        end(process)


# ---------------------------------------------------------------------------- the directory


def _directory(found: Findings, begin: Begin) -> None:
    settings = found.settings
    seconds, warm_up_s = settings.seconds, min(1.0, settings.seconds / 4)
    for program, publish, acquire in (
        (VOLLEY, found.publish, found.acquire),
        (MEMBERS, found.sessions_publish, found.sessions_acquire),
    ):
        by = "" if program is VOLLEY else " by sessions"
        for count in PUBLISHES_IN_FLIGHT:
            begin(f"publish{by} x {count}", seconds + warm_up_s + 10)
            with _driver(found, program) as driver:
                publish.append(driver.ask(Publish(count, seconds, warm_up_s), Rate))
        for count in ACQUIRES_IN_FLIGHT:
            begin(f"acquire and release{by} x {count}", seconds + warm_up_s + 15)
            with _driver(found, program) as driver:
                acquire.append(driver.ask(Acquire(count, seconds, warm_up_s), Rate))
    begin(f"fence of {settings.fenced:,} blocks, {FENCES} times", 10.0)
    with _driver(found, MEMBERS) as driver:
        found.fenced = driver.ask(Fence(settings.fenced, FENCES), Fenced)
    begin("warm start of a learner", 8.0)
    with _driver(found, MEMBERS) as driver:
        found.warmed = driver.ask(Warm(), Warmed)


@contextlib.contextmanager
def _driver(found: Findings, program: str) -> Iterator[Driver]:
    """A node on a fresh folder and the process that loads it; both are gone afterwards."""
    folder = found.settings.folder / "store"
    folder.mkdir()
    node = Node(folder, found.cores.server)
    try:
        node.start()
        driver = Driver(program, node, found.settings, found.cores.load, folder)
        try:
            yield driver
        finally:
            driver.close()
    finally:
        node.stop()
        shutil.rmtree(folder)


# -------------------------------------------------------------------------------- the peers


def _others(found: Findings, chains: Path, begin: Begin) -> None:
    settings, cores = found.settings, found.cores
    about_s = 2 * settings.seconds * len(PUBLISHES_IN_FLIGHT)
    if "redis" in settings.peers:
        if redis.installed():
            begin("redis, appendfsync always", 2 * about_s)
            found.redis = redis.measure(
                settings.folder / "redis",
                cores,
                found.row_bytes,
                PUBLISHES_IN_FLIGHT,
                settings.seconds,
            )
        else:
            found.missing["redis"] = redis.HOW_TO_INSTALL
    if "etcd" in settings.peers:
        if etcd.installed():
            begin("etcd", about_s)
            found.etcd = etcd.measure(
                settings.folder / "etcd",
                cores,
                found.row_bytes,
                PUBLISHES_IN_FLIGHT,
                settings.seconds,
            )
        else:
            found.missing["etcd"] = etcd.HOW_TO_INSTALL
    if "mooncake" in settings.peers:
        python = packages.interpreter(packages.MOONCAKE)
        if python is None:
            found.missing["mooncake"] = packages.HOW_TO_INSTALL.format(package=packages.MOONCAKE)
        else:
            begin("mooncake", about_s)
            found.mooncake = packages.mooncake(
                python, chains, settings.seconds, cores, settings.folder
            )
