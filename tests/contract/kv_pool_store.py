"""A store of rows in a dictionary, and a bench on which the directory's tests stand.

`MemoryStore` runs one transaction after the other, each at a later stamp. It keeps its commits, so
a learner can be fed from it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from k2store.client.records import Record
from k2store.client.watch import Change
from kv_pool.keys import Worker
from kv_pool.learner import Learner
from kv_pool.shots import Committed, Done, Failed, holds
from truetime import timestamp


class MemoryStore:
    """A `kv_pool.shots.Store` without a store. `now_ns` may be set; else it is the machine's clock."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.at = 0
        self.now_ns: int | None = None
        self.commits: list[tuple[int, list[Change]]] = []
        self.round_trips = 0

    async def shoot(self, shot):
        """All conditions, then all writes."""
        txn = MemoryTransaction(self, self._stamp())
        for place, condition in enumerate(shot.conditions):
            if not await holds(txn, condition):
                return Failed(place, txn.at)
        values = tuple([self.rows.get(key) for key in shot.reads])
        self._commit(txn.at, dict(shot.writes))
        self.round_trips += 1
        return Done(txn.at, values)

    async def transact(self, function):
        """The function, then its writes."""
        txn = MemoryTransaction(self, self._stamp())
        value = await function(txn)
        self._commit(txn.at, txn.writes)
        self.round_trips += 2
        return Committed(value, txn.at)

    def _stamp(self) -> int:
        now_ns = time.time_ns() if self.now_ns is None else self.now_ns
        return max(self.at + 4096, timestamp.pack(now_ns, 1))

    def _commit(self, at: int, writes: dict[bytes, bytes | None]) -> None:
        self.at = at
        for key, value in writes.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        if writes:
            self.commits.append((at, [Change(key, value) for key, value in sorted(writes.items())]))


class MemoryTransaction:
    """Reads what was committed, under what it wrote itself."""

    def __init__(self, store: MemoryStore, at: int) -> None:
        self._store = store
        self.at = at
        self.writes: dict[bytes, bytes | None] = {}

    async def get(self, key: bytes) -> bytes | None:
        """Own writes first."""
        return self.writes[key] if key in self.writes else self._store.rows.get(key)

    async def scan(self, start: bytes, end: bytes, limit: int) -> AsyncIterator[Record]:
        """In key order; own writes are seen."""
        rows = {**self._store.rows, **self.writes}
        found = [
            Record(key, value, 1)
            for key, value in sorted(rows.items())
            if value is not None and start <= key and (not end or key < end)
        ]
        for row in found[:limit]:
            yield row

    def put(self, key: bytes, value: bytes) -> None:
        """At the commit."""
        self.writes[key] = value

    def delete(self, key: bytes) -> None:
        """At the commit."""
        self.writes[key] = None


class Follower:
    """Feeds a learner from a `MemoryStore`, commit by commit."""

    def __init__(self, store: MemoryStore) -> None:
        self.learner = Learner()
        self.learner.begin("all")
        self.learner.finish("all", 0)
        self._store = store
        self._next = 0

    def follow(self) -> Learner:
        """Apply everything that was committed since."""
        for at, changes in self._store.commits[self._next :]:
            self.learner.apply("all", at, changes)
        self._next = len(self._store.commits)
        return self.learner


A = Worker("fra", "a")
B = Worker("fra", "b")
BOOT = b"boot of a worker"
NAMESPACE = b"namespace 16 by."
SECOND_NS = 1_000_000_000


def soon(seconds: float = 60) -> int:
    """A moment from now, nanoseconds since the Unix epoch; the past for less than 0."""
    return time.time_ns() + int(seconds * SECOND_NS)


def names(*numbers: int) -> bytes:
    """Names of blocks, packed."""
    return b"".join(bytes([number]) * 16 for number in numbers)
