"""Writes and the commit of a transaction with one participant (docs/protocol.md §5.4 write, §5.5).

A write never waits for another writer.  It is refused only when somebody later has already read
what it would change, or when its stamp lies where nobody may write any more.  Replacing one's own
intent is exempt from every test: nobody can have read past it (§5.8 case 3).
"""

from __future__ import annotations

from mvcc.cases import Case
from mvcc.conditions import FieldError, holds
from mvcc.messages import CommitAlone, Committed, Failed, Refused, Write, Written
from mvcc.reads import wait
from mvcc.records import CommittedAlone, Planted
from mvcc.refusals import Refusal, Rule
from mvcc.state import State, answer_for
from mvcc.transactions import (
    ABORTED,
    ABORTING,
    ACTIVE,
    COMMITTING,
    PLACEHOLDER,
    Local,
)
from mvcc.versions import Chain, Intent
from truetime.timestamp import time_ns


def write(state: State, message: Write) -> None:
    """Plant intents, all of the message or none; answered when they are durable."""
    refusal = _admit(state, message.stamp)
    local = state.known(message.txn)
    if refusal is None and local is not None and local.state not in (ACTIVE, PLACEHOLDER):
        _write_after_the_end(state, message, local)
        return
    keys = [key for key, _, _ in message.writes]
    if local is None and _stand_committed(state, keys, message.stamp):
        state.cases[Case.WRITE_AFTER_COMMIT] += 1
        state.answers.append(Written(message.request))
        return
    if (
        local is not None
        and local.state == ACTIVE
        and (message.anchor, message.stamp) != (local.anchor, local.stamp)
    ):
        # Two coordinators, of which one does not know what the other has written: a client that
        # changed nodes before it was told its stamp has begun twice, and was given two.
        refusal = refusal or state.refuse(Rule.ABORTED, other=message.txn)
    fresh: list[tuple[bytes, bytes | None, int]] = []
    overtaken: list[int] = []
    lsn = 0
    for key, value, sequence in message.writes:
        own = (state.chains.get(key) or state.load(key)).intent_of(message.txn)
        if own is None:
            refusal = refusal or check(state, key, message.stamp)
        elif own.sequence >= sequence:
            # A repeated or overtaken message: its effect already stands.
            _repeated(state, own, sequence)
            lsn = max(lsn, own.lsn)
            overtaken.append(sequence)
            continue
        fresh.append((key, value, sequence))
    if refusal is not None:
        state.answers.append(Refused(message.request, refusal))
        return
    # What stands already was written when its conditions held; they may see it now.
    repeated = overtaken and not fresh
    if message.conditions and not repeated and not _conditions_hold(state, message):
        return
    if overtaken:
        assert local is not None
        assert local.sequences is not None
        local.sequences.update(overtaken)
    if fresh:
        lsn = state.lsn
        _plant(state, message, local, fresh)
    if lsn > state.durable_lsn:
        state.when_durable(lsn, Written(message.request))
    else:
        state.answers.append(Written(message.request))


def _repeated(state: State, own: Intent, sequence: int) -> None:
    if own.sequence > sequence:
        state.cases[Case.WRITE_OVERTAKEN] += 1
    elif own.lsn > state.durable_lsn:
        state.cases[Case.WRITE_REPEATED_EARLY] += 1
    else:
        state.cases[Case.WRITE_REPEATED] += 1


def _admit(state: State, stamp: int) -> Refusal | None:
    if not state.serving:
        return state.refuse(Rule.NOT_LEADER)
    if stamp > state.future:
        return state.refuse(Rule.FUTURE, stamp=state.future)
    return None


def _write_after_the_end(state: State, message: Write, local: Local) -> None:
    """A message that arrives after the decision: its effect stands already, or it can have none."""
    if local.state in (ABORTING, ABORTED):
        state.cases[Case.WRITE_AFTER_ABORT] += 1
        refusal = state.refuse(Rule.ABORTED, other=message.txn)
        state.answers.append(Refused(message.request, refusal))
        return
    state.cases[Case.WRITE_AFTER_COMMIT] += 1
    sequences = local.sequences or set()
    keys = [key for key, _, _ in message.writes]
    if all(sequence in sequences for _, _, sequence in message.writes):
        if local.lsn > state.durable_lsn:
            state.when_durable(local.lsn, Written(message.request))
        else:
            state.answers.append(Written(message.request))
    elif not sequences and local.decided and _stand_committed(state, keys, message.stamp):
        # A checkpoint keeps outcomes but no sequence numbers.
        state.answers.append(Written(message.request))
    else:
        refusal = state.refuse(Rule.ENDED, other=message.txn)
        state.answers.append(Refused(message.request, refusal))


def check(state: State, key: bytes, stamp: int) -> Refusal | None:
    """Whether a new version of ``key`` may stand at ``stamp``; the caller has tested who may write
    at all.
    """
    if stamp <= state.closed:
        return state.refuse(Rule.CLOSED, key, stamp=state.closed)
    if stamp < state.low_water:
        return state.refuse(state.low_water_rule, key, stamp=state.low_water)
    chain = state.chains.get(key)
    if chain is None:
        chain = state.load(key)
    mark, reader = state.read_mark(key, chain)
    if mark > stamp:
        return state.refuse(Rule.READ_BY, key, reader, mark)
    return None


