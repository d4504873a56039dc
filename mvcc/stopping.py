"""The end of serving, and what is answered where nobody serves: every requester gets an answer.

Three answers are possible.  What has left no trace is refused.  A commit whose log entry is not
durable has an outcome that this replica will never learn: whoever leads next knows it, so the
answer is ``UNKNOWN``, which a client resolves before it tries again (docs/protocol.md §5.8 cases 14
and 31).  What only asks for an acknowledgement (an early write) is refused, since its transaction
can no longer be committed without a new one.

Messages between partitions get no answer: their senders send them again, to the leader there is
then.  Only a push is sent back, so that the one who pushed does not wait to be patient.
"""

from __future__ import annotations

from mvcc.cases import Case
from mvcc.messages import (
    OWNER_BITS,
    CommitAlone,
    CommitsAlone,
    End,
    Message,
    OneShot,
    OneShots,
    Outcome,
    Push,
    Pushed,
    Read,
    Reads,
    Refused,
    Scan,
    Status,
    Write,
    Written,
)
from mvcc.records import Checkpoint
from mvcc.refusals import Rule
from mvcc.state import Flight, State
from mvcc.transactions import Local, Verdict


def turn_away(state: State, message: Message, rule: Rule) -> None:
    """Answer a message that cannot be taken here; nothing changes."""
    if isinstance(message, Read | Scan | Write | CommitAlone | OneShot | End | Status):
        refuse(state, message.request, rule)
    elif isinstance(message, Reads | CommitsAlone | OneShots):
        base = message.owner << OWNER_BITS
        for request in message.requests:
            refuse(state, base | request, rule)
    elif isinstance(message, Push):
        state.sends.append((message.origin, Pushed(message.txn, message.stamp, Verdict.UNKNOWN)))


def refuse(state: State, request: int, rule: Rule) -> None:
    """Refuse one request."""
    state.answers.append(Refused(request, state.refuse(rule)))


def stop(state: State, rule: Rule) -> None:
    """Serve nobody any more; whoever waits is answered, and what is gathered for the log is
    dropped.
    """
    state.serving = False
    state.shown = 0  # it may have applied what never becomes durable
    for local in state.transactions.values():
        if isinstance(local, Local):
            _let_go(state, local, rule)
    for _, message in state.parked:
        refuse(state, message.request, rule)
    state.parked = []
    for _, what in state.awaiting:
        if isinstance(what, Flight):
            base = what.owner << OWNER_BITS
            for request in what.requests:
                state.answers.append(Outcome(base | request, Verdict.UNKNOWN, 0))
        elif isinstance(what, Written):
            refuse(state, what.request, Rule.NOT_LEADER)
        else:
            # A transaction was let go above, a confirmation will be asked for again, and a split
            # may not have happened.
            assert isinstance(what, Local | tuple | Checkpoint), what
    state.awaiting.clear()
    state.records = []


def _let_go(state: State, local: Local, rule: Rule) -> None:
    if local.waiters:
        state.cases[Case.STOPPED_WITH_WAITERS] += 1
    for waiter in local.waiters or ():
        refuse(state, waiter.request, rule)
    local.waiters = None
    for request in (*(local.requests or ()), *(local.questions or ())):
        state.answers.append(Outcome(request, Verdict.UNKNOWN, 0))
    local.requests = local.questions = None
    for origin in local.pushes or ():
        state.sends.append((origin, Pushed(local.txn, local.stamp, Verdict.UNKNOWN)))
    local.pushes = None
