"""What stands in the log of a cluster's node: steps of replicas' durable state, many in one turn.

A turn is ordinary (steps of logs, logs that begin or end here, from time to time a new reservation
of the oracle) or a checkpoint, with which every log segment begins.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from k2store.errors import Corruption
from k2store.storage import Store
from replication import Entry, Membership, Persist, Position, Saved, Snapshot


class Step(Struct, frozen=True, gc=False, array_like=True):
    """One :class:`replication.Persist` of one partition's replica."""

    partition: int
    promise: int
    cut_lsn: int
    snapshot: Snapshot | None
    entries: tuple[Entry, ...]
    lost: bool


class Kept(Struct, frozen=True, gc=False, array_like=True):
    """The durable state of one partition's replica (:class:`replication.Saved`)."""

    partition: int
    snapshot: Snapshot
    promise: int
    entries: tuple[Entry, ...]
    lost: bool


class Home(Struct, frozen=True, gc=False, array_like=True):
    """This node's voice about a keyspace's home is bound to this incarnation of it."""

    keyspace: str
    incarnation: int


class Frozen(Struct, frozen=True, gc=False, array_like=True):
    """How far a partition's copy was final when its home was declared off: entries up to
    `applied_lsn` stand, and nothing at or below `closed` is missing among them.
    """

    partition: int
    applied_lsn: int
    closed: int


class Turn(Struct, frozen=True, gc=False, array_like=True):
    """An ordinary turn. `begun`: replicas that begin here; `ended`: partitions dropped."""

    reserved_until_ns: int
    steps: list[Step]
    begun: list[Kept]
    ended: list[int]
    homes: list[Home] = []
    frozen: list[Frozen] = []


class NodeCheckpoint(Struct, frozen=True, gc=False, array_like=True):
    """Everything that is neither settled nor in later turns."""

    reserved_until_ns: int
    replicas: list[Kept]
    homes: list[Home] = []
    frozen: list[Frozen] = []


encode = msgspec.msgpack.Encoder().encode
_decode_turn = msgspec.msgpack.Decoder(Turn).decode
_decode_checkpoint = msgspec.msgpack.Decoder(NodeCheckpoint).decode


def step_of(partition: int, persist: Persist) -> Step:
    """A replica's persist as it is written."""
    return Step(
        partition,
        persist.promise,
        persist.cut_lsn,
        persist.snapshot,
        persist.entries,
        persist.lost,
    )


class _Replica:
    """The durable state of one replica while turns are read: `Saved.then`, without copying."""

    def __init__(self, kept: Kept) -> None:
        self.snapshot = kept.snapshot
        self.promise = kept.promise
        self.entries = list(kept.entries)
        self.lost = kept.lost

    def then(self, step: Step) -> None:
        if step.snapshot is not None:
            self.snapshot = step.snapshot
        base_lsn = self.snapshot.position.lsn
        if step.cut_lsn or step.snapshot is not None:
            self.entries = [
                entry
                for entry in self.entries
                if entry.lsn > base_lsn and (not step.cut_lsn or entry.lsn < step.cut_lsn)
            ]
        self.entries.extend(step.entries)
        self.promise = max(self.promise, step.promise)
        self.lost = self.lost or step.lost

    def saved(self) -> Saved:
        return Saved(self.snapshot, self.promise, tuple(self.entries), self.lost)


class Recovered(Struct):
    """What a node's store holds. `replayed`: how many turns it had."""

    reserved_until_ns: int
    replicas: dict[int, Saved]
    homes: dict[str, int]
    frozen: dict[int, Frozen]
    replayed: int


def recover(store: Store) -> Recovered:
    """Read the newest usable checkpoint and every turn after it.

    Raises Corruption when a turn cannot be understood, for example because the store is that of a
    single node.
    """
    log = store.log
    first = log.first_lsn
    if log.checkpoint_lsn and store.settled.applied_lsn >= log.checkpoint_lsn - 1:
        first = log.checkpoint_lsn
    replicas: dict[int, _Replica] = {}
    homes: dict[str, int] = {}
    frozen: dict[int, Frozen] = {}
    reserved_until_ns = 0
    replayed = 0
    restored = False
    for turn in log.replay(first):
        replayed += 1
        try:
            if turn.checkpoint:
                saved = _decode_checkpoint(turn.payload)
                reserved_until_ns = max(reserved_until_ns, saved.reserved_until_ns)
                homes.update((home.keyspace, home.incarnation) for home in saved.homes)
                frozen.update((one.partition, one) for one in saved.frozen)
                if not restored:
                    # A later one counts on settled rows that may not have reached the disk; the
                    # turns between say the same.
                    replicas = {kept.partition: _Replica(kept) for kept in saved.replicas}
                    restored = True
                continue
            decoded = _decode_turn(turn.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Corruption(
                f"turn {turn.lsn} of the log cannot be understood: {error}; was this folder made "
                "by a node outside a cluster?",
                what="log",
            ) from error
        restored = True
        reserved_until_ns = max(reserved_until_ns, decoded.reserved_until_ns)
        homes.update((home.keyspace, home.incarnation) for home in decoded.homes)
        frozen.update((one.partition, one) for one in decoded.frozen)
        for kept in decoded.begun:
            replicas[kept.partition] = _Replica(kept)
        for step in decoded.steps:
            replicas[step.partition].then(step)
        for partition in decoded.ended:
            replicas.pop(partition, None)
            frozen.pop(partition, None)
    return Recovered(
        reserved_until_ns,
        {number: one.saved() for number, one in replicas.items()},
        homes,
        frozen,
        replayed,
    )


def first_snapshot(position: Position, membership: Membership, state: bytes) -> Snapshot:
    """Where a log begins."""
    return Snapshot(position, membership, 0, state)


def kept(partition: int, saved: Saved) -> Kept:
    """A replica's durable state as it is written."""
    return Kept(partition, saved.snapshot, saved.promise, saved.entries, saved.lost)
