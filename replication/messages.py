"""What replicas of one log say to each other: plain values, encodable as msgpack.

Every message names its sender and, but for two, the epoch it belongs to. Any of them may be lost, repeated,
delayed or overtaken by another; none of the rules counts on order.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from replication.entries import Entry, Position
from replication.membership import Membership
from replication.persistence import Snapshot
from truetime.timestamp import Stamp


class Append(Struct, frozen=True, gc=False, array_like=True, tag=1):
    """From the leader: these entries follow ``previous``; entries up to ``commit_lsn`` stand.

    ``round`` comes back in :class:`Differs`. ``matched_lsn`` is what this receiver has acknowledged
    in this epoch; a receiver that holds less has lost data.
    """

    epoch: int
    sender: int
    round: int
    previous: Position
    entries: list[Entry]
    commit_lsn: int
    matched_lsn: int


class Install(Struct, frozen=True, array_like=True, tag=2):
    """From the leader, to one whose log ends before the leader's begins: a whole state."""

    epoch: int
    sender: int
    snapshot: Snapshot
    commit_lsn: int


class Appended(Struct, frozen=True, gc=False, array_like=True, tag=3):
    """The sender holds everything the leader has up to ``lsn``, durably."""

    epoch: int
    sender: int
    lsn: int


class Differs(Struct, frozen=True, gc=False, array_like=True, tag=4):
    """The sender does not have what an append should follow; it has these points."""

    epoch: int
    sender: int
    round: int
    points: list[Position]


class Renew(Struct, frozen=True, gc=False, array_like=True, tag=5):
    """From the leader: promise another lease."""

    epoch: int
    sender: int


class Renewed(Struct, frozen=True, gc=False, array_like=True, tag=6):
    """The sender promises to keep candidates waiting until ``end_ns``, counted on its own clock.

    Up to ``verified_lsn`` it has found its log equal to the leader's; one that has been restarted
    has found nothing yet, and applies nothing until it is sent something.
    """

    epoch: int
    sender: int
    end_ns: int
    verified_lsn: int


class CloseBeat(Struct, frozen=True, gc=False, array_like=True, tag=7):
    """From the leader: no write at or below ``closed`` follows ``lsn``, its last entry."""

    epoch: int
    sender: int
    lsn: int
    closed: Stamp
    commit_lsn: int


class Seal(Struct, frozen=True, gc=False, array_like=True, tag=8):
    """From a candidate: promise to take nothing from lower epochs, and say what you hold."""

    epoch: int
    sender: int


class Sealed(Struct, frozen=True, array_like=True, tag=9):
    """The promise is durable; this is the end of the sender's durable log.

    ``end_ns`` is the largest lease end the sender may ever have promised, to whichever epoch.
    ``closed`` is the largest closed timestamp it knows. ``membership`` is its log's newest.
    """

    epoch: int
    sender: int
    last: Position
    end_ns: int
    closed: Stamp
    membership: Membership


class Fetch(Struct, frozen=True, gc=False, array_like=True, tag=10):
    """From a candidate that has chosen the receiver's log; it has these points."""

    epoch: int
    sender: int
    points: list[Position]


class Fetched(Struct, frozen=True, array_like=True, tag=11):
    """A piece of the chosen log: ``entries`` follow ``previous``, or follow the snapshot."""

    epoch: int
    sender: int
    snapshot: Snapshot | None
    previous: Position
    entries: list[Entry]


class Fenced(Struct, frozen=True, gc=False, array_like=True, tag=12):
    """A message of an earlier epoch was refused: the sender has promised ``epoch``."""

    epoch: int
    sender: int


class CampaignNow(Struct, frozen=True, gc=False, array_like=True, tag=13):
    """From the leader, to a voter that has everything: it leads no more, and you shall."""

    epoch: int
    sender: int


class Released(Struct, frozen=True, gc=False, array_like=True, tag=14):
    """From the leader of ``epoch``: nothing is served in it any more, so its leases are over."""

    epoch: int
    sender: int


class Listen(Struct, frozen=True, gc=False, array_like=True, tag=15):
    """From a voter that has heard no leader since its ``since_ns``: do you hear one?"""

    since_ns: int
    sender: int


class Silent(Struct, frozen=True, gc=False, array_like=True, tag=16):
    """The sender hears no leader either."""

    since_ns: int
    sender: int


Message: TypeAlias = (
    Append
    | Install
    | Appended
    | Differs
    | Renew
    | Renewed
    | CloseBeat
    | Seal
    | Sealed
    | Fetch
    | Fetched
    | Fenced
    | CampaignNow
    | Released
    | Listen
    | Silent
)


class Send(Struct, frozen=True, gc=False):
    """A message and the replica it goes to."""

    to: int
    message: Message
