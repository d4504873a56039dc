"""Leading an epoch: append, replicate, commit by majority, hold the lease, change the membership.

The leader counts its own log like any other voter's, when it is durable. An entry of an earlier
epoch never commits by being counted; it stands when an entry of this epoch behind it does.
"""

from __future__ import annotations

from replication.entries import Kind, chain
from replication.membership import Membership, encode
from replication.messages import (
    Appended,
    CampaignNow,
    CloseBeat,
    Differs,
    Fenced,
    Released,
    Renew,
    Renewed,
)
from replication.quorum import reached
from replication.sending import followers, heard, send_again
from replication.state import Lead, NoteKind, Progress, Refusal, Role, State
from replication.takeover import Takeover
from replication.takeover import encode as encode_takeover
from replication.voter import lend, release
from truetime.interval import Interval
from truetime.timestamp import BOUNDARY_ORACLE, EPOCH_NS, TICK_NS, Stamp, floor, pack


def begin(state: State, closed: Stamp) -> None:
    """Lead the promised epoch, from a log that holds everything committed.

    No earlier leader serves any more. Stamps that they served lie at most H ahead of true time, and
    so does what they closed; the low-water mark in the first entry stands above both.
    """
    assert state.promise_durable == state.promise, (state.promise_durable, state.promise)
    ahead = pack(state.now.hi_ns + state.settings.ahead_max_ns, BOUNDARY_ORACLE)
    closed = max(closed, state.closed.known)
    low_water = max(ahead, closed + 1)
    epoch = state.promise
    state.role = Role.LEADER
    state.campaign = None
    state.leader = state.identity
    state.lead = Lead(epoch, state.log.last.lsn + 1, low_water, state.now.lo_ns, closed)
    takeover = Takeover(low_water, state.identity)
    _append(state, state.lead, Kind.TAKEOVER, encode_takeover(takeover))
    _renew(state, state.lead)


def _append(state: State, lead: Lead, kind: Kind, payload: bytes) -> int:
    entry = chain(state.log.last, lead.epoch, kind, lead.closed, payload)
    state.log.append(entry)
    for replica in followers(state, lead):
        if replica not in lead.progress:
            lead.progress[replica] = Progress(
                entry.lsn, heard_ns=state.now.lo_ns, equal_lsn=entry.lsn - 1
            )
    state.closed.known = max(state.closed.known, lead.closed)
    return entry.lsn


# -- what the node above asks for ------------------------------------------------------------------


def serves(state: State, now: Interval) -> bool:
    """Whether reads and acknowledgements may be given at this moment.

    To be asked in the same turn that looks up and answers, with nothing awaited in between.
    """
    lead = state.lead
    return lead is not None and state.applied_lsn >= lead.own_lsn and now.hi_ns < lease_end(state)


def lease_end(state: State) -> int:
    """When the lease ends that a majority of the log's newest membership has promised."""
    lead = state.lead
    return 0 if lead is None else reached(state.log.membership.voters, lead.ends_ns)


def propose(state: State, payload: bytes, closed: Stamp) -> int | Refusal:
    """Append an entry; returns its LSN. It stands when it comes back as committed.

    ``closed`` is promised no further than H ahead of the earliest that now may be, however large
    it is: every successor's low water lies above that.
    """
    lead = state.lead
    if lead is None or not serves(state, state.now):
        return Refusal.NOT_LEADER
    if lead.handing is not None:
        return Refusal.HANDING_OVER
    if _vacant(state) <= 0:
        return Refusal.OVERLOADED
    _close(state, lead, closed)
    return _append(state, lead, Kind.DATA, payload)


def room(state: State) -> int:
    """How many entries may be proposed before the next one that is committed; 0 for others."""
    lead = state.lead
    if lead is None or lead.handing is not None or not serves(state, state.now):
        return 0
    return max(0, _vacant(state))


