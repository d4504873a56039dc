"""What a partition writes to its log.  State is a pure function of these records and the settled
store.

One :class:`Entry` holds everything that one turn of the driver produced for one partition; it
carries the closed timestamp that held when it was made (docs/protocol.md §4.1).
"""

from __future__ import annotations

from msgspec import Struct

from mvcc.messages import Span


class Planted(Struct, frozen=True, gc=False, array_like=True, tag=1):
    """Intents of one transaction: (key, value, sequence)."""

    txn: bytes
    stamp: int
    anchor: bytes
    writes: list[tuple[bytes, bytes | None, int]]


class CommittedAlone(Struct, frozen=True, gc=False, array_like=True, tag=2):
    """A transaction with one participant, decided, with its last writes and the values a one-shot
    read.
    """

    txn: bytes
    stamp: int
    writes: list[tuple[bytes, bytes | None]]
    values: list[tuple[int, bytes | None]] | None


class CommittedTogether(Struct, frozen=True, gc=False, array_like=True, tag=7):
    """Many transactions with one participant each, all decided; one entry of each column a write."""

    txns: list[bytes]
    stamps: list[int]
    keys: list[bytes]
    values: list[bytes | None]


class Decided(Struct, frozen=True, gc=False, array_like=True, tag=3):
    """The verdict at the anchor.  Own intents of the transaction are resolved by it as well."""

    txn: bytes
    stamp: int
    committed: bool
    participants: list[Span]


class Resolved(Struct, frozen=True, gc=False, array_like=True, tag=4):
    """The verdict at a participant."""

    txn: bytes
    stamp: int
    committed: bool


class Horizon(Struct, frozen=True, gc=False, array_like=True, tag=5):
    """Versions below ``stamp`` that are superseded may be deleted from now on; reads below it are
    refused.
    """

    stamp: int


class Edge(Struct, frozen=True, gc=False, array_like=True, tag=6):
    """Outcomes at or below ``stamp`` may have been dropped."""

    stamp: int


class Dropped(Struct, frozen=True, gc=False, array_like=True, tag=8):
    """The leader has forgotten the outcomes of these, and so may everybody."""

    txns: list[bytes]


class Split(Struct, frozen=True, gc=False, array_like=True, tag=9):
    """From here on the keys from ``key`` belong to partition ``child``, with these marks."""

    key: bytes
    child: int
    closed: int
    low_water: int


Record = (
    Planted
    | CommittedAlone
    | CommittedTogether
    | Decided
    | Resolved
    | Horizon
    | Edge
    | Dropped
    | Split
)


class Entry(Struct, frozen=True, gc=False, array_like=True):
    """One log entry of one partition."""

    partition: int
    lsn: int
    closed: int
    records: list[Record]


class Pending(Struct, frozen=True, gc=False, array_like=True):
    """An undecided transaction in a checkpoint: its intents as (key, value, sequence), and the
    numbers of all its writes, also of those that later ones have replaced.
    """

    txn: bytes
    stamp: int
    anchor: bytes
    writes: list[tuple[bytes, bytes | None, int]]
    sequences: list[int]


class Ended(Struct, frozen=True, gc=False, array_like=True):
    """A decided transaction in a checkpoint."""

    txn: bytes
    stamp: int
    committed: bool
    anchor: bytes
    values: list[tuple[int, bytes | None]] | None
    unconfirmed: list[Span] | None


class Checkpoint(Struct, frozen=True, gc=False, array_like=True):
    """All of a partition that is neither in the settled store nor rebuilt from later entries."""

    partition: int
    lsn: int
    start: bytes
    end: bytes
    closed: int
    low_water: int
    horizon: int
    record_edge: int
    pending: list[Pending]
    ended: list[Ended]
