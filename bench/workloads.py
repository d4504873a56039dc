"""The workloads: what one worker does again and again, through the public client.

All keys are drawn uniformly. Each worker writes to a share of the keys that is its own, so that
it knows the values it expects; it reads from all of them.

    interactive   read one key, write another, commit: ``async for`` over ``db.transactions()``
    one-shot      compare-and-put of one key that has the expected value, in one message
    snapshot      reads of single keys in a view; a worker takes a new view every 100 reads
    scan          100 rows from a random key on, in a view; counted in rows
    etcd-sized    a one-shot put of a new key of 276 bytes with a value of 1 KiB
"""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from k2store import EVERYTHING, KeyRange, value_is

if TYPE_CHECKING:
    from k2store import Database, K2Error

KEY_BYTES: Final = 16
VALUE_BYTES: Final = 64
SEED: Final = 1
READS_PER_VIEW: Final = 100
ROWS_PER_SCAN: Final = 100

ETCD_PREFIX: Final = b"/etcdctl-check-perf/"
ETCD_RANDOM_BYTES: Final = 256
ETCD_VALUE_BYTES: Final = 1024


class Place(NamedTuple):
    """Which worker this is, of how many."""

    worker: int
    workers: int


class Keys:
    """The resident keys, and the last value that was written to each."""

    def __init__(self, count: int) -> None:
        self.names = [b"key/%012d" % number for number in range(count)]
        self._chance = Random(SEED).random
        self._written: dict[bytes, bytes] = {}
        self._serial = 0

    def draw(self) -> bytes:
        """Any key."""
        names = self.names
        return names[int(self._chance() * len(names))]

    def draw_own(self, place: Place) -> bytes:
        """A key of a worker's own share."""
        names, (worker, workers) = self.names, place
        own = (len(names) - 1 - worker) // workers + 1
        return names[worker + workers * int(self._chance() * own)]

    def value(self, key: bytes) -> bytes:
        """What the key holds."""
        return self._written.get(key) or initial(key)

    def fresh(self) -> bytes:
        """A value that was never written before."""
        self._serial = serial = self._serial + 1
        return b"%064d" % serial

    def wrote(self, key: bytes, value: bytes) -> None:
        """The write of a value was acknowledged."""
        self._written[key] = value


def initial(key: bytes) -> bytes:
    """What a key holds at the beginning: 64 bytes."""
    return key * (VALUE_BYTES // KEY_BYTES)


class Recorder:
    """What the workers of one measurement report, from `reset` until `stop`."""

    __slots__ = ("count", "failures", "gap_ns", "last_ns", "latency_ns", "stopped", "wait_ns")

    def __init__(self) -> None:
        self.stopped = False
        self.reset()

    def reset(self) -> None:
        """Forget what was reported: the measurement begins now."""
        self.count = 0
        self.failures: Counter[str] = Counter()
        self.gap_ns = 0
        self.last_ns = time.perf_counter_ns()
        self.latency_ns = array("Q")
        self.wait_ns = array("Q")

    def done(self, began_ns: int, waited_ns: int, count: int = 1) -> None:
        """One more answer, to `count` units of work."""
        now_ns = time.perf_counter_ns()
        gap_ns = now_ns - self.last_ns
        if gap_ns > self.gap_ns:
            self.gap_ns = gap_ns
        self.last_ns = now_ns
        self.count += count
        self.latency_ns.append(now_ns - began_ns)
        self.wait_ns.append(waited_ns)

    def failed(self, failure: K2Error) -> None:
        """An attempt has failed, and another one follows."""
        rule = getattr(failure, "rule", None)
        self.failures[f"{type(failure).__name__} {rule}" if rule else type(failure).__name__] += 1


Work = Callable[["Database", Keys, Recorder, Place], Coroutine[None, None, None]]
"""What a worker does until the recorder is stopped."""


async def interactive(db: Database, keys: Keys, recorder: Recorder, place: Place) -> None:
    """Transactions that read one key and write another."""
    while not recorder.stopped:
        read, written = keys.draw(), keys.draw_own(place)
        value = keys.fresh()
        began_ns = time.perf_counter_ns()
        async for txn in db.transactions():
            async with txn:
                await txn.get(read)
                txn.put(written, value)
            if txn.failure is not None:
                recorder.failed(txn.failure)
        recorder.done(began_ns, txn.waited_ns)
        keys.wrote(written, value)


async def one_shot(db: Database, keys: Keys, recorder: Recorder, place: Place) -> None:
    """Compare-and-puts whose condition holds."""
    while not recorder.stopped:
        key = keys.draw_own(place)
        value = keys.fresh()
        condition = value_is(key, keys.value(key))
        began_ns = time.perf_counter_ns()
        result = await db.transact(conditions=(condition,), writes=((key, value),))
        recorder.done(began_ns, result.waited_ns)
        keys.wrote(key, value)


async def _past_the_fill(db: Database, keys: Keys) -> None:
    """Wait until a view that needs no waiting lies behind the filling of the store."""
    async with db.snapshot(strong=True) as now:
        await now.get(keys.draw())  # gives the view its stamp
        filled_at = now.at
    while True:
        async with db.snapshot() as view:
            await view.get(keys.draw())
            if view.at >= filled_at:
                return
        await asyncio.sleep(0.01)


async def snapshot(db: Database, keys: Keys, recorder: Recorder, _place: Place) -> None:
    """Reads of single keys at a past stamp that needs no waiting."""
    await _past_the_fill(db, keys)
    while not recorder.stopped:
        async with db.snapshot() as view:
            left = READS_PER_VIEW
            while left and not recorder.stopped:
                left -= 1
                key = keys.draw()
                began_ns = time.perf_counter_ns()
                value = await view.get(key)
                recorder.done(began_ns, 0)
                assert value is not None, f"{key!r} is lost"


async def scan(db: Database, keys: Keys, recorder: Recorder, _place: Place) -> None:
    """Rows from a random key on."""
    while not recorder.stopped:
        async with db.snapshot() as view:
            where = KeyRange(keys.draw(), EVERYTHING.end)
            began_ns = time.perf_counter_ns()
            rows = await view.scan(where, limit=ROWS_PER_SCAN).all()
            recorder.done(began_ns, 0, len(rows))


async def etcd_sized(db: Database, _keys: Keys, recorder: Recorder, _place: Place) -> None:
    """Puts of new keys, of the sizes that etcd's own load generator uses."""
    value = bytes(ETCD_VALUE_BYTES)
    while not recorder.stopped:
        key = ETCD_PREFIX + os.urandom(ETCD_RANDOM_BYTES)
        began_ns = time.perf_counter_ns()
        await db.put(key, value)
        recorder.done(began_ns, 0)


WORKLOADS: Final[dict[str, Work]] = {
    "interactive": interactive,
    "one-shot": one_shot,
    "snapshot": snapshot,
    "scan": scan,
    "etcd-sized": etcd_sized,
}
