"""The entry of a log and the chain of hashes that makes two logs comparable.

An entry's hash covers everything in it and the hash of the entry before. So two logs that show the
same hash at one LSN are equal up to there, and one comparison finds whether a log diverges. This
module does not know what a payload means.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from msgspec import Struct

from truetime.timestamp import Stamp

HASH_BYTES: Final = 16


class Kind(enum.IntEnum):
    """Who reads the payload."""

    DATA = 0
    """The state machine above."""
    TAKEOVER = 1
    """The first entry of an epoch: low water and leader (:mod:`replication.takeover`)."""
    MEMBERS = 2
    """A membership, encoded (:mod:`replication.membership`)."""


class Position(Struct, frozen=True, gc=False, array_like=True):
    """A place in one particular history: LSN, with the epoch and hash of the entry there."""

    epoch: int
    lsn: int
    hash: bytes

    @property
    def order(self) -> tuple[int, int]:
        """By what logs are compared at a takeover: the epoch of the last entry, then its LSN."""
        return self.epoch, self.lsn


GENESIS: Final = Position(0, 0, bytes(HASH_BYTES))
"""The place before the first entry; LSNs begin at 1."""


class Entry(Struct, frozen=True, gc=False, array_like=True):
    """One record of the log; ``closed``: nobody will write at or below this stamp afterwards."""

    epoch: int
    lsn: int
    kind: int
    closed: Stamp
    payload: bytes
    hash: bytes

    @property
    def position(self) -> Position:
        """Where the entry stands."""
        return Position(self.epoch, self.lsn, self.hash)

    def follows(self, previous: Position) -> bool:
        """Whether this is an undamaged entry that belongs directly behind ``previous``."""
        return (
            self.lsn == previous.lsn + 1
            and self.epoch >= previous.epoch
            and self.hash
            == _hash(previous.hash, self.epoch, self.lsn, self.kind, self.closed, self.payload)
        )


def chain(previous: Position, epoch: int, kind: Kind, closed: Stamp, payload: bytes) -> Entry:
    """A new entry behind ``previous``."""
    lsn = previous.lsn + 1
    digest = _hash(previous.hash, epoch, lsn, kind, closed, payload)
    return Entry(epoch, lsn, int(kind), closed, payload, digest)


def chained(previous: Position, entries: Iterable[Entry]) -> bool:
    """Whether the entries follow ``previous`` and each other."""
    for entry in entries:
        if not entry.follows(previous):
            return False
        previous = entry.position
    return True


def _hash(before: bytes, epoch: int, lsn: int, kind: int, closed: Stamp, payload: bytes) -> bytes:
    head = b"%s%d,%d,%d,%d:" % (before, epoch, lsn, kind, closed)
    return blake2b(head + payload, digest_size=HASH_BYTES).digest()
