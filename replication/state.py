"""The one mutable object of a replica, and what all its roles need.

A replica holds a log and a promise whatever its role. The role adds a :class:`Lead` or a
:class:`Campaign`; nothing else is kept apart.
"""

from __future__ import annotations

import enum

from msgspec import Struct, field

from replication.closed import Closed
from replication.entries import Entry
from replication.log import Log
from replication.messages import Fenced, Message, Sealed, Send
from replication.persistence import Persist, Saved, Snapshot
from replication.status import Counters
from truetime.interval import Interval
from truetime.timestamp import Stamp

_MS = 1_000_000


class ReplicaSettings(Struct, frozen=True):
    """Lengths and limits of one keyspace's logs.

    ``lease_longest_ns`` must not be below any lease length that was ever in force for this log: a
    restarted voter no longer knows what it promised. ``ahead_max_ns`` is H, the furthest a stamp
    may lie ahead of true time. ``trail_bytes_max`` bounds the memory for entries that a snapshot
    already covers, which spare followers that lag a little that snapshot.
    """

    lease_ns: int = 1_000 * _MS
    lease_longest_ns: int = 1_200 * _MS
    renew_ns: int = 300 * _MS
    resend_ns: int = 150 * _MS
    install_ns: int = 10_000 * _MS
    patience_ns: int = 1_500 * _MS
    hand_over_ns: int = 3_000 * _MS
    ahead_max_ns: int = 60 * _MS
    batch_entries_max: int = 256
    batch_bytes_max: int = 1024 * 1024
    window_entries_max: int = 1024
    window_bytes_max: int = 4 * 1024 * 1024
    uncommitted_entries_max: int = 4096
    join_lag_entries_max: int = 256
    trail_bytes_max: int = 8 * 1024 * 1024

    @property
    def dead_after_ns(self) -> int:
        """After this an epoch that was not activated counts as dead, for liveness only."""
        return 5 * self.lease_longest_ns


class Role(enum.IntEnum):
    """What a replica does beyond holding its log."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2


class Refusal(enum.IntEnum):
    """Why a request of the node above was not taken; nothing has changed."""

    NOT_LEADER = 1
    """No lease, or the own first entry is not committed yet."""
    OVERLOADED = 2
    """Too many entries wait for their majority."""
    EPOCH_USED = 3
    """The epoch is not above the own promise: it belongs to somebody else or an earlier life."""
    CHANGE_PENDING = 4
    """An earlier change of membership is not committed."""
    NOT_ONE_STEP = 5
    """More than one voter would change, or the membership is not well formed."""
    NOT_CAUGHT_UP = 6
    """The new voter's log is too far behind."""
    LEASE_TOO_SHORT = 7
    """Counted in the new membership, the lease would be over."""
    LOST = 8
    """This identity has lost data and may come back only under a new one."""
    NO_MEMBERSHIP = 9
    """The log does not say who votes."""
    HANDING_OVER = 10
    """The lead is being handed to another voter, so nothing new is begun."""
    NO_HEIR = 11
    """The lead can be handed only to another voter."""


class NoteKind(enum.IntEnum):
    """What the driver should know."""

    EPOCH_WANTED = 1
    """No leader is heard; ask the control plane for an epoch above ``epoch``, then campaign."""
    SERVES = 2
    """This replica leads ``epoch``; its low-water stamp is ``stamp``."""
    DEPOSED = 3
    """This replica leads no more; rebuild what was applied ahead from the committed entries."""
    GAVE_UP = 4
    """The campaign for ``epoch`` has ended without success."""
    LOST = 5
    """Data is missing that was acknowledged; this identity is finished."""
    DAMAGED = 6
    """A message whose entries do not form a chain was dropped."""
    STAYED = 7
    """The heir did not follow in time, so this replica goes on leading ``epoch``."""


class Note(Struct, frozen=True, gc=False):
    """One thing that happened."""

    kind: NoteKind
    epoch: int
    stamp: Stamp = 0


class Progress(Struct):
    """What a leader knows of one follower's log; ``heard_ns``: when it last said something.

    ``known``: the follower has acknowledged something in this epoch, up to ``matched_lsn``.
    ``equal_lsn``: it has said that its log is equal up to there. ``round``: counts the times that
    sending began anew; what differs in a round before ``heeded_round`` is known already.
    ``installing_ns``: until then it is busy with a snapshot; 0 if it is not.

    ``asked_ns``: when the answer that is measured was asked for, 0 if none is; it is one that
    reaches ``asked_lsn``. ``round_trip_ns``: how long such answers take, its flushes included.
    """

    next_lsn: int
    heard_ns: int
    matched_lsn: int = 0
    equal_lsn: int = 0
    known: bool = False
    round: int = 0
    sent_ns: int = 0
    installing_ns: int = 0
    commit_sent_lsn: int = 0
    sent_lsn: int = 0
    heeded_round: int = 0
    asked_ns: int = 0
    asked_lsn: int = 0
    round_trip_ns: int = 0


