"""What a partition is told and what it answers: plain values, encodable as msgpack.

A request carries a ``request`` number that its sender chose; every answer repeats it.  Stamps are
the packed integers of :mod:`truetime.timestamp`.  A transaction id names one *attempt*
(docs/protocol.md §5.1) and is 16 bytes: 8 of the client, 6 of its running number, 2 of the
attempt.  Values are ``bytes``; ``None`` is a tombstone or an absent key.
"""

from __future__ import annotations

from msgspec import Struct

from mvcc.conditions import Condition
from mvcc.refusals import Refusal

OWNER_BITS = 44
"""A single request's number is ``owner << OWNER_BITS | request``; in a batch they stand apart."""

Span = tuple[bytes, bytes]
"""The first and the last key that a transaction has written in one partition.  It outlives the
partition: when that is split, the span lies in both parts.
"""

NOBODY = b""
"""The transaction id of a reader that belongs to no transaction (a snapshot read)."""


class Request(Struct, frozen=True, gc=False, array_like=True):
    """Base of all requests."""


class Read(Request, frozen=True, gc=False, array_like=True, tag=1):
    """Read one key as of ``stamp`` (docs/protocol.md §5.4)."""

    request: int
    key: bytes
    stamp: int
    txn: bytes
    deadline_ns: int


class Scan(Request, frozen=True, gc=False, array_like=True, tag=2):
    """Read the keys of [start, end) as of ``stamp``, at most ``limit`` rows; ``end`` b"" means no
    upper bound.
    """

    request: int
    start: bytes
    end: bytes
    stamp: int
    txn: bytes
    limit: int
    reverse: bool
    deadline_ns: int


class Write(Request, frozen=True, gc=False, array_like=True, tag=3):
    """Plant intents: ``writes`` are (key, value, sequence) of one transaction; ``anchor`` is the
    key of its record.
    """

    request: int
    txn: bytes
    stamp: int
    anchor: bytes
    writes: list[tuple[bytes, bytes | None, int]]
    conditions: list[Condition]
    deadline_ns: int


class CommitAlone(Request, frozen=True, gc=False, array_like=True, tag=4):
    """Commit a transaction whose only participant is this partition; its last writes ride along.

    ``sequences`` are the sequence numbers of writes sent before; each must stand here as an intent.
    """

    request: int
    txn: bytes
    stamp: int
    writes: list[tuple[bytes, bytes | None]]
    sequences: list[int]


class OneShot(Request, frozen=True, gc=False, array_like=True, tag=5):
    """Conditions, reads and writes in one message, stamped here when it runs.

    ``floor`` is a stamp the session has already seen; the own stamp will be above it.  Refused
    after ``deadline_ns``.
    """

    request: int
    txn: bytes
    floor: int
    deadline_ns: int
    conditions: list[Condition]
    reads: list[bytes]
    writes: list[tuple[bytes, bytes | None]]


class End(Request, frozen=True, gc=False, array_like=True, tag=6):
    """Decide a transaction at its anchor; ``participants`` has one span for each partition
    written.
    """

    request: int
    txn: bytes
    stamp: int
    anchor: bytes
    commit: bool
    participants: list[Span]


class Heartbeat(Request, frozen=True, gc=False, array_like=True, tag=7):
    """The coordinator of ``txn`` is alive."""

    txn: bytes


class Push(Request, frozen=True, gc=False, array_like=True, tag=8):
    """A participant asks the anchor for the verdict on ``txn``; answered with :class:`Pushed` once
    there is one.
    """

    txn: bytes
    stamp: int
    anchor: bytes
    origin: bytes


class Pushed(Request, frozen=True, gc=False, array_like=True, tag=9):
    """The anchor's answer to a push: ``verdict`` is a :class:`mvcc.transactions.Verdict`."""

    txn: bytes
    stamp: int
    verdict: int


class Resolve(Request, frozen=True, gc=False, array_like=True, tag=10):
    """The anchor tells a participant the verdict; confirmed with :class:`Confirm` when that is
    durable.  ``participant`` and ``last`` are a span, which goes to the owner of its first key.
    """

    txn: bytes
    stamp: int
    committed: bool
    participant: bytes
    last: bytes
    anchor: bytes


class Confirm(Request, frozen=True, gc=False, array_like=True, tag=11):
    """A participant has the verdict on disk, for the span that began with the key ``participant``:
    up to ``end``, where another partition begins, or all of it (b"").
    """

    txn: bytes
    participant: bytes
    anchor: bytes
    end: bytes


