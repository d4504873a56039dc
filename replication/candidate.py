"""Taking over: seal a majority, choose the best log, wait for its leases, fetch it, lead.

::

    epoch from the control plane
        |  promise made durable here, then asked of the others
        v
    answers ---> best by (epoch of last entry, LSN) ---> majority of *its* membership?
                                                             | yes: the choice is final
                                +----------------------------+
                                v                            v
                       fetch the log if it is        now.lo past every reported
                       not the own one               lease end, unless all are one's own
                                +-------------+--------------+
                                              v
                                  first entry of the epoch: lead

The membership is the chosen log's, and nobody else's: the newest in any answer may come from a
branch that is dead, and the candidate's own may be out of date.
"""

from __future__ import annotations

from replication import follower, leader
from replication.entries import chained
from replication.messages import Fenced, Fetch, Fetched, Seal, Sealed
from replication.quorum import is_majority
from replication.state import Campaign, NoteKind, Refusal, Role, State
from replication.voter import promise, sealed


def campaign(state: State, epoch: int) -> Refusal | None:
    """Begin a takeover at an epoch the control plane granted to this life of this replica."""
    if state.lost:
        return Refusal.LOST
    if epoch <= state.promise:
        return Refusal.EPOCH_USED
    if not state.log.membership.voters:
        return Refusal.NO_MEMBERSHIP
    promise(state, epoch)
    state.counters.elections_begun += 1
    state.role = Role.CANDIDATE
    state.campaign = Campaign(epoch, state.now.lo_ns, asked_ns=state.now.lo_ns)
    _ask(state, state.campaign, state.log.membership.everyone)
    return None


def _ask(state: State, campaign: Campaign, replicas: tuple[int, ...]) -> None:
    for replica in replicas:
        if replica not in campaign.asked and replica != state.identity:
            campaign.asked.add(replica)
            state.send(replica, Seal(campaign.epoch, state.identity))


def promised(state: State) -> None:
    """The own promise is durable: the own log is an answer like the others."""
    own = state.campaign
    if own is None or state.promise_durable < own.epoch or state.identity in own.answers:
        return
    answer = sealed(state)
    if answer is not None:
        _take(state, own, answer)


def on_sealed(state: State, message: Sealed) -> None:
    """Another replica has bound itself and says what it holds."""
    own = state.campaign
    if own is not None and message.epoch == own.epoch:
        _take(state, own, message)


def _take(state: State, own: Campaign, answer: Sealed) -> None:
    if answer.sender in own.answers:
        return
    own.answers[answer.sender] = answer
    if own.chosen is None:
        _choose(state, own)
    if state.campaign is own:
        proceed(state)


def _choose(state: State, own: Campaign) -> None:
    if state.identity not in own.answers:
        return  # the own log may be the best one
    best = max(
        (own.answers[replica] for replica in sorted(own.answers)),
        key=lambda each: (each.last.order, bool(each.membership.voters)),
    )
    voters = best.membership.voters
    _ask(state, own, best.membership.everyone)
    if not is_majority(voters, own.answers):
        return
    if state.identity not in voters:
        # Until a leader is heard again, trying once more would only disturb those who do vote.
        state.outside = True
        state.stand_down()
        return
    own.chosen = best
    _fetch(state, own)


def _fetch(state: State, own: Campaign) -> None:
    """Ask somebody who holds the chosen log; each time the next of those who do."""
    own.asked_ns = state.now.lo_ns
    assert own.chosen is not None
    if state.log.last == own.chosen.last:
        return
    last = own.chosen.last
    holders = sorted(replica for replica, each in own.answers.items() if each.last == last)
    round_number = (state.now.lo_ns - own.started_ns) // state.settings.resend_ns
    holder = holders[round_number % len(holders)]
    state.send(holder, Fetch(own.epoch, state.identity, state.log.points()))


def fetch(state: State, message: Fetch) -> None:
    """Give a candidate that has chosen this log what it lacks."""
    if message.epoch < state.promise:
        state.fence(message.sender)
        return
    if message.epoch > state.promise:
        return  # not sealed for it: an answer would not be final
    log = state.log
    equal_lsn = log.equal_lsn(message.points)
    start_lsn = log.base.lsn if equal_lsn is None else equal_lsn
    previous = log.position(start_lsn)
    assert previous is not None
    snapshot = log.snapshot if equal_lsn is None else None
    settings = state.settings
    entries = log.batch(start_lsn, settings.batch_entries_max, settings.batch_bytes_max)
    state.send(message.sender, Fetched(message.epoch, state.identity, snapshot, previous, entries))


def fetched(state: State, message: Fetched) -> None:
    """Make the own log agree with the chosen one.

    What is cut here is not committed and cannot be: a majority of the chosen log's membership no
    longer takes anything from the epochs that could have committed it.
    """
    own = state.campaign
    if own is None or message.epoch != own.epoch or own.chosen is None:
        return
    if state.log.last == own.chosen.last:
        return
    if not chained(message.previous, message.entries):
        state.note(NoteKind.DAMAGED, message.epoch)
        return
    if message.snapshot is not None:
        follower.take_snapshot(state, message.snapshot)
    log = state.log
    previous = message.previous
    if previous.lsn >= log.base.lsn and log.position(previous.lsn) != previous:
        return  # an answer to an earlier question
    follower.store(state, message.entries)
    if log.last != own.chosen.last:
        _fetch(state, own)
    proceed(state)


def proceed(state: State) -> None:
    """Lead, when the chosen log is here and every lease that was ever reported has passed.

    A lease need not be waited for where only this replica can have held it (:func:`alone`).
    """
    own = state.campaign
    if own is None or own.chosen is None or state.log.last != own.chosen.last:
        return
    leased_ns = max(answer.end_ns for answer in own.answers.values())
    if state.now.lo_ns <= leased_ns and not alone(state):
        return
    leader.begin(state, max(answer.closed for answer in own.answers.values()))


def alone(state: State) -> bool:
    """Whether the own log shows that no other replica leads an epoch below the promised one.

    It does if this replica is its only voter and led its last epoch itself, or nobody ever led.
    Another leader serves only when its first entry is committed; and what is committed in an epoch
    below the sealed one is in the log of a candidate that has its majority, as the only voter has
    by itself. So that entry would be the last of its kind here. Earlier leaders are over since this
    replica took over from them.

    It follows from the log that a candidate has chosen, not from the one it restarted with: until
    its own seal, another leader may still make this voter one of several.
    """
    log = state.log
    if log.membership.voters != (state.identity,):
        return False
    return log.last.epoch == 0 or log.leader_at(log.last.lsn) == state.identity


def fenced(state: State, message: Fenced) -> None:
    """Somebody is bound to a later epoch, so this one cannot be completed with it."""
    own = state.campaign
    if own is not None and message.epoch > own.epoch:
        state.stand_down()


def tick(state: State) -> None:
    """Ask again, go on when time has passed what was waited for, give up what takes too long."""
    own = state.campaign
    if own is None:
        return
    now, settings = state.now, state.settings
    if now.lo_ns - own.started_ns > settings.dead_after_ns:
        state.stand_down()
        return
    if now.lo_ns - own.asked_ns >= settings.resend_ns:
        own.asked_ns = now.lo_ns
        for replica in sorted(own.asked - set(own.answers)):
            state.send(replica, Seal(own.epoch, state.identity))
        if own.chosen is not None:
            _fetch(state, own)
    proceed(state)
