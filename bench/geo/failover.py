"""Failover: leaders killed with SIGKILL under load, and how long nothing is accepted.

One region of three nodes, so every partition has three voters. The first node keeps the control
plane and is spared; clients are connected to it, so what they wait for is the store's takeover and
not their own reconnection. Before each kill the lead of the partition goes to one of the other two,
by `k2 move`.

Each register has one writer, which writes numbers that only grow. A read that begins after a write
was acknowledged must find it, or a later one: what it does not is counted as stale, and what is not
there at the end as lost.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from msgspec import Struct, field

import k2store
from bench.geo.scene import CLOCK_BOUND_MS, k2, leaders_of, statuses, until
from bench.processes import BenchError
from bench.progress import Begin
from bench.samples import quantile
from k2store.testing.cluster import LocalCluster, local_cluster

REGION: Final = "fra"
VOTERS: Final = 3
KEEPER: Final = "fra-1"
WRITERS: Final = 4
PAUSE_S: Final = 0.005
CALM_S: Final = 0.5
PATIENCE_S: Final = 60.0
TIMEOUT: Final = "60s"
PARTITION: Final = 1


class Failover(Struct):
    """What the kills did; times in seconds, from the kill to the first write that was begun after
    it and accepted.
    """

    kills: int = 0
    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0
    each: list[float] = field(default_factory=list)
    acknowledged: int = 0
    acknowledged_lost: int = 0
    reads: int = 0
    stale_reads: int = 0
    unknown: int = 0
    """Writes that failed without an outcome."""


class _Load:
    """Writers and readers of registers."""

    def __init__(self, found: Failover) -> None:
        self.found = found
        self.killed_s = 0.0
        self.accepted = asyncio.Event()
        self.over = False
        self._acknowledged = [0] * WRITERS

    async def write(self, db: k2store.Database, number: int) -> None:
        value = 0
        while not self.over:
            value += 1
            began_s = time.monotonic()
            try:
                await db.put(_register(number), b"%d" % value, timeout=TIMEOUT)
            except k2store.OutcomeUnknown:
                self.found.unknown += 1
                continue
            self._acknowledged[number] = value
            self.found.acknowledged += 1
            if self.killed_s and began_s > self.killed_s and not self.accepted.is_set():
                self.found.each.append(time.monotonic() - self.killed_s)
                self.accepted.set()
            await asyncio.sleep(PAUSE_S)

    async def read(self, db: k2store.Database, number: int) -> None:
        while not self.over:
            await self.look(db, number)
            await asyncio.sleep(PAUSE_S)

    async def look(self, db: k2store.Database, number: int) -> bool:
        """Read a register; whether it has what was acknowledged before."""
        wanted = self._acknowledged[number]
        held = int(await db.get(_register(number), timeout=TIMEOUT) or 0)
        self.found.reads += 1
        self.found.stale_reads += held < wanted
        return held >= wanted


def failover(folder: Path, kills: int, begin: Begin) -> Failover:
    """Kill so many leaders."""
    found = Failover()
    with local_cluster(
        (REGION,),
        nodes_per_region=VOTERS,
        wan=None,
        tls=False,
        path=folder,
        keyspaces=(f"default:zone:{REGION}",),
        clock__bound=f"{CLOCK_BOUND_MS * 1000:g}us",
        storage__sync=True,
    ) as cluster:
        until("there are three voters", lambda: _voters(cluster) == VOTERS)
        asyncio.run(_campaign(cluster, kills, found, begin))
    ordered = sorted(int(one * 1e9) for one in found.each)
    found.p50, found.p99 = quantile(ordered, 0.5) / 1e9, quantile(ordered, 0.99) / 1e9
    found.max = ordered[-1] / 1e9
    return found


async def _campaign(cluster: LocalCluster, kills: int, found: Failover, begin: Begin) -> None:
    load = _Load(found)
    async with cluster.connect(REGION, timeout=TIMEOUT) as db:
        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(load.write(db, number))
                group.create_task(load.read(db, number))
            for number in range(kills):
                begin(f"kill {number + 1}/{kills}", 6.0)
                await _kill(cluster, load, f"{REGION}-{2 + number % 2}")
            load.over = True
        for number in range(WRITERS):
            found.acknowledged_lost += not await load.look(db, number)


async def _kill(cluster: LocalCluster, load: _Load, name: str) -> None:
    """Let a node lead, kill it, measure, and bring it back."""
    await asyncio.to_thread(k2, cluster, "move", str(PARTITION), name)
    await asyncio.to_thread(
        until, f"{name} leads", lambda: [leader for _, leader in leaders_of(cluster)] == [name]
    )
    await asyncio.sleep(CALM_S)
    victim = cluster.node(name)
    load.accepted.clear()
    await asyncio.to_thread(victim.kill)
    load.killed_s = time.monotonic()
    load.found.kills += 1
    try:
        async with asyncio.timeout(PATIENCE_S):
            await load.accepted.wait()
    except TimeoutError:
        raise BenchError(f"nothing was accepted for {PATIENCE_S:g} s after a kill") from None
    load.killed_s = 0.0
    await asyncio.to_thread(victim.start)


def _voters(cluster: LocalCluster) -> int:
    return max(
        (
            len(partition.replica.voters)
            for status in statuses(cluster).values()
            for partition in status.partitions
        ),
        default=0,
    )


def _register(number: int) -> bytes:
    return b"register/%d" % number