def _conditions_hold(state: State, message: Write) -> bool:
    """Evaluate conditions as reads at the write's stamp; False when the message was answered or
    waits.
    """
    stamp = message.stamp
    for index, condition in enumerate(message.conditions):
        chain = state.chains.get(condition.key) or state.load(condition.key)
        if stamp > chain.read:
            chain.read = stamp
            chain.reader = message.txn
        own = chain.intent_of(message.txn)
        if own is not None:
            version, value = own.stamp, own.value
        else:
            version, value = state.version_at(condition.key, chain, stamp)
            blocker = chain.blocker(stamp, version, message.txn)
            if blocker is not None:
                wait(state, state.blocking(blocker.txn), message)
                return False
        try:
            met = holds(condition, version, value, stamp, time_ns(stamp))
        except FieldError:
            refusal = state.refuse(Rule.FIELD, condition.key)
            state.answers.append(Refused(message.request, refusal))
            return False
        if not met:
            state.answers.append(Failed(message.request, stamp, index, condition.key))
            return False
    return True


def _plant(
    state: State,
    message: Write,
    local: Local | None,
    writes: list[tuple[bytes, bytes | None, int]],
) -> None:
    txn, stamp = message.txn, message.stamp
    if local is None:
        local = Local(txn, stamp, ACTIVE, message.anchor, [])
        state.transactions[txn] = local
    if local.state == PLACEHOLDER:
        state.cases[Case.WRITE_AFTER_PUSH] += 1
    local.state = ACTIVE
    local.anchor = message.anchor
    local.stamp = stamp
    state.undecided[txn] = local
    if local.sequences is None:
        local.sequences = set()
    for key, value, sequence in writes:
        chain = state.chains[key]
        own = chain.intent_of(txn)
        if own is not None:
            state.cases[Case.OWN_REWRITTEN] += 1
            own.value, own.sequence, own.lsn = value, sequence, state.lsn
        else:
            chain.plant(Intent(stamp, value, txn, sequence, state.lsn))
            local.keys.append(key)
        local.sequences.add(sequence)
    local.lsn = state.lsn
    local.seen_ns = state.now.lo_ns
    state.records.append(Planted(txn, stamp, message.anchor, writes))


def commit_alone(state: State, message: CommitAlone) -> None:
    """Check the last writes, then decide, in one log entry; answered when that is durable."""
    txn = message.txn
    stamp = message.stamp
    local = state.known(txn)
    if local is not None and local.state not in (ACTIVE, PLACEHOLDER):
        _commit_again(state, message, local)
        return
    refusal = _admit(state, stamp)
    if local is not None and local.state == ACTIVE and local.stamp != stamp:
        refusal = refusal or state.refuse(Rule.ABORTED, other=txn)
    if refusal is None and message.sequences:
        have = local.sequences if local is not None and local.sequences is not None else set()
        if not have.issuperset(message.sequences):
            refusal = state.refuse(Rule.MISSING_WRITE, other=txn)
    if local is not None and local.state == ACTIVE and not state.owns(local.anchor):
        # It has written to another partition as well, which the sender does not know.
        refusal = refusal or state.refuse(Rule.MISSING_WRITE, other=txn)
    if refusal is None:
        refusal = _check_last_writes(state, message, local)
    if refusal is not None:
        keys = [key for key, _ in message.writes]
        if local is None and _stand_committed(state, keys, stamp):
            state.answers.append(Committed(message.request, stamp, None))
        else:
            state.answers.append(Refused(message.request, refusal))
        return
    if local is None:
        if not message.writes:
            state.answers.append(Committed(message.request, stamp, None))
            return
        local = Local(txn, stamp, COMMITTING, b"", [])
        state.transactions[txn] = local
    decide_alone(state, local, message.writes, message.request)


def _commit_again(state: State, message: CommitAlone, local: Local) -> None:
    if local.decided:
        state.answers.append(answer_for(local, message.request))
    elif local.requests is None:
        local.requests = [message.request]
    else:
        local.requests.append(message.request)


def _check_last_writes(state: State, message: CommitAlone, local: Local | None) -> Refusal | None:
    stamp = message.stamp
    if stamp > state.closed and stamp >= state.low_water and local is None:
        chains = state.chains
        ranges = bool(state.ranges)
        for key, _ in message.writes:
            chain = chains.get(key)
            if chain is None:
                chain = state.load(key)
            if chain.read > stamp or ranges:
                refusal = check(state, key, stamp)
                if refusal is not None:
                    return refusal
        return None
    for key, _ in message.writes:
        chain = state.chains.get(key) or state.load(key)
        if local is None or chain.intent_of(message.txn) is None:
            refusal = check(state, key, stamp)
            if refusal is not None:
                return refusal
    return None


def _stand_committed(state: State, keys: list[bytes], stamp: int) -> bool:
    """Whether versions at exactly this stamp stand: they can only be the sender's own, committed
    and then forgotten.

    A repeated message is told so instead of being refused (§5.8 case 15).
    """
    if not keys:
        return False
    for key in keys:
        chain = state.chains.get(key) or state.load(key)
        if state.version_at(key, chain, stamp)[0] != stamp:
            return False
    return True


def decide_alone(
    state: State, local: Local, writes: list[tuple[bytes, bytes | None]], request: int
) -> None:
    """Plant the last writes and decide to commit, in the present log entry."""
    txn, stamp, lsn = local.txn, local.stamp, state.lsn
    chains = state.chains
    for key, value in writes:
        chain: Chain = chains[key]
        if chain.intents is None:
            chain.intents = (Intent(stamp, value, txn, 0, lsn),)
        else:
            own = chain.intent_of(txn)
            if own is not None:
                state.cases[Case.OWN_REWRITTEN] += 1
                own.value = value
                continue
            chain.plant(Intent(stamp, value, txn, 0, lsn))
        local.keys.append(key)
    local.state = COMMITTING
    local.lsn = lsn
    local.requests = [request]
    state.undecided[txn] = local
    state.records.append(CommittedAlone(txn, stamp, writes, local.values))
    state.when_durable(lsn, local)
