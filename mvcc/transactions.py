"""What a partition knows of one transaction.

::

                 Write                End(commit), or CommitAlone         durable
    (unknown) ─────────► ACTIVE ────────────────────────────► COMMITTING ─────────► COMMITTED
        │                  │ End(abort), expiry, Status(decide)
        │ Push             └───────────────► ABORTING ─────────► ABORTED
        ▼                                              durable      ▲
    PLACEHOLDER ────────────────────────────────────────────────────┘
                 nobody has written by the expiry of the heartbeat

Only the anchor decides (first decision wins; docs/protocol.md §5.8 case 37).  A participant moves
from ACTIVE to the verdict it is told.  Nothing leaves COMMITTED or ABORTED.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from mvcc.messages import Failed, OneShot, Read, Scan, Span, Write

Waiter = Read | Scan | Write | OneShot
"""A request that waits for the verdict on an older transaction."""


class Verdict(enum.IntEnum):
    """What is known of a transaction's outcome."""

    UNKNOWN = 0
    COMMITTED = 1
    ABORTED = 2
    GONE = 3
    """The record was dropped: whoever is owed an answer has had it."""


ACTIVE = 0
COMMITTING = 1
COMMITTED = 2
ABORTING = 3
ABORTED = 4
PLACEHOLDER = 5
FAILED = 6
"""A one-shot whose condition did not hold; kept so that a repeated request gets the same answer."""


class Local(Struct, gc=False):
    """One partition's part of one transaction.

    ``anchor`` is the key that places the transaction's record (b"" for a transaction with one
    participant). ``keys`` are those with an intent here; ``sequences`` the sequence numbers of
    writes that came ahead of the commit. ``lsn``: the log entry of its latest record.  ``seen_ns``:
    the last sign of life.  ``values``: a one-shot's reads. ``requests`` and ``questions``: who
    waits for the outcome (End, CommitAlone, OneShot; Status).  ``pushes``: keys of the participants
    that pushed.  ``unconfirmed``: spans of participants that do not have the verdict on disk yet.
    """

    txn: bytes
    stamp: int
    state: int
    anchor: bytes
    keys: list[bytes]
    lsn: int = 0
    seen_ns: int = 0
    pushed_ns: int = 0
    sequences: set[int] | None = None
    values: list[tuple[int, bytes | None]] | None = None
    failed: Failed | None = None
    requests: list[int] | None = None
    questions: list[int] | None = None
    waiters: list[Waiter] | None = None
    pushes: list[bytes] | None = None
    participants: list[Span] | None = None
    unconfirmed: list[Span] | None = None
    acknowledged: bool = False

    @property
    def decided(self) -> bool:
        """Whether the outcome can be told."""
        return self.state in (COMMITTED, ABORTED, FAILED)

    @property
    def committing(self) -> bool:
        """Whether it is committed, or will be when its log entry is durable."""
        return self.state in (COMMITTING, COMMITTED)

    @property
    def verdict(self) -> Verdict:
        """The outcome as others may hear it."""
        if self.state == COMMITTED:
            return Verdict.COMMITTED
        if self.state in (ABORTED, FAILED):
            return Verdict.ABORTED
        return Verdict.UNKNOWN
