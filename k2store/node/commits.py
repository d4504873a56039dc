"""Commits and early writes of a frame, and the limits that every write is held to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from k2store.errors import Expired, K2Error, Rejected
from k2store.node.limits import (
    Malformed,
    key_refused,
    operations_refused,
    transaction_refused,
    txn_refused,
    value_refused,
)
from k2store.v1 import session_pb2 as wire
from mvcc.coordinator import Mutation, Open
from mvcc.messages import CommitsAlone
from truetime import Interval

if TYPE_CHECKING:
    from k2store.node.session import Session


def commit_columns(session: Session, commits: wire.CommitColumns, now: Interval) -> None:
    """Run the commits of a frame."""
    engine = session.engine
    count = len(commits.request)
    if not count == len(commits.txn) == len(commits.at) == len(commits.write_count):
        raise Malformed("the columns of `commits` differ in length")
    keys, values = mutation_columns(commits.key, commits.value, commits.deleted)
    counts = list(commits.write_count)
    if sum(counts) != len(keys):
        raise Malformed("the columns of writes differ in length")
    if not count:
        return
    txns = list(commits.txn)
    if not session.owns(txns):
        _refuse_strangers(session, commits)
        return
    early = list(commits.early_count)
    if early and len(early) != count:
        raise Malformed("the columns of `commits` differ in length")
    fits = all_fit(session, keys, values)
    group = CommitsAlone(session.number, list(commits.request), txns, [], counts, keys, values)
    plain = fits and engine.host.single is not None and min(counts) > 0 and not any(early)
    if plain and _commit_together(session, group):
        return
    _commit_each(session, commits, group, now, fits=fits)


def _commit_together(session: Session, group: CommitsAlone) -> bool:
    """Hand over a group whole if nobody has heard of any of its transactions but by its stamp.

    Such a transaction has read and nothing else, so its commit needs no coordinator.
    """
    open_ = session.engine.coordinator.open
    stamps = [open_.get(txn) for txn in group.txns]
    if set(map(type, stamps)) != {int} or len(set(group.txns)) != len(stamps):
        return False
    for txn in group.txns:
        del open_[txn]
    group.stamps.extend(cast(list[int], stamps))
    single = session.engine.host.single
    assert single is not None, "columns go to the only partition"
    session.engine.host.deliver(single, group)
    return True


def _commit_each(
    session: Session, commits: wire.CommitColumns, group: CommitsAlone, now: Interval, *, fits: bool
) -> None:
    """Look at the transactions of a group one by one; ``fits`` as `all_fit` found it."""
    engine = session.engine
    open_ = engine.coordinator.open
    single = engine.host.single
    keys, values, early = group.keys, group.values, list(commits.early_count)
    deadlines = session.deadlines(commits.timeout_ms, len(group.txns), now)
    alone = CommitsAlone(session.number, [], [], [], [], [], [])
    start = 0
    for index, (request, txn, at, written) in enumerate(
        zip(group.requests, group.txns, commits.at, group.counts, strict=True)
    ):
        end = start + written
        known = open_.get(txn)
        if early and early[index]:
            error = _early_writes_missing(known, early[index])
            if error is not None:
                _abandon(session, txn)
                session.fail(request, error)
                start = end
                continue
        if known is None:
            begun = session.begin_transaction(txn, at, now)
            if isinstance(begun, K2Error):
                session.fail(request, begun)
                start = end
                continue
            known = begun
        if single is not None and fits and written and type(known) is int:
            del open_[txn]
            alone.requests.append(request)
            alone.txns.append(txn)
            alone.stamps.append(known)
            alone.counts.append(written)
            alone.keys.extend(keys[start:end])
            alone.values.extend(values[start:end])
            start = end
            continue
        mine = list(zip(keys[start:end], values[start:end], strict=True))
        start = end
        error = None if fits else too_much(session, mine)
        if error is not None:
            _abandon(session, txn)
            session.fail(request, error)
            continue
        transaction = engine.coordinator.opened(txn, session.number)
        assert transaction is not None
        engine.coordinator.commit(transaction, session.base | request, mine, deadlines[index])
    if alone.requests:
        assert single is not None, "columns go to the only partition"
        engine.host.deliver(single, alone)


def _early_writes_missing(known: Open | int | None, count: int) -> K2Error | None:
    """Why the commit cannot count on ``count`` earlier writes: the transaction was ended meanwhile.

    It lived too long, its connection was lost, or the node has restarted; to begin it anew here
    would commit it without them.
    """
    if isinstance(known, Open) and known.sequence == count:
        return None
    return Expired(
        "writes that left before the commit are not known here any more; run the transaction again",
        what="transaction",
    )


def _refuse_strangers(session: Session, commits: wire.CommitColumns) -> None:
    """A group that names a transaction of somebody else, or none at all, is refused as a whole."""
    for request, txn in zip(commits.request, commits.txn, strict=True):
        session.fail(request, txn_refused(txn))


def all_fit(session: Session, keys: list[bytes], values: list[bytes | None]) -> bool:
    """Whether all writes of a group are certainly within the limits, without looking at each."""
    if not keys:
        return True
    limits = session.engine.limits
    return (
        len(keys) <= limits.operations_max
        and max(map(len, keys)) <= limits.key_bytes_max
        and sum(map(len, filter(None, values))) <= limits.value_bytes_max
    )


def mutation_columns(
    keys: Sequence[bytes], values: Sequence[bytes], deleted: Sequence[bool]
) -> tuple[list[bytes], list[bytes | None]]:
    """Writes as two columns, a deletion as the value None."""
    if len(keys) != len(values) or (deleted and len(keys) != len(deleted)):
        raise Malformed("the columns of writes differ in length")
    if not deleted:
        return list(keys), list(values)
    return list(keys), [
        None if gone else value for value, gone in zip(values, deleted, strict=True)
    ]


def _abandon(session: Session, txn: bytes) -> None:
    transaction = session.engine.coordinator.opened(txn, session.number)
    if transaction is not None:
        session.engine.coordinator.rollback(transaction)


def too_much(session: Session, writes: Sequence[Mutation]) -> K2Error | None:
    """Which limit the writes of one transaction exceed, if any."""
    limits = session.engine.limits
    if len(writes) > limits.operations_max:
        return operations_refused(len(writes), limits.operations_max)
    size = 0
    for key, value in writes:
        if len(key) > limits.key_bytes_max:
            return key_refused(key, limits.key_bytes_max)
        size += len(key)
        if value is not None:
            if len(value) > limits.value_bytes_max:
                return value_refused(value, limits.value_bytes_max)
            size += len(value)
    if size > limits.transaction_bytes_max:
        return transaction_refused(size, limits.transaction_bytes_max)
    return None


def early_write(session: Session, call: wire.WriteCall, now: Interval) -> None:
    """Run one message of writes that leave ahead of their commit."""
    writes = list(zip(*mutation_columns(call.key, call.value, call.deleted), strict=True))
    error = too_much(session, writes)
    if error is None and not writes:
        error = Rejected("a write without keys", field="key")
    transaction = error or session.open_transaction(call.txn, call.at, now)
    limit = session.engine.limits.operations_max
    if isinstance(transaction, Open) and transaction.sequence + len(writes) > limit:
        transaction = operations_refused(transaction.sequence + len(writes), limit)
    if isinstance(transaction, K2Error):
        session.fail(call.request, transaction)
        return
    deadline = now.lo_ns + session.timeout(call.timeout_ms)
    session.engine.coordinator.write(transaction, session.base | call.request, writes, deadline)


def roll_back(session: Session, call: wire.RollbackCall) -> None:
    """End a transaction without effect."""
    transaction = None
    if session.owns((call.txn,)):
        transaction = session.engine.coordinator.opened(call.txn, session.number)
    request = session.base | call.request if call.request else 0
    if request:
        session.outstanding += 1
    if transaction is not None:
        session.engine.coordinator.rollback(transaction, request)
    elif call.request:
        answer = session.out.rest().outcomes.add(request=call.request)
        answer.state = wire.OUTCOME_STATE_ABORTED
        session.out.count += 1
        session.engine.touch(session)
