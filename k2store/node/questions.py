"""What a frame asks beside point reads: scans, outcomes, histories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2store.errors import K2Error, Unavailable
from k2store.node.limits import key_refused, txn_refused
from k2store.v1 import session_pb2 as wire
from mvcc.messages import Scan, Status
from truetime import Interval

if TYPE_CHECKING:
    from k2store.node.session import Session


def scan(session: Session, call: wire.ScanCall, now: Interval) -> None:
    """Scan a range; one that spans partitions is answered a partition at a time."""
    engine = session.engine
    limits = engine.limits
    for key in (call.start, call.end):
        if len(key) > limits.key_bytes_max + 1:
            session.fail(call.request, key_refused(key, limits.key_bytes_max))
            return
    if call.txn:
        transaction = session.open_transaction(call.txn, call.at, now)
        if isinstance(transaction, K2Error):
            session.fail(call.request, transaction)
            return
        stamp = transaction.stamp
    else:
        stamp = call.at or engine.stamp(session.seen, now)
        if not stamp:
            session.fail(call.request, engine.uncertain())
            return
    # Where it goes on, whoever answers says: only he knows where the partition ends for him.
    touched = engine.route.covering(call.start, call.end)
    message = Scan(
        session.base | call.request,
        call.start,
        call.end,
        stamp,
        call.txn,
        min(call.limit or limits.scan_rows_max, limits.scan_rows_max),
        call.reverse,
        now.lo_ns + session.timeout(call.timeout_ms),
    )
    engine.host.deliver(touched[-1] if call.reverse else touched[0], message)


def outcome(session: Session, call: wire.OutcomeCall) -> None:
    """Ask the anchor what became of a transaction."""
    if len(call.txn) != 16:
        session.fail(call.request, txn_refused(call.txn))
        return
    engine = session.engine
    decide = call.decide and session.owns((call.txn,))
    transaction = engine.coordinator.opened(call.txn, session.number) if decide else None
    if transaction is not None:
        # The client has lost track of it: nothing more will come.
        engine.coordinator.rollback(transaction)
    status = Status(
        session.base | call.request,
        call.txn,
        call.at,
        decide,
        call.not_before,
        call.anchor,
    )
    engine.asked.add(status.request)
    engine.host.deliver(engine.route.of(call.anchor), status)


def history(session: Session, call: wire.HistoryCall) -> None:
    """Answer with the versions of one key."""
    limits = session.engine.limits
    if len(call.key) > limits.key_bytes_max:
        session.fail(call.request, key_refused(call.key, limits.key_bytes_max))
        return
    count = min(call.limit or limits.scan_rows_max, limits.scan_rows_max)
    try:
        versions, more = session.engine.history(call.key, call.at, count)
    except Unavailable as error:
        session.fail(call.request, error)
        return
    answer = session.out.rest().histories.add(request=call.request, more=more)
    for stamp, value in versions:
        answer.at.append(stamp)
        answer.value.append(value or b"")
        answer.deleted.append(value is None)
        session.out.size += len(value or b"")
    session.out.count += 1
    session.engine.touch(session)
