"""A log that survives a machine or a region: who may append, who holds what, what is safe to read.

One partition has one log, and the log has replicas. Voters decide by majority what stands; learners
only follow, in any region. One voter leads, under an epoch that the control plane granted once::

    leader 1     e1 e2 e3 | e4 e5            follower 2          learner 4 (far away)
                          ^ commit
       |-- append e4 e5 behind e3, commit 3 -->|                      |
       |                                       |- flush               |
       |<------------- appended 5 -------------|                      |
       |- majority: commit 5                   |                      |
       |-- append nothing behind e5, commit 5 ->|  applies e4 e5       |
       |-- append e4 e5 behind e3, commit 5 ------------------------->|  applies when on its disk

ENTRIES (:mod:`~replication.entries`) carry their epoch, their LSN and a hash over themselves and
everything before. Two logs with equal hashes at one LSN are equal up to there, so a follower's log
is compared at one position, and catching up begins at the last equal one
(:mod:`~replication.log`, :mod:`~replication.follower`).

SILENCE (:mod:`~replication.silence`) has to be agreed on: a voter wants an epoch when a majority hears
no leader.

EPOCHS bind. A replica that has promised an epoch (:mod:`~replication.voter`) takes nothing from a
lower one, acknowledges nothing to it, and does not lead in it. The promise is on disk before anybody
hears of it. So a candidate that has *sealed* a majority knows that nothing more can commit behind
its back, and among the answers is everything that ever did
(:mod:`~replication.candidate`)::

    1   e1:1 e1:2 e1:3 e1:4      the longest, left over from epoch 1: not it
    2   e1:1 e2:2                highest epoch, then highest LSN: this one
    3   e1:1                     2 and 3 are a majority in the membership of 2's log
            `-- 1 drops what differs from here when it hears the new leader

LEASES let the leader answer reads without asking anybody (:mod:`~replication.leader`). Each voter
promises to keep candidates waiting until an end, which it counts from the earliest that its own
clock says now may be. The leader stops when the latest that now may be reaches the end that a
majority has promised; a candidate begins when the earliest is past every end it was told::

    voter's clock      [lo     hi]
    promise             lo + lease -------------------->| end
    old leader serves while                     [..hi]  |
    new leader begins when                              |  [lo..]

A voter does not write lease promises down. After a restart it reports the latest it can have
promised, counted once.

LOW WATER: the first entry of an epoch carries a stamp H above now. Everything that earlier leaders
showed to readers or closed lies below it, and the new leader writes only above.

MEMBERSHIP (:mod:`~replication.membership`) stands in the log and changes by one voter at a time. It
counts from its append on, for commits and for the lease; a takeover counts in the membership of
the log it chose.

CLOSED TIMESTAMPS (:mod:`~replication.closed`) promise that no write at or below them follows a
certain LSN. A replica that has applied that LSN serves reads below them, unless an undecided intent
lies lower: ``safe = min(closed, pending - 1)``.

THE MACHINE (:class:`~replication.replica.Replica`) does no I/O::

    message, tick, request ---> Replica ---> ready(): persist   to the disk, in order
                                   ^                  sends     may leave at once
                                   |                  restore   a state from a snapshot
    persisted(token) --------------+                  committed entries to apply
                                                      notes     an epoch is wanted, serving, deposed

An applied entry is committed *and* on the own disk. So the applied state never runs ahead of the
log, a deposed leader need not rewind what it has applied from here, and a restart forgets nothing
that was applied.

HANDING OVER (:mod:`~replication.hand_over`) moves the lead to a voter that has everything. The old
leader ends its lead first and says so; its voters then report no lease, and nobody waits for one.

HOME LEASES (:mod:`~replication.home`) are a machine of their own beside it: regions promise a home,
whose quorum is all inside, to join no promotion for a while. Only while a majority has does it serve.

What stays outside: granting epochs, moving bytes, splitting partitions, and where a promoted region
cuts the old home's log. The rules are Viewstamped Replication's and Raft's (Oki and Liskov, 1988;
Ongaro and Ousterhout, 2014) with leases on bounded clocks; ours are in docs/protocol.md §5.6a.
"""

from replication.entries import GENESIS, HASH_BYTES, Entry, Kind, Position, chain
from replication.home import (
    HomeLease,
    HomeNote,
    HomeNoteKind,
    HomePersist,
    HomeReady,
    HomeSettings,
)
from replication.home_messages import (
    HomeFenced,
    HomeMessage,
    HomeRenew,
    HomeRenewed,
    HomeSend,
    HomeStop,
    HomeStopped,
)
from replication.membership import Membership
from replication.messages import (
    Append,
    Appended,
    CampaignNow,
    CloseBeat,
    Differs,
    Fenced,
    Fetch,
    Fetched,
    Install,
    Listen,
    Message,
    Released,
    Renew,
    Renewed,
    Seal,
    Sealed,
    Send,
    Silent,
)
from replication.persistence import Persist, Saved, Snapshot
from replication.replica import Replica
from replication.state import Note, NoteKind, Ready, Refusal, ReplicaSettings, Role
from replication.status import Counters, FollowerStatus

__all__ = [
    "GENESIS",
    "HASH_BYTES",
    "Append",
    "Appended",
    "CampaignNow",
    "CloseBeat",
    "Counters",
    "Differs",
    "Entry",
    "Fenced",
    "Fetch",
    "Fetched",
    "FollowerStatus",
    "HomeFenced",
    "HomeLease",
    "HomeMessage",
    "HomeNote",
    "HomeNoteKind",
    "HomePersist",
    "HomeReady",
    "HomeRenew",
    "HomeRenewed",
    "HomeSend",
    "HomeSettings",
    "HomeStop",
    "HomeStopped",
    "Install",
    "Kind",
    "Listen",
    "Membership",
    "Message",
    "Note",
    "NoteKind",
    "Persist",
    "Position",
    "Ready",
    "Refusal",
    "Released",
    "Renew",
    "Renewed",
    "Replica",
    "ReplicaSettings",
    "Role",
    "Saved",
    "Seal",
    "Sealed",
    "Send",
    "Silent",
    "Snapshot",
    "chain",
]