class HandOver(Struct, frozen=True):
    """The leader lets ``heir`` catch up, since ``began_ns``."""

    heir: int
    began_ns: int


class Lead(Struct):
    """A leader's own state.

    ``own_lsn``: its takeover entry. ``ends_ns``: the lease ends that voters have promised.
    """

    epoch: int
    own_lsn: int
    low_water: Stamp
    started_ns: int
    closed: Stamp
    progress: dict[int, Progress] = field(default_factory=dict)
    ends_ns: dict[int, int] = field(default_factory=dict)
    renewed_ns: int = 0
    activated: bool = False
    fenced_ns: int = 0
    leaving: tuple[int, ...] = ()
    handing: HandOver | None = None


class Campaign(Struct):
    """A candidate's own state; ``chosen`` is the answer whose log it takes."""

    epoch: int
    started_ns: int
    answers: dict[int, Sealed] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    asked_ns: int = 0
    chosen: Sealed | None = None


class Ready(Struct, gc=False):
    """What a replica has for its driver.

    ``persist`` must be made durable and reported with ``persisted``. ``sends`` may leave at once:
    nothing in them rests on what is not durable. ``restore``, if there is one, replaces the applied
    state, before ``committed`` is applied.
    """

    persist: Persist | None
    sends: list[Send]
    restore: Snapshot | None
    committed: list[Entry]
    notes: list[Note]


class State:
    """Everything one replica knows."""

    def __init__(
        self, identity: int, saved: Saved, settings: ReplicaSettings, now: Interval
    ) -> None:
        self.identity = identity
        self.settings = settings
        self.now = now
        self.log = Log(saved.snapshot, saved.entries, settings.trail_bytes_max)
        self.promise = saved.promise
        self.promise_taken = saved.promise
        self.promise_durable = saved.promise
        # Lease promises are not on disk. What an earlier life may have promised is bounded here,
        # once: computed anew at each seal, the bound would move and no candidate would see it pass.
        self.earlier_end_ns = now.hi_ns + settings.lease_longest_ns if saved.promise else 0
        self.end_ns = 0  # the end of what this life has promised to the present epoch
        self.released_epoch = 0  # its leader has said that it serves no more
        self.urged_epoch = 0  # its leader has asked this replica to take over
        self.lost = saved.lost
        self.lost_unsaved = False
        self.role = Role.FOLLOWER
        self.lead: Lead | None = None
        self.campaign: Campaign | None = None
        self.leader: int | None = None
        self.outside = False  # a candidate here found that the best log no longer has it vote
        self.seal_sender: int | None = None
        self.verified_lsn = 0
        self.acknowledged_lsn = 0
        self.commit_lsn = saved.snapshot.position.lsn
        self.applied_lsn = 0
        self.closed = Closed()
        self.epoch_seen = saved.promise
        self.heard_ns = now.lo_ns
        self.counters = Counters()
        # How a voter that hears no leader learns whether others do (replication.silence).
        self.listening_since_ns = 0
        self.listened_ns = 0
        self.silent: set[int] = set()
        self.refused_ns = 0
        self.sends: list[Send] = []
        self.notes: list[Note] = []

    def send(self, to: int, message: Message) -> None:
        """Put a message into the next ``Ready``."""
        assert to != self.identity, message
        self.sends.append(Send(to, message))

    def note(self, kind: NoteKind, epoch: int, stamp: Stamp = 0) -> None:
        """Tell the driver."""
        self.notes.append(Note(kind, epoch, stamp))

    def want_epoch(self) -> None:
        """Ask the driver for an epoch, and do not ask again before the patience has run out."""
        self.heard_ns = self.now.lo_ns
        self.note(NoteKind.EPOCH_WANTED, max(self.promise, self.epoch_seen))

    def fence(self, to: int) -> None:
        """Refuse a message of an epoch below the promise."""
        self.send(to, Fenced(self.promise, self.identity))

    def stand_down(self) -> None:
        """Become a follower of nobody; the log stays as it is."""
        if self.lead is not None:
            self.counters.epochs_lost += 1
            self.note(NoteKind.DEPOSED, self.lead.epoch)
        if self.campaign is not None:
            self.note(NoteKind.GAVE_UP, self.campaign.epoch)
        self.role = Role.FOLLOWER
        self.lead = None
        self.campaign = None
        self.leader = None
        self.heard_ns = self.now.lo_ns

    def lose(self) -> None:
        """Acknowledged data is missing, and with it perhaps a promise: take no further part."""
        self.stand_down()
        self.lost_unsaved = not self.lost
        self.lost = True
        self.sends.clear()
        self.note(NoteKind.LOST, self.promise)
