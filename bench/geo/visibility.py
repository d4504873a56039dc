"""Visibility: from the acknowledgement at home until a replica in another region shows it.

::

    writer in fra   ──write n──▶ fra-1 ──ack──▶ (t1)
    reader in sin   ──view, view, view ...──▶ sin-1: n is there (t2)        t2 - t1

The reader asks nobody far away and waits for nothing: it takes view after view of what its node can
show, as stale as that may be. Writer and readers are in one process and use one clock. Each write
goes to two partitions, so every view is looked at for half a transaction as well, and whether it
admits to be as old as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Final

from msgspec import Struct

import k2store
from bench.geo.scene import EPOCH_MS, HOMES
from bench.samples import quantile
from k2store.testing.cluster import LocalCluster

HOME: Final = "fra"
READERS: Final = ("iad", "sin")
KEYS: Final = (b"a/visible", b"x/visible")
PAUSE_S: Final = (0.01, 0.09)
"""Between two writes: at any moment of the epoch."""

POLL_S: Final = 0.003
SEEN_S: Final = 30.0
ANY_AGE: Final = "1h"
TIMEOUT: Final = "60s"


class Delay(Struct):
    """Delays as one reader has seen them, milliseconds.

    one_way        of the farthest home: a view shows what is final in every partition
    remote_txn_ms  longest transaction of the remote writers meanwhile; 0 without any
    """

    reader: str
    one_way: float
    epoch: float
    count: int
    p50: float
    p99: float
    max: float
    staleness_p50: float
    remote_txn_ms: float = 0.0


class Seen(Struct):
    """What all views together have shown."""

    views: int = 0
    torn: int = 0
    understated: int = 0
    """Views that were older than they admitted."""
    backwards: int = 0


class Visibility:
    """The measurement, over one cluster."""

    def __init__(self, cluster: LocalCluster, count: int) -> None:
        self._cluster = cluster
        self._count = count
        self._acknowledged_s: list[float] = []
        self._base = 0
        self.seen = Seen()

    async def run(self, *, remote_writers: bool) -> list[Delay]:
        """Write so often, and see when each reader sees it."""
        self._base += len(self._acknowledged_s)
        self._acknowledged_s = []
        async with contextlib.AsyncExitStack() as stack:
            connect = self._cluster.connect
            clients = {
                region: await stack.enter_async_context(connect(region, timeout=TIMEOUT))
                for region in (HOME, *READERS)
            }
            await _put(clients[HOME], b"%d" % self._base)
            over = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                readers = {
                    region: group.create_task(self._read(clients[region])) for region in READERS
                }
                remote = [
                    group.create_task(self._write_remotely(clients[region], over, region))
                    for region in READERS
                    if remote_writers
                ]
                await self._write(clients[HOME])
                await asyncio.wait(readers.values())
                over.set()
        longest_ms = 1000 * max((task.result() for task in remote), default=0.0)
        return [self._delay(region, *task.result(), longest_ms) for region, task in readers.items()]

    async def _write(self, db: k2store.Database) -> None:
        chance = random.Random(1)
        for number in range(1, self._count + 1):
            await _put(db, b"%d" % (self._base + number))
            self._acknowledged_s.append(time.monotonic())
            await asyncio.sleep(chance.uniform(*PAUSE_S))

    async def _write_remotely(self, db: k2store.Database, over: asyncio.Event, name: str) -> float:
        """Interactive transactions on keys of the same partitions; the longest one's seconds."""
        longest_s = 0.0
        while not over.is_set():
            began_s = time.monotonic()
            async for txn in db.transactions(timeout=TIMEOUT):
                async with txn:
                    held = await txn.get(KEYS[0] + name.encode())
                    for key in KEYS:
                        txn.put(key + name.encode(), held or b"0")
            longest_s = max(longest_s, time.monotonic() - began_s)
        return longest_s

    async def _read(self, db: k2store.Database) -> tuple[list[float], list[float]]:
        """Delays of all writes, and how old the views admitted to be; seconds."""
        delays_s: list[float] = []
        ages_s: list[float] = []
        shown = self._base
        until_s = time.monotonic() + SEEN_S + self._count * PAUSE_S[1] * 3
        while len(delays_s) < self._count and time.monotonic() < until_s:
            asked_s = time.monotonic()
            async with db.snapshot(max_staleness=ANY_AGE) as view:
                found = await view.get_many(KEYS)
                age_s = view.staleness_s
            now_s = time.monotonic()
            one, other = (int(found[key] or 0) for key in KEYS)
            self.seen.views += 1
            self.seen.torn += one != other
            self.seen.backwards += one < shown
            ages_s.append(age_s)
            acknowledged = self._acknowledged_s
            following = one - self._base
            if 0 <= following < len(acknowledged):
                # The next write is not shown, and was certainly past at its acknowledgement.
                self.seen.understated += age_s < asked_s - acknowledged[following]
            while shown < one:
                shown += 1
                index = shown - self._base - 1
                # Shown before its writer has heard of it: no delay at all.
                at_s = acknowledged[index] if index < len(acknowledged) else now_s
                delays_s.append(now_s - at_s)
            await asyncio.sleep(POLL_S)
        return delays_s, ages_s

    def _delay(
        self, reader: str, delays_s: list[float], ages_s: list[float], remote_ms: float
    ) -> Delay:
        ordered = sorted(int(one * 1e9) for one in delays_s) or [0]
        ages = sorted(int(one * 1e9) for one in ages_s) or [0]
        return Delay(
            reader=reader,
            one_way=max(self._cluster.wan.rule(home, reader).delay_s for home in HOMES) * 1000,
            epoch=EPOCH_MS,
            count=len(delays_s),
            p50=quantile(ordered, 0.5) / 1e6,
            p99=quantile(ordered, 0.99) / 1e6,
            max=ordered[-1] / 1e6,
            staleness_p50=quantile(ages, 0.5) / 1e6,
            remote_txn_ms=remote_ms,
        )


async def _put(db: k2store.Database, value: bytes) -> None:
    """Write both keys in one transaction."""
    async for txn in db.transactions(timeout=TIMEOUT):
        async with txn:
            for key in KEYS:
                txn.put(key, value)
