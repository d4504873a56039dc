"""Transaction records, pushes and verdicts across partitions (docs/protocol.md §5.5).

A transaction with several participants is decided at its *anchor*, the partition of the first key
it wrote::

    coordinator        anchor            participant
        │  End(commit)   │                    │
        ├───────────────►│ log Decided        │
        │                │ durable: first decision stands for good
        │◄───Committed───┤                    │
        │                ├──Resolve──────────►│ intents become versions
        │                │                    │ log Resolved
        │                │◄─────────Confirm───┤ durable

Whoever meets an undecided intent may *push*: ask the anchor.  The anchor holds a push until it
knows, or aborts what has been silent too long.  A verdict is durable before anyone hears it, with
one exception that needs no log write: a transaction nobody has heard of is aborted in memory,
because the low-water mark of a restart refuses its late writes.
"""

from __future__ import annotations

from mvcc.cases import Case
from mvcc.messages import (
    Confirm,
    End,
    Forget,
    Heartbeat,
    OneShot,
    Outcome,
    Push,
    Pushed,
    Refused,
    Resolve,
    Span,
    Status,
)
from mvcc.ranges import UNBOUNDED
from mvcc.records import Decided, Resolved
from mvcc.refusals import Rule
from mvcc.state import State, answer_for
from mvcc.transactions import (
    ABORTED,
    ABORTING,
    ACTIVE,
    COMMITTED,
    COMMITTING,
    FAILED,
    PLACEHOLDER,
    Local,
    Verdict,
    Waiter,
)
from truetime.timestamp import ceiling, time_ns


def end(state: State, message: End) -> None:
    """Decide, once; a repeated End gets the stored outcome."""
    local = state.known(message.txn)
    if local is None or local.state == PLACEHOLDER:
        if message.stamp <= state.record_edge:
            state.answers.append(Outcome(message.request, Verdict.UNKNOWN, 0))
            return
        local = _abort_unknown(state, message.txn, message.stamp, local)
        state.answers.append(answer_for(local, message.request))
        # Participants confirm to the anchor, so it must be told to them.
        local.anchor = message.anchor
        local.participants = message.participants
        state.send_verdict(local)
        return
    if local.decided:
        state.cases[Case.END_REPEATED] += 1
        state.answers.append(answer_for(local, message.request))
        return
    if local.state == ACTIVE and message.anchor != local.anchor:
        # Two coordinators, as in a write: the verdict belongs to the anchor of the one whose intents
        # stand here, and to nobody else.
        state.answers.append(Outcome(message.request, Verdict.UNKNOWN, 0))
        return
    local.requests = [*(local.requests or ()), message.request]
    if local.state == ACTIVE:
        # At another stamp it is half of a transaction that was begun twice: none of it may stand.
        commit = message.commit and message.stamp == local.stamp
        decide(state, local, message.participants, commit=commit)


def decide(state: State, local: Local, participants: list[Span], *, commit: bool) -> None:
    """Log the verdict on an active transaction; it counts from when it is durable."""
    assert local.state == ACTIVE, local.state
    local.state = COMMITTING if commit else ABORTING
    local.participants = participants
    local.lsn = state.lsn
    state.records.append(Decided(local.txn, local.stamp, commit, participants))
    state.when_durable(local.lsn, local)


def heartbeat(state: State, message: Heartbeat) -> None:
    """Note a sign of life."""
    local = state.known(message.txn)
    if local is not None:
        local.seen_ns = state.now.lo_ns


