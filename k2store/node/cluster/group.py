"""One partition on this node: the replica of its log, and the machine that lives by the log.

::

    leader     messages ──► Partition ──entry──► Replica.propose ──► majority
                               ▲                                        │
                               └────────── durable(lsn) ◄──── committed ┘

    follower   Replica ── committed ──► Partition.replay ──► show(closed): reads of the past

The machine of a leader is ahead of its log: it holds what it has proposed. So when a leader is
deposed its machine is thrown away and another is built from what stands. A follower's machine is
exactly what stands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from k2store.errors import Corruption
from k2store.node.cluster.measuring import Measure
from mvcc.messages import Message
from mvcc.partition import Partition
from mvcc.records import Checkpoint, Entry
from replication import (
    Kind,
    NoteKind,
    Position,
    Ready,
    Refusal,
    Replica,
    ReplicaSettings,
    Saved,
)
from truetime import Interval

Make = Callable[[int, bytes, bytes], Partition]
"""Makes the machine of a partition: number, start, end."""

ENDS_LEAD: Final = frozenset({NoteKind.DEPOSED, NoteKind.LOST})

SETTLE_ENTRIES: Final = 256
"""Entries replayed between settlings while a machine is rebuilt."""

encode_entry = msgspec.msgpack.Encoder().encode
decode_entry = msgspec.msgpack.Decoder(Entry).decode
encode_checkpoint = msgspec.msgpack.Encoder().encode
decode_checkpoint = msgspec.msgpack.Decoder(Checkpoint).decode


def empty_checkpoint(number: int, start: bytes, end: bytes) -> Checkpoint:
    """A partition without history."""
    return Checkpoint(number, 1, start, end, 0, 0, 0, 0, [], [])


class Group:
    """One partition's replica on this node; owned by the engine's loop."""

    def __init__(
        self,
        number: int,
        identity: int,
        saved: Saved,
        settings: ReplicaSettings,
        make: Make,
        now: Interval,
    ) -> None:
        self.number = number
        base = saved.snapshot.position
        self.replica = Replica(identity, saved, settings, now, applied=base if base.lsn else None)
        self.leading = False
        self.heir = 0
        """Whom the lead is to be handed to; 0 for nobody."""
        self.handing = False
        self.full = False
        """Too many entries wait for their majority: what is asked waits too."""
        self.held: list[Message] = []
        """What waits until everything proposed stands: for a checkpoint, or for the heir."""
        self.waiting: list[tuple[int, Message]] = []
        """Requests for a leader nobody knows, with the time until which they may wait."""
        self.hints: dict[int, tuple[int, int]] = {}
        """From each node with open transactions here: the smallest stamp, and when it came."""
        self.interest_ns = 0
        """When this node last wrote here, while another one leads."""
        self.pulled_ns = 0
        """When somebody last asked for rows of the whole partition; 0 if nobody does."""
        self.told = False
        """Whether a leader elsewhere may keep outcomes for clients of this node."""
        self.measure = Measure(0)
        self.closed_epoch = 0
        self.led_safe = 0
        self.reconciled_ns = 0
        self.taken_over = 0
        self.rebuilt = 0
        self._make = make
        self._proposed: deque[tuple[int, int]] = deque()
        self.partition = self._rebuild(0)

    # -- looking -----------------------------------------------------------------------------------

    @property
    def start(self) -> bytes:
        """First key of the range."""
        return self.partition.state.start

    @property
    def end(self) -> bytes:
        """Where the range ends; b"" for no end."""
        return self.partition.state.end

    @property
    def base(self) -> Position:
        """Where the log in memory begins."""
        return self.replica.state.log.base

    @property
    def quiescent(self) -> bool:
        """Whether the machine is exactly what stands, so that a checkpoint may be taken of it."""
        if not self.leading:
            return True
        state = self.partition.state
        return not (self._proposed or state.records or state.awaiting)

    @property
    def is_splitting(self) -> bool:
        """Whether the range has ended earlier since a split that may not stand, or not be taken over yet."""
        state = self.partition.state
        return state.leaving is not None or bool(state.children)

    def serves(self, now: Interval) -> bool:
        """Whether this node may answer for the partition at this moment."""
        return self.leading and self.replica.serves(now)

    def safe(self) -> int:
        """Reads at or below this stamp are final here."""
        return self.partition.safe()[0] if self.leading else self.partition.state.shown

    @property
    def seen(self) -> int:
        """What `safe` was at least; cheap, and for a leader as of the last tick."""
        return self.led_safe if self.leading else self.partition.state.shown

    # -- the leader's side -------------------------------------------------------------------------

    def propose(self, entry: Entry, now: Interval) -> None:
        """Append an entry of the machine to the log.

        If the log does not take it, the machine has made promises that nobody will keep: it makes
        way for one that is built from what stands.
        """
        lsn = self.replica.propose(encode_entry(entry), entry.closed, now)
        if isinstance(lsn, Refusal):
            self.replica.stand_down(now)
        else:
            self._proposed.append((lsn, entry.lsn))

    # -- what stands -------------------------------------------------------------------------------

    def absorb(self, ready: Ready, now: Interval) -> bool:
        """Act on what a replica has for its driver; True if the machine has changed."""
        if ready.restore is not None:
            self._replace(len(ready.committed))
        for entry in ready.committed:
            if entry.kind == Kind.DATA:
                self._apply(entry.lsn, entry.payload, now)
        for note in ready.notes:
            if note.kind == NoteKind.SERVES:
                self._take_over(now)
        if not self.leading:
            self.show()
        return bool(ready.committed or ready.restore or ready.notes)

    def _apply(self, lsn: int, payload: bytes, now: Interval) -> None:
        if self.leading:
            # The machine made it: it has only to learn that it stands.
            if self._proposed and self._proposed[0][0] == lsn:
                self.partition.durable(self._proposed.popleft()[1], now)
            return
        self.partition.replay(decode_entry(payload))

    def _take_over(self, now: Interval) -> None:
        assert not self._proposed, "what an earlier leadership proposed went with its machine"
        self.partition.start(now)
        self.leading = True
        self.heir = 0
        self.full = False
        self.led_safe = 0
        self.taken_over += 1

    def bequeath(self, heir: int) -> None:
        """Begin to hand the lead over; what is asked from here on waits for the heir."""
        self.heir = heir
        self.handing = False

    def show(self) -> None:
        """Let reads go as far as time is closed over what was applied."""
        self.partition.show(self.replica.safe(None))

    def thaw(self, applied_lsn: int, closed: int, now: Interval) -> None:
        """After a restart: entries up to `applied_lsn` are known to stand, whoever may say so now."""
        state = self.replica.state
        state.commit_lsn = max(state.commit_lsn, min(applied_lsn, state.log.durable_lsn))
        self.absorb(self.replica.ready(), now)
        if self.replica.applied_lsn >= applied_lsn:
            self.partition.show(closed)

    def stop(self) -> None:
        """Have the machine answer everybody who waits; `depose` follows when that was taken."""
        self.partition.stop()

    def depose(self, ahead: int) -> None:
        """Build another machine, from what stands without the last `ahead` entries."""
        self.leading = False
        self.heir = 0
        self._proposed.clear()
        self.hints.clear()
        watched = self.partition.state.watched
        self._replace(ahead)
        self.partition.watch(watched)
        self.rebuilt += 1

    def _replace(self, ahead: int) -> None:
        before = self.partition.state
        self.partition = self._rebuild(ahead)
        self.partition.state.count_on(before)

    def _rebuild(self, ahead: int) -> Partition:
        """The machine as the snapshot and the applied entries tell it, without the last `ahead`."""
        log = self.replica.state.log
        saved = decode_checkpoint(log.snapshot.state)
        partition = self._make(self.number, saved.start, saved.end)
        partition.restore(saved)
        count = max(0, self.replica.applied_lsn - ahead - log.base.lsn)
        for index, entry in enumerate(log.after(log.base.lsn, count), 1):
            if entry.kind == Kind.DATA:
                partition.replay(decode_entry(entry.payload))
            if not index % SETTLE_ENTRIES:
                partition.state.settle()
        partition.state.settle()
        return partition

    # -- checkpoints -------------------------------------------------------------------------------

    def compact(self) -> None:
        """Let the machine's checkpoint stand for the entries up to what was applied."""
        assert self.quiescent, self.number
        partition = self.partition
        partition.state.settle()
        self.replica.compact(self.replica.applied_lsn, encode_checkpoint(partition.checkpoint()))


def data_lost(number: int) -> Corruption:
    """Why a node must end whose replica of a log has lost what it acknowledged."""
    return Corruption(
        f"the log of partition {number} lacks what this node has acknowledged: its disk has lost "
        "data; remove the data folder and start the node again, as a new member",
        what="log",
    )
