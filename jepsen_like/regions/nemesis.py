"""What goes wrong in a cluster of real processes. Each fault says what shows that it took effect."""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from k2store.testing.cluster import LocalCluster

LASTS_S: Final = (0.5, 4.0)
RESTS_S: Final = (0.5, 2.0)

Fault = Callable[["LocalCluster", random.Random], Generator[None, None, bool]]
"""Begins, waits where it yields, ends; whether it had any effect."""


def _cuts(cluster: LocalCluster) -> int:
    return sum(counts.cut for counts in cluster.wan.statistics().values())


def stands_still(process: int) -> bool:
    """Whether the kernel says that a process is stopped."""
    state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    return state.split()[0] == "T"


def kill(cluster: LocalCluster, rng: random.Random) -> Generator[None, None, bool]:
    """SIGKILL to a node, which is started again."""
    node = cluster.node(rng.choice(list(cluster.nodes)))
    status = node.kill()
    yield
    node.start()
    return status is not None


def restart(cluster: LocalCluster, rng: random.Random) -> Generator[None, None, bool]:
    """SIGTERM to a node, which gives its leads away and ends; it is started again."""
    node = cluster.node(rng.choice(list(cluster.nodes)))
    status = node.stop()
    yield
    node.start()
    return status is not None


def pause(cluster: LocalCluster, rng: random.Random) -> Generator[None, None, bool]:
    """SIGSTOP to a node, and SIGCONT."""
    node = cluster.node(rng.choice(list(cluster.nodes)))
    node.pause()
    yield
    stands = stands_still(node.process)
    node.resume()
    return stands


def isolate(cluster: LocalCluster, rng: random.Random) -> Generator[None, None, bool]:
    """A region hears nobody and is heard by nobody."""
    before = _cuts(cluster)
    cluster.wan.isolate(rng.choice(cluster.regions))
    yield
    cut = _cuts(cluster) - before
    cluster.wan.heal()
    return cut > 0


def one_way(cluster: LocalCluster, rng: random.Random) -> Generator[None, None, bool]:
    """One region does not hear another one, which hears it."""
    before = _cuts(cluster)
    cluster.wan.cut(*rng.sample(cluster.regions, 2))
    yield
    cut = _cuts(cluster) - before
    cluster.wan.heal()
    return cut > 0


FAULTS: Final[dict[str, Fault]] = {
    "isolate": isolate,
    "kill": kill,
    "one-way": one_way,
    "pause": pause,
    "restart": restart,
}


class Nemesis:
    """One fault after the other, each kind in turn before any comes again."""

    def __init__(self, cluster: LocalCluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self.applied: collections.Counter[str] = collections.Counter()
        """Faults that took effect."""
        self.idle: collections.Counter[str] = collections.Counter()
        """Faults that did not."""

    async def run(self, seconds: float) -> None:
        """Until the time is over; the last fault is ended."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + seconds
        left: list[str] = []
        while loop.time() < until_s:
            if not left:
                left = self._rng.sample(sorted(FAULTS), len(FAULTS))
            await self._one(left.pop(), until_s)
            await asyncio.sleep(self._rng.uniform(*RESTS_S))

    async def _one(self, name: str, until_s: float) -> None:
        fault = FAULTS[name](self._cluster, self._rng)
        await asyncio.to_thread(next, fault)
        left_s = until_s - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.2, min(self._rng.uniform(*LASTS_S), left_s)))
        took = await asyncio.to_thread(_ended, fault)
        (self.applied if took else self.idle)[name] += 1


def _ended(fault: Generator[None, None, bool]) -> bool:
    try:
        next(fault)
    except StopIteration as over:
        return bool(over.value)
    raise AssertionError("a fault has two halves")