def _vacant(state: State) -> int:
    return state.settings.uncommitted_entries_max - (state.log.last.lsn - state.commit_lsn)


def close(state: State, closed: Stamp) -> bool:
    """Announce a closed timestamp without an entry; False if this replica may not."""
    lead = state.lead
    if lead is None or not serves(state, state.now):
        return False
    _close(state, lead, closed)
    lsn = state.log.last.lsn  # the last one enqueued: a smaller one could leave a write behind it
    state.closed.hear(lsn, lead.closed, state.applied_lsn)
    for replica in followers(state, lead):
        beat = CloseBeat(lead.epoch, state.identity, lsn, lead.closed, state.commit_lsn)
        state.send(replica, beat)
    return True


def _close(state: State, lead: Lead, closed: Stamp) -> None:
    # A successor begins later in true time, so its low water, H above the latest that now may be,
    # is above this bound: also where it learns nothing of what was closed, and waits for no lease.
    ahead_ns = state.now.lo_ns + state.settings.ahead_max_ns
    bound = floor(ahead_ns) - 1 if ahead_ns > EPOCH_NS + TICK_NS else 0
    lead.closed = max(lead.closed, min(closed, bound))


def change(state: State, new: Membership) -> int | Refusal:
    """Append a new membership; returns its LSN. It counts from now on."""
    lead = state.lead
    if lead is None or not serves(state, state.now):
        return Refusal.NOT_LEADER
    if lead.handing is not None:
        return Refusal.HANDING_OVER
    old = state.log.membership
    if not new.well_formed() or not old.step_to(new):
        return Refusal.NOT_ONE_STEP
    # That the own first entry is committed, which a change needs as well, is part of serving.
    if state.log.membership_lsn > state.commit_lsn:
        return Refusal.CHANGE_PENDING
    lag_max = state.settings.join_lag_entries_max
    for replica in sorted(set(new.voters) - set(old.voters)):
        progress = lead.progress.get(replica)
        if progress is None or progress.matched_lsn + lag_max < state.commit_lsn:
            return Refusal.NOT_CAUGHT_UP
    if reached(new.voters, lead.ends_ns) <= state.now.hi_ns:
        return Refusal.LEASE_TOO_SHORT
    lead.leaving = tuple(sorted(set(old.everyone) - set(new.everyone)))
    lsn = _append(state, lead, Kind.MEMBERS, encode(new))
    count(state)
    return lsn


# -- what the followers say ------------------------------------------------------------------------


def appended(state: State, message: Appended) -> None:
    """A follower's durable log has grown."""
    lead = state.lead
    if lead is None or message.epoch != lead.epoch or message.lsn > state.log.last.lsn:
        return
    progress = lead.progress.get(message.sender)
    if progress is None:
        return
    heard(state, progress, message.lsn)
    progress.known = True
    progress.installing_ns = 0
    progress.matched_lsn = max(progress.matched_lsn, message.lsn)
    progress.next_lsn = max(progress.next_lsn, message.lsn + 1)
    count(state)


def differs(state: State, message: Differs) -> None:
    """A follower lacks what was sent: begin again from the last position both have."""
    lead = state.lead
    if lead is None or message.epoch != lead.epoch:
        return
    progress = lead.progress.get(message.sender)
    if progress is None or message.round < progress.heeded_round:
        return
    heard(state, progress, progress.asked_lsn)
    equal_lsn = state.log.equal_lsn(message.points)
    # Without a common point only a snapshot helps, which is sent for any place before the log's.
    progress.equal_lsn = max(equal_lsn or 0, progress.matched_lsn)
    found = progress.known or equal_lsn is not None
    progress.next_lsn = progress.equal_lsn + 1 if found else 0
    # What was sent before this is answered by it. What was merely sent again is not: an answer that
    # takes longer than the repetition is as good as any, since equal logs stay equal in an epoch.
    progress.round += 1
    progress.heeded_round = progress.round