class Status(Request, frozen=True, gc=False, array_like=True, tag=12):
    """Ask for the outcome of ``txn``.  ``decide``: the asker knows the outcome was never
    acknowledged to its client, so that a transaction nobody has heard of is aborted, for good,
    before the answer.  ``not_before``: what is known of a stamp that the asker never learned
    (``stamp`` 0); it is not smaller than this.  ``anchor``: the key of its record, if the asker knows
    it; only the partition of that key may answer then.
    """

    request: int
    txn: bytes
    stamp: int
    decide: bool
    not_before: int = 0
    anchor: bytes | None = None


class Forget(Request, frozen=True, gc=False, array_like=True, tag=13):
    """The client has its answer; the outcome need not be kept for it any longer."""

    txn: bytes


class Reads(Request, frozen=True, gc=False, array_like=True, tag=14):
    """Point reads, one entry of each column a read; ``txns`` b"" for reads outside transactions."""

    owner: int
    requests: list[int]
    txns: list[bytes]
    stamps: list[int]
    keys: list[bytes]
    deadlines_ns: list[int]


class CommitsAlone(Request, frozen=True, gc=False, array_like=True, tag=15):
    """Commits of transactions that wrote nothing ahead; the first ``counts[0]`` writes are the
    first transaction's, and so on.
    """

    owner: int
    requests: list[int]
    txns: list[bytes]
    stamps: list[int]
    counts: list[int]
    keys: list[bytes]
    values: list[bytes | None]


class OneShots(Request, frozen=True, gc=False, array_like=True, tag=16):
    """One-shots without reads.

    Those without field conditions have theirs in columns, one entry each.  Else ``conditions`` holds
    every condition once, ``chosen`` says by place which they are, and ``condition_counts`` how many
    of those places belong to each one-shot; the columns of conditions are empty then.
    """

    owner: int
    floor: int
    requests: list[int]
    txns: list[bytes]
    deadlines_ns: list[int]
    condition_counts: list[int]
    kinds: list[int]
    condition_keys: list[bytes]
    condition_versions: list[int]
    condition_values: list[bytes]
    write_counts: list[int]
    keys: list[bytes]
    values: list[bytes | None]
    conditions: list[Condition] = []
    chosen: list[int] = []


class Forgets(Request, frozen=True, gc=False, array_like=True, tag=17):
    """The client has the outcomes of all of these."""

    txns: list[bytes]


class Value(Struct, frozen=True, gc=False, array_like=True, tag=18):
    """Answer to :class:`Read`: the newest version at or below ``stamp``; 0 and None where there is
    none.
    """

    request: int
    stamp: int
    version: int
    value: bytes | None


class Rows(Struct, frozen=True, gc=False, array_like=True, tag=19):
    """Answer to :class:`Scan`: (key, version, value) in scan order.

    ``resume`` is set when there may be more: the next page's ``start`` (in reverse, its ``end``).
    """

    request: int
    stamp: int
    rows: list[tuple[bytes, int, bytes]]
    resume: bytes | None


class Written(Struct, frozen=True, gc=False, array_like=True, tag=20):
    """The intents of a :class:`Write` are durable."""

    request: int


class Committed(Struct, frozen=True, gc=False, array_like=True, tag=21):
    """The transaction is durably committed at ``stamp``.  ``values`` are (version, value) of a
    one-shot's reads.

    The driver holds this answer until true time has certainly passed ``stamp`` (rule T3).
    """

    request: int
    stamp: int
    values: list[tuple[int, bytes | None]] | None


class Failed(Struct, frozen=True, gc=False, array_like=True, tag=22):
    """A condition did not hold at ``stamp``: its index and key.  Reveals data, so T3 holds for it
    as well.
    """

    request: int
    stamp: int
    condition: int
    key: bytes


class Refused(Struct, frozen=True, gc=False, array_like=True, tag=23):
    """Nothing was done, and why."""

    request: int
    refusal: Refusal


class Outcome(Struct, frozen=True, gc=False, array_like=True, tag=24):
    """Answer to :class:`Status` and to an aborting :class:`End`: a
    :class:`mvcc.transactions.Verdict` and its stamp.
    """

    request: int
    verdict: int
    stamp: int


class Values(Struct, frozen=True, gc=False, array_like=True, tag=25):
    """Answers to reads; an absent key has version 0 and value b""."""

    owner: int
    requests: list[int]
    stamps: list[int]
    versions: list[int]
    values: list[bytes]


class Commits(Struct, frozen=True, gc=False, array_like=True, tag=26):
    """Durable commits.  Rule T3 holds for each of them."""

    owner: int
    requests: list[int]
    stamps: list[int]


BatchAnswer = Values | Commits
Answer = Value | Rows | Written | Committed | Failed | Refused | Outcome
Message = (
    Read
    | Scan
    | Write
    | CommitAlone
    | OneShot
    | End
    | Heartbeat
    | Push
    | Pushed
    | Resolve
    | Confirm
    | Status
    | Forget
    | Reads
    | CommitsAlone
    | OneShots
    | Forgets
)
