"""A replica of one log as a machine: ``receive`` messages, ``tick`` time, take what is ``ready``,
report what is ``persisted``.

The driver's duties:

1. any number of :meth:`Replica.receive`, :meth:`Replica.tick` and requests of the node above;
2. :meth:`Replica.ready`: make its ``persist`` durable, after all earlier ones; send its messages,
   which may leave at once; apply what it commits;
3. when a ``persist`` is durable: :meth:`Replica.persisted`, and :meth:`Replica.ready` again for
   the answers and entries that waited.

Answers to clients need :meth:`Replica.serves` in the very turn that looks up and answers. Epochs
come from the control plane, each to one life of one replica, ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from replication import candidate, follower, hand_over, leader, sending, silence, voter
from replication.entries import Entry, Position, chained
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
    Silent,
)
from replication.persistence import Saved, Snapshot
from replication.state import Ready, Refusal, ReplicaSettings, Role, State
from replication.status import Counters, FollowerStatus
from truetime.interval import Interval
from truetime.timestamp import Stamp


def _fenced(state: State, message: Fenced) -> None:
    state.epoch_seen = max(state.epoch_seen, message.epoch)
    candidate.fenced(state, message)
    leader.fenced(state, message)


_HANDLERS: dict[type, Callable[[State, Any], None]] = {
    Append: follower.append,
    Install: follower.install,
    CloseBeat: follower.close_beat,
    Renew: voter.renew,
    Seal: voter.seal,
    Fetch: candidate.fetch,
    Appended: leader.appended,
    Differs: leader.differs,
    Renewed: leader.renewed,
    Sealed: candidate.on_sealed,
    Fetched: candidate.fetched,
    Fenced: _fenced,
    CampaignNow: hand_over.campaign_now,
    Released: voter.released,
    Listen: silence.listen,
    Silent: silence.silent,
}


class Replica:
    """One replica of one log.

    ``identity`` is never used again once its data is lost. ``applied`` is where the state that the
    driver already has stands, if it keeps one: a log that does not contain it has lost data.
    """

    def __init__(
        self,
        identity: int,
        saved: Saved,
        settings: ReplicaSettings,
        now: Interval,
        applied: Position | None = None,
    ) -> None:
        assert settings.lease_ns <= settings.lease_longest_ns, settings
        state = self.state = State(identity, saved, settings, now)
        log = state.log
        intact = chained(saved.snapshot.position, saved.entries)
        if applied is not None and applied.lsn >= log.base.lsn:
            intact = intact and log.position(applied.lsn) == applied
        if not intact or state.lost:
            state.lose()
            return
        if applied is not None:
            state.applied_lsn = applied.lsn
            state.commit_lsn = max(state.commit_lsn, applied.lsn)
            inside = [entry.closed for entry in saved.entries if entry.lsn <= applied.lsn]
            if applied.lsn >= log.base.lsn:
                state.closed.apply(applied.lsn, max([saved.snapshot.closed, *inside]))
        if candidate.alone(state):
            # Nobody else can lead, so there is nobody to listen for.
            state.heard_ns = now.lo_ns - settings.patience_ns - 1
        state.closed.known = max(
            [saved.snapshot.closed, *(entry.closed for entry in saved.entries)]
        )

    # -- the machine -------------------------------------------------------------------------------

    def receive(self, message: Message, now: Interval) -> None:
        """Take one message of another replica of this log."""
        state = self.state
        state.now = now
        if state.lost:
            return
        _HANDLERS[type(message)](state, message)

    def tick(self, now: Interval) -> None:
        """Let time pass; every 10 to 50 ms is enough."""
        state = self.state
        state.now = now
        if state.lost:
            return
        leader.tick(state)
        hand_over.tick(state)
        candidate.tick(state)
        silence.tick(state)

    def ready(self) -> Ready:
        """Take what has gathered."""
        state = self.state
        hand_over.step(state)
        restore, committed = self._apply()
        leader.settle(state)
        sending.replicate(state)
        persist = state.log.take(
            state.promise, promised_before=state.promise_taken, lost=state.lost_unsaved
        )
        state.promise_taken = state.promise
        state.lost_unsaved = False
        result = Ready(persist, state.sends, restore, committed, state.notes)
        state.sends = []
        state.notes = []
        return result

    def _apply(self) -> tuple[Snapshot | None, list[Entry]]:
        """What stands, and is durable here as well, so that the state never runs ahead of the log.

        Entries that have not reached a majority are never handed out: a takeover may drop them.
        """
        state = self.state
        log = state.log
        restore = None
        if state.applied_lsn < log.base.lsn <= log.durable_lsn:
            restore = log.snapshot
            state.applied_lsn = restore.position.lsn
            state.closed.apply(state.applied_lsn, restore.closed)
        limit_lsn = min(state.commit_lsn, log.durable_lsn)
        if state.applied_lsn < log.base.lsn or state.applied_lsn >= limit_lsn:
            return restore, []
        committed = log.after(state.applied_lsn, limit_lsn - state.applied_lsn)
        for entry in committed:
            state.closed.apply(entry.lsn, entry.closed)
        state.applied_lsn = limit_lsn
        return restore, committed

    def persisted(self, token: int, now: Interval) -> None:
        """Everything up to the ``Persist`` with this token is durable."""
        state = self.state
        state.now = now
        if state.lost:
            return
        state.promise_durable = max(state.promise_durable, state.log.landed(token))
        if state.lead is not None:
            leader.count(state)
        voter.answer_seal(state)
        follower.acknowledge(state)
        candidate.promised(state)

    # -- the node above ----------------------------------------------------------------------------

    def campaign(self, epoch: int, now: Interval) -> Refusal | None:
        """Try to lead ``epoch``; None if the attempt has begun."""
        self.state.now = now
        return candidate.campaign(self.state, epoch)

    def propose(self, payload: bytes, closed: Stamp, now: Interval) -> int | Refusal:
        """Append a payload, after which nothing is written at or below ``closed``: its LSN."""
        self.state.now = now
        return leader.propose(self.state, payload, closed)

    def room(self, now: Interval) -> int:
        """How many payloads :meth:`propose` takes in this turn; 0 where it would take none.

        To be asked before an entry is built, so that a request waits instead of being refused.
        """
        self.state.now = now
        return leader.room(self.state)

    def close(self, closed: Stamp, now: Interval) -> bool:
        """Announce ``closed`` without an entry, bound to the last one appended."""
        self.state.now = now
        return leader.close(self.state, closed)

    def change(self, membership: Membership, now: Interval) -> int | Refusal:
        """Append a new membership, one voter away from the present one: its LSN."""
        self.state.now = now
        return leader.change(self.state, membership)

    def compact(self, lsn: int, content: bytes) -> None:
        """Let ``content``, the state after applying ``lsn``, stand for the entries up to there."""
        state = self.state
        assert lsn <= state.applied_lsn, (lsn, state.applied_lsn)
        if lsn > state.log.base.lsn:
            [entry] = state.log.after(lsn - 1, 1)
            state.log.compact(lsn, entry.closed, content)

    def saved(self) -> Saved:
        """The whole state as it will be durable once everything taken with `ready` is."""
        state = self.state
        log = state.log
        entries = tuple(log.after(log.base.lsn, log.last.lsn - log.base.lsn))
        return Saved(log.snapshot, state.promise, entries, state.lost)

    def stand_down(self, now: Interval) -> None:
        """Stop leading or campaigning, for example before this node stops.

        What :meth:`ready` then sends spares the next leader the wait for the lease.
        """
        state = self.state
        state.now = now
        if state.lead is not None:
            leader.resign(state)
        else:
            state.stand_down()

    def hand_over(self, to: int, now: Interval) -> Refusal | None:
        """Hand the lead to the voter ``to``; None if that has begun.

        From now on nothing is proposed here. When ``to`` has everything, this replica is deposed
        and ``to`` wants an epoch; if that takes longer than ``hand_over_ns``, it stays leader and
        notes ``STAYED``.
        """
        self.state.now = now
        return hand_over.hand_over(self.state, to)

    # -- looking -----------------------------------------------------------------------------------

    def serves(self, now: Interval) -> bool:
        """Whether this replica may answer reads and acknowledge writes at this moment."""
        return leader.serves(self.state, now)

    @property
    def lease_end_ns(self) -> int:
        """When a leader's lease ends; 0 for others."""
        return leader.lease_end(self.state)

    def safe(self, pending: Stamp | None) -> Stamp:
        """Reads at or below this stamp may be answered from the applied state, in any role.

        ``pending``: the smallest stamp of an undecided intent in the applied state; None for none.
        """
        return self.state.closed.safe(pending)

    @property
    def counters(self) -> Counters:
        """What has happened in this life; to be read, not changed."""
        return self.state.counters

    def followers(self) -> list[FollowerStatus]:
        """What a leader knows of its followers, as of the last turn; others know nothing."""
        return sending.statuses(self.state)

    @property
    def role(self) -> Role:
        """What this replica does at present."""
        return self.state.role

    @property
    def leader(self) -> int | None:
        """Whom this replica takes for the leader."""
        return self.state.leader

    @property
    def epoch(self) -> int:
        """The epoch this replica is bound to."""
        return self.state.promise

    @property
    def membership(self) -> Membership:
        """The newest membership in the log."""
        return self.state.log.membership

    @property
    def applied_lsn(self) -> int:
        """How far entries have been handed out for applying."""
        return self.state.applied_lsn

    @property
    def commit_lsn(self) -> int:
        """How far the log is known to stand."""
        return self.state.commit_lsn