def renewed(state: State, message: Renewed) -> None:
    """A voter has promised a lease; one that was restarted is told anew how far its log stands."""
    lead = state.lead
    if lead is None or message.epoch != lead.epoch:
        return
    end_ns = lead.ends_ns.get(message.sender, 0)
    lead.ends_ns[message.sender] = max(end_ns, message.end_ns)
    progress = lead.progress.get(message.sender)
    if progress is not None:
        progress.heard_ns = state.now.lo_ns
        if message.verified_lsn < progress.matched_lsn:
            # In one life it never falls behind what it has acknowledged.
            progress.commit_sent_lsn = 0
    _note_serving(state, lead)


def fenced(state: State, message: Fenced) -> None:
    """Somebody is bound to a later epoch: its candidate has some time to take over."""
    lead = state.lead
    if lead is not None and message.epoch > lead.epoch and not lead.fenced_ns:
        lead.fenced_ns = state.now.lo_ns


# -- committing ------------------------------------------------------------------------------------


def count(state: State) -> None:
    """Commit what a majority of the newest membership holds durably."""
    lead = state.lead
    if lead is None:
        return
    log = state.log
    marks = {replica: each.matched_lsn for replica, each in lead.progress.items()}
    marks[state.identity] = log.durable_lsn
    lsn = reached(log.membership.voters, marks)
    if lsn <= state.commit_lsn:
        return
    position = log.position(lsn)
    assert position is not None, lsn
    if position.epoch == lead.epoch:
        state.commit_lsn = lsn


def settle(state: State) -> None:
    """After entries were applied: begin to serve, or leave if this replica has removed itself."""
    lead = state.lead
    if lead is None:
        return
    log = state.log
    _note_serving(state, lead)
    if state.identity not in log.membership.voters and log.membership_lsn <= state.commit_lsn:
        resign(state, _most_advanced(state, lead))


def resign(state: State, heir: int | None = None) -> None:
    """Stop leading, and say so: to the heir that it may begin, to all that no lease is left.

    In this order: what is said is true, and stays true, because the epoch is not led again.
    """
    lead = state.lead
    assert lead is not None
    replicas = followers(state, lead)
    state.stand_down()
    release(state, lead.epoch)
    for replica in replicas:
        state.send(replica, Released(lead.epoch, state.identity))
    if heir is not None:
        state.send(heir, CampaignNow(lead.epoch, state.identity))


def _most_advanced(state: State, lead: Lead) -> int:
    voters = state.log.membership.voters
    return max(voters, key=lambda each: (lead.progress[each].matched_lsn, -each))


def _note_serving(state: State, lead: Lead) -> None:
    if not lead.activated and serves(state, state.now):
        lead.activated = True
        state.counters.elections_won += 1
        state.note(NoteKind.SERVES, lead.epoch, lead.low_water)


# -- time ------------------------------------------------------------------------------------------


def tick(state: State) -> None:
    """Renew the lease, send again what may be lost, and end what is over."""
    lead = state.lead
    if lead is None:
        return
    now, settings = state.now, state.settings
    _note_serving(state, lead)
    over = now.hi_ns >= lease_end(state)
    stale = not lead.activated and now.lo_ns - lead.started_ns > settings.dead_after_ns
    fenced_out = lead.fenced_ns and now.lo_ns - lead.fenced_ns > settings.dead_after_ns
    if (lead.activated and over) or stale or fenced_out:
        resign(state)
        return
    if now.lo_ns - lead.renewed_ns >= settings.renew_ns:
        _renew(state, lead)
    for replica in followers(state, lead):
        send_again(state, lead, replica, lead.progress[replica])


def _renew(state: State, lead: Lead) -> None:
    lead.renewed_ns = state.now.lo_ns
    lead.ends_ns[state.identity] = lend(state)
    for replica in followers(state, lead):
        state.send(replica, Renew(lead.epoch, state.identity))