def push(state: State, message: Push) -> None:
    """Answer with the verdict now, or when there is one."""
    state.pushes += 1
    txn, stamp = message.txn, message.stamp
    local = state.known(txn)
    if local is None:
        if stamp <= state.record_edge:
            state.cases[Case.PUSH_ON_DROPPED] += 1
            state.sends.append((message.origin, Pushed(txn, stamp, Verdict.GONE)))
            return
        state.cases[Case.PUSH_ON_UNKNOWN] += 1
        # Its first write may still be on the way: hold the pusher on a note that is kept in memory
        # only.
        local = Local(txn, stamp, PLACEHOLDER, message.anchor, [], seen_ns=time_ns(stamp))
        state.transactions[txn] = local
    if local.decided:
        state.sends.append((message.origin, Pushed(txn, stamp, local.verdict)))
        return
    if local.state in (COMMITTING, ABORTING):
        state.cases[Case.PUSH_UNDER_WAY] += 1
    if local.pushes is None:
        local.pushes = [message.origin]
    elif message.origin not in local.pushes:
        local.pushes.append(message.origin)
    expire(state, local)


def expire(state: State, local: Local) -> None:
    """Abort a transaction at its anchor when it has been silent, or has lived, too long."""
    settings = state.settings
    lo_ns = state.now.lo_ns
    silent = lo_ns - local.seen_ns > settings.heartbeat_expiry_ns
    too_old = lo_ns - time_ns(local.stamp) > settings.lifetime_ns_max
    if local.state == PLACEHOLDER:
        if silent:
            _abort_unknown(state, local.txn, local.stamp, local)
    elif local.state == ACTIVE and (silent or too_old) and state.owns(local.anchor):
        state.cases[Case.EXPIRED] += 1
        decide(state, local, local.participants or [], commit=False)


def pushed(state: State, message: Pushed) -> None:
    """The anchor's answer at a participant."""
    if message.verdict == Verdict.UNKNOWN:
        # Nobody serves there: ask again at the next tick, whoever it is then.
        local = state.known(message.txn)
        if local is not None:
            local.pushed_ns = 0
        return
    if message.verdict == Verdict.GONE:
        # A committed record is never dropped before its verdict is durable here, so it must have
        # been aborted.
        _take_verdict(state, message.txn, committed=False)
        return
    _take_verdict(state, message.txn, committed=message.verdict == Verdict.COMMITTED)


def resolve(state: State, message: Resolve) -> None:
    """Take the verdict; confirm when it is durable here."""
    local = state.known(message.txn)
    if local is None:
        state.cases[Case.VERDICT_BEFORE_WRITE] += 1
    if local is None and not message.committed:
        local = Local(message.txn, message.stamp, ABORTED, message.anchor, [])
        state.transactions[message.txn] = local
    else:
        _take_verdict(state, message.txn, committed=message.committed)
    # What lies beyond the end of this partition belongs to the next one.
    end = state.end if state.end != UNBOUNDED and message.last >= state.end else b""
    confirm = Confirm(message.txn, message.participant, message.anchor, end)
    lsn = 0 if local is None else local.lsn
    if lsn > state.durable_lsn:
        state.when_durable(lsn, (message.anchor, confirm))
    else:
        state.sends.append((message.anchor, confirm))


def _take_verdict(state: State, txn: bytes, *, committed: bool) -> None:
    local = state.known(txn)
    if local is None or local.state != ACTIVE:
        return
    local.state = COMMITTED if committed else ABORTED
    local.lsn = state.lsn
    state.records.append(Resolved(txn, local.stamp, committed))
    state.apply(local, committed=committed)
    state.tell(local)


def confirm(state: State, message: Confirm) -> None:
    """A participant has the verdict on disk."""
    local = state.known(message.txn)
    if local is None or local.unconfirmed is None:
        return
    left: list[Span] = []
    for first, last in local.unconfirmed:
        if first != message.participant:
            left.append((first, last))
        elif message.end and message.end <= last:
            rest = (message.end, last)
            left.append(rest)
            state.send_span(local, rest)
    local.unconfirmed = left
    if not local.unconfirmed:
        state.unconfirmed.pop(message.txn, None)
        local.unconfirmed = None
        local.participants = None
        if local.acknowledged and droppable(state, local):
            state.cases[Case.CONFIRMED_LATE] += 1
            state.drop(message.txn)


