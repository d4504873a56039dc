"""Why a partition refused: the rule, the key, and the other transaction with its stamp
(docs/protocol.md §5.4).

A refusal is a value, not an exception: nothing was done, and the coordinator or client decides what
follows.
"""

from __future__ import annotations

import enum

from msgspec import Struct


class Rule(enum.IntEnum):
    """The rule that refused."""

    UNSPECIFIED = 0
    READ_BY = 1
    """Somebody later has already read what this write would change."""
    CLOSED = 2
    """The stamp is at or below the closed timestamp."""
    LOW_WATER = 3
    """The stamp is below the low-water mark that stands for reads forgotten by a restart or
    takeover.
    """
    CACHE = 4
    """The low-water mark was raised because the read cache was full."""
    FUTURE = 5
    """The stamp lies further ahead than any correct clock could give."""
    HORIZON = 6
    """The stamp is below the horizon of garbage collection."""
    BUSY = 7
    """The deadline passed while an older transaction held an undecided intent on the key."""
    ABORTED = 8
    """The transaction has already been aborted (expired, pushed, or by its own client)."""
    ENDED = 9
    """The transaction has already been committed; nothing can be added to it."""
    NOT_LEADER = 10
    """This replica may not serve: no lease, or it stopped serving."""
    DEADLINE = 11
    """The deadline of the request lies in the past."""
    WRONG_PARTITION = 12
    """The key does not belong to this partition under the present map."""
    MISSING_WRITE = 13
    """A write that the commit counts on is not here."""
    UNCERTAIN = 14
    """A stamp that satisfies every rule would lie further ahead than the clock bound allows."""
    FIELD = 15
    """A condition names a field that the stored value does not have, or that cannot be compared."""
    TOO_LARGE = 16
    """What a one-shot reads is more than one answer can carry."""
    HOMES = 17
    """The transaction touches homes that could be lost apart, so it could be torn."""


class Refusal(Struct, frozen=True, gc=False, array_like=True):
    """One refusal.  ``stamp`` is the mark to pass: a retry with a larger stamp meets this rule no
    more.
    """

    rule: int
    key: bytes = b""
    other: bytes = b""
    stamp: int = 0
