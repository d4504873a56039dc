"""Round trips of a commit, by the shape of the transaction and the place it is made from.

Every cell (shape and place) is measured on the network as it is, and then once for each link with
that link made longer. A transaction that crosses a link k times there and back takes k times as much
longer as the link's round trip has become: the difference counts round trips, and whatever else a
transaction costs is in neither figure. What is compared are the fastest transactions of each run,
those that met no queue on the way: on a busy machine the median wanders by more than a link's delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final, NamedTuple

from msgspec import Struct, field

import k2store
from bench.geo.scene import PLACES, REGIONS, Place, statuses
from bench.progress import Begin
from k2store.testing.cluster import LocalCluster
from k2store.testing.wan import Wan

LONGER_MS: Final = 30.0
"""How much longer a link is made, each way: the nearest majority stays the nearest."""

TIMEOUT: Final = "60s"
WARM_UPS: Final = 1
COUNTED: Final = 3
VALUE: Final = b"v" * 64
LINKS: Final = (("fra", "iad"), ("fra", "sin"), ("iad", "sin"))

Run = Callable[[k2store.Database, Place, bytes], Awaitable[int]]
"""One transaction on keys of its own (a name); gives how many attempts it took."""


class Shape(NamedTuple):
    """A kind of transaction.

    limit   most round trips that it may take from a region to a home elsewhere
    """

    name: str
    limit: int
    run: Run


async def _one_shot(db: k2store.Database, place: Place, name: bytes) -> int:
    await db.put(place.parts[0] + name, VALUE, timeout=TIMEOUT)
    return 1


def _interactive(steps: int) -> Run:
    """So many steps, each of which has to know what the last one found: reads of partitions by
    turns, and at last a write (of both partitions where there are more than two steps).
    """

    async def run(db: k2store.Database, place: Place, name: bytes) -> int:
        attempts = 0
        async for txn in db.transactions(timeout=TIMEOUT):
            attempts += 1
            async with txn:
                for step in range(steps - 1):
                    await txn.get(place.parts[step % 2] + name)
                for part in place.parts[: 1 if steps == 2 else 2]:
                    txn.put(part + name, VALUE)
        return attempts

    return run


async def _read(db: k2store.Database, place: Place, name: bytes) -> int:
    await db.get(place.parts[0] + name, timeout=TIMEOUT)
    return 1


SHAPES: Final = (
    Shape("one_shot", 1, _one_shot),
    Shape("interactive", 2, _interactive(2)),
    Shape("steps_3", 4, _interactive(3)),
    Shape("steps_4", 5, _interactive(4)),
    Shape("strong_read", 1, _read),
)
"""`steps_w`: w dependent steps over two partitions, w - 1 reads and the writes; at most w + 1."""


class Cell(Struct):
    """One shape from one place.

    latency_ms     median on the network as it is
    fastest_ms     the fastest one on the network as it is
    round_trips    how often it crosses between regions and back, all links together
    by_link        the same for each link that it crosses
    local_ms       what is left of the fastest one: local work and commit wait
    forwarded      requests a transaction that its node sends to leaders elsewhere: an exact count
    retries        attempts that were followed by another one
    """

    shape: str
    place: str
    viewer: str
    keyspace: str
    latency_ms: float = 0.0
    fastest_ms: float = 0.0
    round_trips: float = 0.0
    by_link: dict[str, float] = field(default_factory=dict)
    local_ms: float = 0.0
    forwarded: float = 0.0
    retries: int = 0


class Commits:
    """The measurement, over one cluster."""

    def __init__(self, cluster: LocalCluster, count: int, begin: Begin):
        self._cluster = cluster
        self._count = count
        self._begin = begin
        self._clients: dict[str, k2store.Database] = {}
        self._serial = 0
        self.cells = {
            (shape.name, place.name): Cell(shape.name, place.name, place.viewer, place.keyspace)
            for shape in SHAPES
            for place in PLACES
        }

    async def run(self) -> list[Cell]:
        """Measure every cell."""
        async with contextlib.AsyncExitStack() as stack:
            for region in REGIONS:
                client = self._cluster.connect(region, timeout=TIMEOUT)
                self._clients[region] = await stack.enter_async_context(client)
            await self._measure_all()
        return list(self.cells.values())

    async def _measure_all(self) -> None:
        seconds = 0.5 * self._count
        self._begin("commits: counting requests", COUNTED * len(SHAPES) * 1.5)
        await self._count_forwarded()
        self._begin("commits: the network as it is", seconds)
        base = await self._latencies()
        found: dict[str, Mapping[tuple[str, str], tuple[float, float]]] = {}
        for one, other in LINKS:
            self._begin(f"commits: {one}-{other} made longer", seconds)
            with _longer(self._cluster.wan, one, other):
                found[f"{one}-{other}"] = await self._latencies()
        for key, cell in self.cells.items():
            self._conclude(cell, base[key], {link: by[key] for link, by in found.items()})

    def _conclude(
        self, cell: Cell, base_ms: tuple[float, float], longer_ms: Mapping[str, tuple[float, float]]
    ) -> None:
        cell.latency_ms, cell.fastest_ms = base_ms
        crossed_ms = 0.0
        cell.by_link = {}
        for link, (_, fastest_ms) in longer_ms.items():
            times = (fastest_ms - cell.fastest_ms) / (2 * LONGER_MS)
            cell.round_trips += times
            one, other = link.split("-")
            rule = self._cluster.wan.rule(one, other)
            crossed_ms += times * 2000 * (rule.delay_s + rule.jitter_s / 2)
            cell.by_link[link] = times
        cell.local_ms = cell.fastest_ms - crossed_ms

    async def _latencies(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Median and least latency of every cell, ms; the cells side by side, each one by one."""
        await asyncio.sleep(0.3)  # what is under way has the old delays
        async with asyncio.TaskGroup() as group:
            tasks = {
                (shape.name, place.name): group.create_task(self._latency(shape, place))
                for shape in SHAPES
                for place in PLACES
            }
        return {key: task.result() for key, task in tasks.items()}

    async def _latency(self, shape: Shape, place: Place) -> tuple[float, float]:
        cell = self.cells[shape.name, place.name]
        taken_ms = []
        for number in range(WARM_UPS + self._count):
            began_s = time.perf_counter()
            attempts = await shape.run(self._clients[place.viewer], place, self._name())
            if number >= WARM_UPS:
                taken_ms.append((time.perf_counter() - began_s) * 1000)
                cell.retries += attempts - 1
        return statistics.median(taken_ms), min(taken_ms)

    async def _count_forwarded(self) -> None:
        """Requests sent to leaders elsewhere: every node counts its own, so cells take turns."""
        async with asyncio.TaskGroup() as group:
            for region in REGIONS:
                group.create_task(self._count_from(region))

    async def _count_from(self, region: str) -> None:
        for place in PLACES:
            if place.viewer != region:
                continue
            for shape in SHAPES:
                before = await asyncio.to_thread(self._forwarded, region)
                for _ in range(COUNTED):
                    await shape.run(self._clients[region], place, self._name())
                after = await asyncio.to_thread(self._forwarded, region)
                self.cells[shape.name, place.name].forwarded = (after - before) / COUNTED

    def _forwarded(self, region: str) -> int:
        return statuses(self._cluster)[f"{region}-1"].cluster.forwarded

    def _name(self) -> bytes:
        self._serial += 1
        return b"%06d" % self._serial


@contextlib.contextmanager
def _longer(wan: Wan, one: str, other: str) -> Iterator[None]:
    """One link is longer inside the block."""
    ends = ((one, other), (other, one))
    for source, target in ends:
        wan.delay(source, target, wan.rule(source, target).delay_s * 1000 + LONGER_MS)
    try:
        yield
    finally:
        for source, target in ends:
            wan.heal(source, target)
