"""A partition becomes two: its own log says where, and nothing is moved (docs/protocol.md §5.6).

::

    parent [a, z)   ... ── Split(m) ── ...        [a, m) goes on in the same log
                              │
    child  [m, z)             └─ Checkpoint ── ... [m, z) begins a log of its own, at entry 1

What is *gathered* before the split belongs to the parent, whole: a transaction decided by then is
applied by it on both sides, before the child's checkpoint is given out, for its entry is durable by
then as well.  What is *open* is torn: intents go where their keys are, the transaction where its
intents are, and its record where its anchor is.  The anchor is told nothing, since participants are
spans.  Outcomes go to both sides.  Marks are copied; the child's low-water mark lies above every
read that the parent can have answered, so no read marks are needed.

The settled rows are shared: both sides use one space of one store.
"""

from __future__ import annotations

from mvcc.bounds import belongs
from mvcc.cases import Case
from mvcc.messages import Pushed
from mvcc.records import Checkpoint, Ended, Pending, Split
from mvcc.refusals import Rule
from mvcc.state import State
from mvcc.stopping import refuse
from mvcc.transactions import (
    ACTIVE,
    FAILED,
    PLACEHOLDER,
    Local,
    Verdict,
    Waiter,
)


def split(state: State, key: bytes, child: int) -> bool:
    """Log the split of a serving leader's partition at ``key``; whether that was possible.

    From this moment the right half is served by nobody, until the child has a leader.
    """
    possible = state.serving and state.owns(key) and key != state.start
    if not possible or state.leaving is not None or state.children:
        return False
    record = Split(key, child, state.closed, max(state.low_water, state.future))
    state.records.append(record)
    state.leaving = carve(state, record)
    state.when_durable(state.lsn, state.leaving)
    return True


def carve(state: State, record: Split) -> Checkpoint:
    """Cut the right half out of the state, which is everything gathered or replayed so far."""
    key = record.key
    pending: list[Pending] = []
    ended: list[Ended] = []
    woken: list[Waiter] = []
    end = state.end
    for txn, local in list(state.transactions.items()):
        if isinstance(local, int):
            ended.append(Ended(txn, local, True, b"", None, None))
        elif local.state == ACTIVE:
            torn = _tear(state, local, key, woken)
            if torn is not None:
                pending.append(torn)
        elif local.state == PLACEHOLDER:
            if local.anchor >= key:
                _send_pushers_away(state, local)
                del state.transactions[txn]
        elif local.state != FAILED:
            ended.append(_outcome(state, local, key))
    if pending:
        state.cases[Case.SPLIT_OPEN] += 1
    state.end = key
    _turn_waiters(state, woken)
    return Checkpoint(
        record.child,
        1,
        key,
        end,
        record.closed,
        record.low_water,
        state.horizon,
        state.record_edge,
        pending,
        ended,
    )


def _tear(state: State, local: Local, key: bytes, woken: list[Waiter]) -> Pending | None:
    """Take the intents from ``key`` on out of an open transaction; None if it has none."""
    if local.anchor >= key:
        _send_pushers_away(state, local)
    leaving = [one for one in local.keys if one >= key]
    if not leaving:
        return None
    writes = []
    for one in leaving:
        intent = state.chains[one].lift(local.txn)
        assert intent is not None, one
        writes.append((one, intent.value, intent.sequence))
    # Both sides wait, or start again, for what is left there.
    woken += local.waiters or ()
    local.waiters = None
    sequences = [sequence for _, _, sequence in writes]
    local.keys = [one for one in local.keys if one < key]
    assert local.sequences is not None
    # A commit of this side alone would count on writes that are not here, and is refused.
    local.sequences.difference_update(sequences)
    if not local.keys and not state.start <= local.anchor < key:
        del state.transactions[local.txn]
        del state.undecided[local.txn]
    return Pending(local.txn, local.stamp, local.anchor, writes, sequences)


def _outcome(state: State, local: Local, key: bytes) -> Ended:
    """A decided transaction as the child will know it; its record stays where its anchor is."""
    unconfirmed = None
    if local.anchor >= key:
        unconfirmed = local.unconfirmed
        if unconfirmed is None and local.participants is not None:
            # Not durable yet. When it is, this partition applies it on both sides of the key.
            unconfirmed = state.beyond(local.participants) or None
        local.participants = local.unconfirmed = None
        state.unconfirmed.pop(local.txn, None)
    return Ended(local.txn, local.stamp, local.committing, local.anchor, local.values, unconfirmed)


def _send_pushers_away(state: State, local: Local) -> None:
    for origin in local.pushes or ():
        state.sends.append((origin, Pushed(local.txn, local.stamp, Verdict.UNKNOWN)))
    local.pushes = None


def _turn_waiters(state: State, woken: list[Waiter]) -> None:
    """Refuse who waits for the right half; who waited for a torn transaction starts again."""
    for local in state.transactions.values():
        if isinstance(local, Local) and local.waiters:
            staying = [one for one in local.waiters if belongs(state, one)]
            for one in local.waiters:
                if one not in staying:
                    refuse(state, one.request, Rule.WRONG_PARTITION)
            local.waiters = staying or None
    state.parked += [(0, one) for one in woken]


def let_go(state: State) -> list[tuple[int, Checkpoint]]:
    """The children whose split is durable, with everything that was committed in them settled."""
    children, state.children = state.children, []
    if children:
        state.settle()
        key = min(saved.start for saved in children)
        for one in [one for one in state.chains if one >= key]:
            assert state.chains[one].intents is None, one
            del state.chains[one]
    return [(saved.partition, saved) for saved in children]