def status(state: State, message: Status) -> None:
    """Answer with the outcome, now or when it is decided."""
    local = state.known(message.txn)
    lasting = message.decide and state.settings.replicated and not message.stamp
    if local is not None and local.state == FAILED and lasting:
        # That a condition did not hold is known here only, and the next leader would try a late
        # copy anew.
        _abort_for_long(state, message, local)
        return
    if local is not None and local.state != PLACEHOLDER:
        if local.state == ACTIVE and message.decide and state.owns(local.anchor):
            decide(state, local, local.participants or [], commit=False)
        if local.decided:
            state.cases[Case.OUTCOME_ASKED] += 1
            stamp = local.stamp if local.state == COMMITTED else 0
            state.answers.append(Outcome(message.request, local.verdict, stamp))
        elif local.state == ACTIVE:
            state.answers.append(Outcome(message.request, Verdict.UNKNOWN, 0))
        else:
            local.questions = [*(local.questions or ()), message.request]
        return
    oldest = message.stamp or message.not_before
    # At or below the edge its record may have been dropped, whatever it said.
    if not message.decide or (state.record_edge and oldest <= state.record_edge):
        state.answers.append(Outcome(message.request, Verdict.UNKNOWN, 0))
        return
    _cancel(state, message.txn)
    if lasting:
        _abort_for_long(state, message, local)
        return
    _abort_unknown(state, message.txn, message.stamp or state.future, local)
    state.answers.append(Outcome(message.request, Verdict.ABORTED, 0))


def _abort_for_long(state: State, message: Status, local: Local | None) -> None:
    """Abort, durably, what has no stamp yet and may still be on its way through another node.

    No mark refuses its late copy, which would take a fresh stamp; so the verdict outlasts every
    deadline that the copy can have, and the leader.
    """
    settings = state.settings
    until_ns = state.now.hi_ns + settings.deadline_ns_max + settings.lifetime_ns_max
    if local is None:
        local = Local(message.txn, ceiling(until_ns), ABORTING, b"", [])
        state.transactions[message.txn] = local
    local.stamp = ceiling(until_ns)
    local.state = ABORTING
    local.lsn = state.lsn
    local.questions = [*(local.questions or ()), message.request]
    state.records.append(Decided(local.txn, local.stamp, False, []))
    state.when_durable(local.lsn, local)


def _cancel(state: State, txn: bytes) -> None:
    """Refuse the copies of a one-shot that wait here: the abort may be forgotten before they wake."""

    def refused(waiter: Waiter) -> bool:
        if not isinstance(waiter, OneShot) or waiter.txn != txn:
            return False
        refusal = state.refuse(Rule.ABORTED, other=txn)
        state.answers.append(Refused(waiter.request, refusal))
        return True

    state.parked = [parked for parked in state.parked if not refused(parked[1])]
    blocking = list(state.undecided.values())
    for flight in state.flights():
        blocking += flight.spelled_out
    for local in blocking:
        if local.waiters is not None:
            local.waiters = [each for each in local.waiters if not refused(each)] or None


def forget(state: State, message: Forget) -> None:
    """The client has its answer: an outcome need not be kept for it any longer.

    An abort is kept until nobody could write at its stamp; a commit until every participant has
    confirmed.
    """
    local = state.known(message.txn)
    if local is None:
        return
    local.acknowledged = True
    if droppable(state, local):
        state.drop(message.txn)


def droppable(state: State, local: Local) -> bool:
    """Whether an acknowledged or long past transaction can be forgotten without anybody being told
    wrong.
    """
    if not local.decided or local.unconfirmed is not None or local.lsn > state.durable_lsn:
        return False
    return local.state != ABORTED or local.stamp <= state.closed


def _abort_unknown(state: State, txn: bytes, stamp: int, local: Local | None) -> Local:
    """Abort what nobody here has heard of, in memory: it is remembered until nobody could write at
    its stamp.
    """
    if local is None:
        local = Local(txn, stamp, ABORTED, b"", [])
        state.transactions[txn] = local
    else:
        local.state = ABORTED
        state.tell(local)
    return local
