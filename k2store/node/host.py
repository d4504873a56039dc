"""Where a node's partitions are kept: the port between the engine and what makes entries durable.

The engine runs turns, sessions and rule T3; a host knows which partitions there are, who leads
them, and when an entry of one of them stands::

    engine                                host
      │ deliver(partition, message) ──────► led here: run it; led elsewhere: send it there
      │ persist(entries) ─────────────────► make them stand where they must
      │ ◄──────── Partition.durable, Partition.replay ── what stands now
      │ flush() ──────────────────────────► frames to other nodes leave

Two hosts: :class:`k2store.node.solo.SoloHost` keeps everything on one disk, where an entry stands
when the turn's sync returns; :class:`k2store.node.cluster.host.ClusterHost` replicates each
partition's log (:mod:`replication`), where it stands when a majority has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from k2store.v1 import admin_pb2
from mvcc.coordinator import Route
from mvcc.messages import Answer, BatchAnswer, Message
from mvcc.partition import Partition
from mvcc.records import Entry
from truetime import Interval, Oracle


class Host(Protocol):
    """The partitions of one node and their logs. Owned by the engine's loop."""

    oracle: Oracle
    partitions: list[Partition]
    """Every partition this node holds, in order of key."""
    route: Route
    """From keys to partition numbers, over the whole key space."""
    replayed: int
    """Turns found in the store when it was opened."""
    began: int
    """Stamps at or below it were given in an earlier life of this node."""

    @property
    def single(self) -> int | None:
        """The number of the only partition there is, so that columns can go to it whole; else
        None.
        """
        ...

    def partition(self, number: int) -> Partition:
        """The local copy of a partition."""
        ...

    async def start(self) -> None:
        """Become able to answer; raises K2Error with the reason if that cannot be."""
        ...

    def see(self, now: Interval) -> None:
        """A new reading of the clock holds from here on."""
        ...

    def begin_turn(self) -> None:
        """Take what other nodes have sent since the last turn."""
        ...

    def deliver(self, number: int, message: Message) -> None:
        """Run a message at the partition's leader; its answers come to the engine."""
        ...

    def sift(self, answers: Sequence[Answer | BatchAnswer]) -> Sequence[Answer | BatchAnswer]:
        """The answers for sessions of this node; those for other nodes are sent on."""
        ...

    def carry(self, key: bytes, message: Message) -> None:
        """Bring a message of one partition to the one that owns ``key``. It may be lost."""
        ...

    def forget(self, txns: list[bytes]) -> None:
        """The clients of these transactions have their outcomes."""
        ...

    async def hand_over(self, deadline_s: float) -> None:
        """Let others lead, as far as there are any, before this node ends."""
        ...

    def leave(self, owner: int) -> None:
        """A session has ended: what it has asked for and nobody has begun with is dropped."""
        ...

    def persist(self, entries: Sequence[Entry]) -> bool:
        """Put entries into their logs; True when something stands, or was learned, that the
        machines have not yet acted on: the turn goes on.
        """
        ...

    def reserve(self, until_ns: int) -> None:
        """Make the oracle's reservation durable."""
        ...

    def tick(self, now: Interval, oldest_open: int, protected: int) -> None:
        """Upkeep, on the engine's coarse timer; arguments as of :meth:`Partition.tick`."""
        ...

    def collect(self, protected: int) -> None:
        """Begin to delete versions that nobody may read any more."""
        ...

    def shows(self, number: int, stamp: int) -> bool:
        """Whether the local copy of a partition has what was committed up to a stamp."""
        ...

    def safe(self) -> int:
        """Everything at or below this stamp is final in every partition here."""
        ...

    def safe_in(self, start: bytes, end: bytes) -> int:
        """Everything at or below this stamp is final in [start, end) here, as of the last tick; an
        empty end means everything from the start on."""
        ...

    def flush(self) -> None:
        """The turn is over: what was gathered for other nodes leaves; a full segment is left."""
        ...

    @property
    def fenced(self) -> bool:
        """Whether the own clock contradicts those of most other nodes."""
        ...

    def describe(self, status: admin_pb2.GetStatusResponse) -> None:
        """Add what a node says of its cluster."""
        ...

    def stop(self) -> None:
        """Serve nothing any more; leave a clean log unless the disk has failed."""
        ...

    def abandon(self) -> None:
        """Let go of the other nodes, however this one ends; after `stop`, or without it."""
        ...
