"""Rare situations that the protocol has a rule for, counted as they are met (docs/protocol.md §5.8).

They are what naive implementations get wrong.  A count says that a run, of a test or in production,
has been there; it changes nothing about what is done.
"""

from __future__ import annotations

import enum


class Case(enum.IntEnum):
    """One such situation."""

    EXPIRED = 0
    """A transaction that had fallen silent, or lived too long, was aborted by its anchor (11)."""
    SPELLED_OUT = 1
    """A transaction that a batch had committed was asked for by name."""
    PARKED = 2
    """A one-shot waited for the clock, or for an older intent (24)."""
    EVICTED = 3
    """Keys were dropped from memory."""
    OWN_REWRITTEN = 4
    """A transaction replaced its own intent (3)."""
    CLOSED_OVER_OPEN = 5
    """Time was closed above the stamp of an open transaction (9)."""
    SAFE_BELOW_CLOSED = 6
    """A copy shows less than time is closed over, for something is undecided (7)."""
    PUSH_ON_UNKNOWN = 7
    """A push asked about a transaction that nobody here had heard of (13)."""
    WRITE_AFTER_ABORT = 8
    """A write came after its transaction had been aborted (12, 13)."""
    OUTCOME_ASKED = 9
    """Somebody who had lost an answer asked, and there was an outcome (14)."""
    END_REPEATED = 10
    """A decided transaction was to be ended again (14)."""
    WRITE_AFTER_COMMIT = 11
    """A write came again after its transaction had committed (15)."""
    WRITE_REPEATED = 12
    """A write came again while its transaction was open (40)."""
    WRITE_REPEATED_EARLY = 13
    """The same, and the first one was not durable yet (40)."""
    WRITE_OVERTAKEN = 14
    """A write came after a newer one of its transaction to the same key (16, 41)."""
    STARTED_WITH_OPEN = 15
    """A new leader found open transactions (17)."""
    STOPPED_WITH_WAITERS = 16
    """A leader ended while somebody waited there for an intent (19)."""
    TOMBSTONE_COLLECTED = 17
    """A deletion was collected, with all that it covered (25)."""
    SPLIT_OPEN = 18
    """A partition was split while transactions were open on both sides or the right one (26)."""
    VERDICT_BEFORE_WRITE = 19
    """A verdict came for a transaction that nobody here had heard of (30)."""
    FLOOR_ABOVE_CLOCK = 20
    """A session had seen a stamp at or above the next one (33)."""
    WRITE_AFTER_PUSH = 21
    """The first write of a transaction came after a push about it (35)."""
    PUSH_UNDER_WAY = 22
    """A push met a verdict that was not durable yet (37)."""
    ONE_SHOT_AGAIN = 23
    """A one-shot came again (42)."""
    PUSH_ON_DROPPED = 24
    """A push asked about a transaction whose record may have been dropped (43)."""
    CONFIRMED_LATE = 25
    """A record was kept until the last participant had the verdict on disk (43)."""
