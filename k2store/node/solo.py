"""The host of a single node: every partition is led here, and what is synced stands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from k2store.errors import ClockUncertain
from k2store.node import recovery
from k2store.node.spaces import SPACE
from k2store.node.turns import NodeCheckpoint, Turn, encode
from k2store.storage import StorageFailed
from k2store.v1 import admin_pb2
from mvcc.coordinator import Route
from mvcc.messages import Answer, BatchAnswer, Forgets, Message
from mvcc.partition import Partition
from mvcc.records import Entry
from truetime import Interval
from truetime.timestamp import floor

if TYPE_CHECKING:
    from k2store.node.engine import Engine
    from truetime import Oracle

SETTLE_BESIDE_MIN = 64
"""Versions waiting to be settled for which it is worth to do that while the disk syncs the log."""
START_WAIT_NS_MAX = 10_000_000_000
"""How long a start waits for the clock to pass the stamps of an earlier life."""


class SoloHost:
    """Implements :class:`k2store.node.host.Host` on one store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._log = engine.store.log
        self._settled = engine.store.settled
        settings = engine.settings
        recovered = recovery.recover(
            engine.store,
            settings.split_keys,
            settings.oracle_id,
            settings.oracle,
            settings.partition,
            SPACE,
        )
        self.oracle: Oracle = recovered.oracle
        self.partitions: list[Partition] = recovered.partitions
        self.replayed = recovered.replayed
        self.route = Route([partition.state.start for partition in self.partitions])
        self.began = 0
        self._flushing = False

    @property
    def single(self) -> int | None:
        """The number of the only partition, if there is only one."""
        return 0 if len(self.partitions) == 1 else None

    def partition(self, number: int) -> Partition:
        """The partition with this number."""
        return self.partitions[number]

    async def start(self) -> None:
        """Reserve stamps, start the partitions, wait until their low-water mark has passed."""
        engine = self._engine
        await wait_for_stamps(engine)
        for partition in self.partitions:
            partition.start(engine.now)
        self.began = max(partition.state.low_water for partition in self.partitions)
        while floor(engine.now.lo_ns) <= self.began:
            # Transactions that begin now would be refused until the mark has passed: wait for it
            # here, once.
            await asyncio.sleep(0.005)
            engine.now = engine.clock.now()
        self._flushing = True
        loop = asyncio.get_running_loop()
        preparing = loop.run_in_executor(None, self._log.prepare_segment)
        preparing.add_done_callback(self._prepared)

    def see(self, now: Interval) -> None:
        """Nothing here depends on the time of a turn."""

    def begin_turn(self) -> None:
        """There are no other nodes."""

    def deliver(self, number: int, message: Message) -> None:
        """Run a message."""
        self.partitions[number].receive(message, self._engine.now)

    def sift(self, answers: Sequence[Answer | BatchAnswer]) -> Sequence[Answer | BatchAnswer]:
        """All answers are for sessions here."""
        return answers

    def carry(self, key: bytes, message: Message) -> None:
        """Run a message of another partition."""
        self.partitions[self.route.of(key)].receive(message, self._engine.now)

    def forget(self, txns: list[bytes]) -> None:
        """Any partition may keep outcomes of these."""
        message = Forgets(txns)
        for partition in self.partitions:
            partition.receive(message, self._engine.now)

    async def hand_over(self, deadline_s: float) -> None:
        """There is nobody else."""

    def leave(self, owner: int) -> None:
        """Nothing waits here but in the partitions."""

    def persist(self, entries: Sequence[Entry]) -> bool:
        """Append the turn, sync it, and tell the partitions."""
        if not entries:
            return False
        engine = self._engine
        self._log.append(encode(Turn(0, list(entries))))
        if engine.settings.sync:
            waiting = sum(partition.state.unsettled_count for partition in self.partitions)
            self._log.sync(self._settle if waiting >= SETTLE_BESIDE_MIN else None)
            engine.counts["syncs"] += 1
        engine.see()
        for entry in entries:
            self.partitions[entry.partition].durable(entry.lsn, engine.now)
        return True

    def reserve(self, until_ns: int) -> None:
        """Make the oracle's reservation durable."""
        self._log.append(encode(Turn(until_ns, [])))
        self._log.sync()
        self._engine.counts["syncs"] += 1
        self.oracle.reserve(until_ns)

    def tick(self, now: Interval, oldest_open: int, protected: int) -> None:
        """Upkeep of every partition."""
        for partition in self.partitions:
            partition.tick(now, oldest_open, protected)
        self._settle()

    def _settle(self) -> None:
        for partition in self.partitions:
            partition.state.settle()

    def collect(self, protected: int) -> None:
        """Begin a pass of the collection in every partition."""
        for partition in self.partitions:
            partition.collect(protected)

    def shows(self, number: int, stamp: int) -> bool:
        """The only copy has everything."""
        return True

    def safe(self) -> int:
        """The least of all partitions."""
        return min(partition.safe()[0] for partition in self.partitions)

    def safe_in(self, start: bytes, end: bytes) -> int:
        """The same for every range: no partition of a lone node stands still."""
        return self._engine.safe

    def flush(self) -> None:
        """Leave a full segment."""
        if self._log.segment_full and not self._flushing:
            self._rotate()

    @property
    def fenced(self) -> bool:
        """Nobody contradicts the clock of a node alone."""
        return False

    def describe(self, status: admin_pb2.GetStatusResponse) -> None:
        """A node alone has no cluster."""

    def stop(self) -> None:
        """Settle everything and leave a checkpoint, so that the next start is short."""
        for partition in self.partitions:
            partition.stop()
        self.reserve(self.oracle.close())
        if not self._flushing:
            self._checkpoint()
            self._settled.flush()

    def abandon(self) -> None:
        """There is nobody else."""

    # -- log segments ------------------------------------------------------------------------------

    def _checkpoint(self) -> int:
        """Begin a log segment with everything that is not settled; returns the checkpoint's turn."""
        for partition in self.partitions:
            partition.state.settle()
        saved = NodeCheckpoint(
            self.oracle.reserved_until_ns,
            [partition.checkpoint() for partition in self.partitions],
        )
        turn = self._log.begin_segment(encode(saved))
        self._settled.mark_applied(turn - 1)
        return turn

    def _rotate(self) -> None:
        """Begin another segment, and drop the full one once the settled store is on disk."""
        self._checkpoint()
        self._flushing = True
        task = asyncio.get_running_loop().run_in_executor(None, self._flush)
        task.add_done_callback(self._flushed)

    def _flush(self) -> int:
        applied = self._settled.flush()
        self._log.prepare_segment()
        return applied

    def _prepared(self, task: asyncio.Future[None]) -> None:
        """A spare segment lies ready, so that the first full one can be left without a pause."""
        self._flushing = False
        error = task.exception()
        if error is not None and not self._engine.stopped:
            self._engine.fail(error)

    def _flushed(self, task: asyncio.Future[int]) -> None:
        self._flushing = False
        if self._engine.stopped:
            return
        error = task.exception()
        if error is None:
            try:
                self._log.drop_before(task.result() + 1)
            except StorageFailed as failed:
                error = failed
        if error is not None:
            self._engine.fail(error)


async def wait_for_stamps(engine: Engine) -> None:
    """Reserve stamps, and wait until the oracle is past everything an earlier life may have given.

    Raises ClockUncertain when that would take longer than anybody expects of a start.
    """
    host = engine.host
    while True:
        engine.now = engine.clock.now()
        until_ns = host.oracle.needs_reservation(engine.now)
        if until_ns is not None:
            # Also after a wait: on a busy machine it may have outlasted the reservation.
            host.reserve(until_ns)
            continue
        refusal = host.oracle.refusal(engine.now.lo_ns, engine.now.hi_ns)
        if refusal is None:
            return
        wait_ns = refusal.retry_after_ns
        if wait_ns is None:
            raise ClockUncertain(f"the node cannot start: {refusal.message}")
        if wait_ns > START_WAIT_NS_MAX:
            raise ClockUncertain(
                f"the node cannot start: stamps up to {wait_ns / 1e9:.1f} s ahead of this "
                "clock have been given before; the clock was set back: set it right",
                retry_after_s=wait_ns / 1e9,
            )
        await asyncio.sleep(wait_ns / 1e9)
