"""One-shot transactions: conditions, reads and writes in one message, stamped by the leader
(docs/protocol.md §5.4).

Because the stamp is taken when the transaction runs, above every read mark of what it writes, a
one-shot is never refused for being late; it waits only for older transactions that are undecided on
keys it reads.  Each time it has waited it starts again with a new stamp.
"""

from __future__ import annotations

from mvcc.cases import Case
from mvcc.conditions import Condition, FieldError, Kind, holds, matches
from mvcc.messages import Committed, Failed, OneShot, Refused
from mvcc.reads import note_range, wait
from mvcc.refusals import Rule
from mvcc.state import State, answer_for
from mvcc.transactions import COMMITTING, FAILED, Local
from mvcc.writes import decide_alone
from truetime.timestamp import time_ns

Found = tuple[int, bytes | None]
"""(version, value) of a key, 0 and None where it has none."""


class Blocked(Exception):
    """An older transaction must be decided first."""

    def __init__(self, blocker: Local) -> None:
        super().__init__(blocker.txn)
        self.blocker = blocker


def one_shot(state: State, message: OneShot) -> None:
    """Run it, join its earlier self, or wait."""
    local = state.known(message.txn)
    if local is not None:
        state.cases[Case.ONE_SHOT_AGAIN] += 1
        if local.decided:
            state.answers.append(answer_for(local, message.request))
        else:
            local.requests = [*(local.requests or ()), message.request]
        return
    if not state.serving:
        _refuse(state, message, Rule.NOT_LEADER)
        return
    if state.now.hi_ns > message.deadline_ns:
        _refuse(state, message, Rule.DEADLINE)
        return
    stamp = _stamp(state, message)
    if not stamp:
        if state.now.width_ns > state.oracle.settings.uncertainty_max_ns:
            _refuse(state, message, Rule.UNCERTAIN)
        else:
            state.cases[Case.PARKED] += 1
            state.parked.append((state.now.lo_ns + 1, message))
        return
    try:
        failed = _first_failure(state, message, stamp)
        values = None
        if failed is None and message.reads:
            values = [_shown(state, key, stamp, message.txn) for key in message.reads]
            size = sum(len(value) for _, value in values if value is not None)
            if len(values) > 1 and size > state.settings.page_bytes_max:
                _refuse(state, message, Rule.TOO_LARGE)
                return
    except Blocked as blocked:
        wait(state, blocked.blocker, message)
        return
    except FieldError:
        _refuse(state, message, Rule.FIELD)
        return
    if failed is not None:
        # Remembered until the client has heard or nobody may ask again: a repeated request must
        # fail as well.
        state.transactions[message.txn] = Local(
            message.txn, stamp, FAILED, b"", [], failed=failed, seen_ns=message.deadline_ns
        )
        state.answers.append(failed)
    elif not message.writes:
        state.answers.append(Committed(message.request, stamp, values))
    else:
        local = Local(message.txn, stamp, COMMITTING, b"", [], values=values)
        state.transactions[message.txn] = local
        decide_alone(state, local, message.writes, message.request)


def _refuse(state: State, message: OneShot, rule: Rule) -> None:
    state.answers.append(Refused(message.request, state.refuse(rule)))


def _stamp(state: State, message: OneShot) -> int:
    """A stamp above everything that could refuse the writes; 0 when the clock does not allow one
    yet.
    """
    highest = message.floor
    for key, _ in message.writes:
        chain = state.chains.get(key)
        if chain is None:
            chain = state.load(key)
        mark, _ = state.read_mark(key, chain)
        highest = max(highest, mark)
    highest = max(highest, state.closed, state.low_water)
    stamp = state.oracle.next_stamp()
    if stamp > highest:
        return stamp
    if stamp and highest == message.floor:
        state.cases[Case.FLOOR_ABOVE_CLOCK] += 1
    if stamp == 0:
        return 0
    return state.oracle.stamp_at_least(highest, state.now.lo_ns, state.now.hi_ns)


def _first_failure(state: State, message: OneShot, stamp: int) -> Failed | None:
    own_time_ns = time_ns(stamp)
    for index, condition in enumerate(message.conditions):
        if condition.kind == Kind.NO_ROW:
            row = _offending_row(state, condition, stamp, own_time_ns, message.txn)
            if row is not None:
                return Failed(message.request, stamp, index, row)
            continue
        version, value = _found(state, condition.key, stamp, message.txn)
        if not holds(condition, version, value, stamp, own_time_ns):
            return Failed(message.request, stamp, index, condition.key)
    return None


def _shown(state: State, key: bytes, stamp: int, txn: bytes) -> Found:
    """A read as the client sees it: a deletion has no version."""
    version, value = _found(state, key, stamp, txn)
    return (0, None) if value is None else (version, value)


def _found(state: State, key: bytes, stamp: int, txn: bytes) -> Found:
    """Read one key and note it; raises Blocked on an undecided older transaction."""
    chain = state.chains.get(key)
    if chain is None:
        chain = state.load(key)
    if stamp > chain.read:
        chain.read = stamp
        chain.reader = txn
    if chain.intents is None and chain.stamp <= stamp:
        return chain.stamp, chain.value
    version, value = state.version_at(key, chain, stamp)
    blocker = chain.blocker(stamp, version, txn)
    if blocker is not None:
        raise Blocked(state.blocking(blocker.txn))
    return version, value


def _offending_row(
    state: State, condition: Condition, stamp: int, own_time_ns: int, txn: bytes
) -> bytes | None:
    """The first key of the range whose field matches, or None; the whole range is noted as read."""
    low, high = condition.key, condition.end
    for local in state.undecided.values():
        if local.stamp <= stamp and any(
            low <= key and (not high or key < high) for key in local.keys
        ):
            raise Blocked(local)
    for flight in state.flights():
        for txn_, stamp_, key in zip(
            flight.write_txns, flight.write_stamps, flight.keys, strict=True
        ):
            if stamp_ <= stamp and low <= key and (not high or key < high):
                raise Blocked(state.blocking(txn_))
    state.settle()
    note_range(state, low, high, stamp, txn)
    start: bytes | None = low
    while start is not None:
        page = state.settled.scan(state.space, start, high or None, stamp=stamp)
        for key, _, value in page.rows:
            if value is not None and matches(condition, value, stamp, own_time_ns):
                return key
        start = page.resume
    return None
