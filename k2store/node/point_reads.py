"""Point reads of a frame: columns in, one message to the partition."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

from k2store.errors import K2Error
from k2store.node.limits import Malformed, key_refused
from k2store.v1 import session_pb2 as wire
from mvcc.messages import Reads
from truetime import Interval

if TYPE_CHECKING:
    from k2store.node.session import Session

_ATTEMPT = itemgetter(15)


def point_reads(session: Session, reads: wire.ReadColumns, now: Interval) -> None:
    """Run the point reads of a frame."""
    engine = session.engine
    requests, txns, keys = list(reads.request), list(reads.txn), list(reads.key)
    count = len(requests)
    if not count == len(txns) == len(reads.at) == len(keys):
        raise Malformed("the columns of `reads` differ in length")
    if not count:
        return
    deadlines = session.deadlines(reads.timeout_ms, count, now)
    key_bytes_max = engine.limits.key_bytes_max
    stamps = _plain_stamps(session, txns, reads.at)
    refused: list[int] = []
    open_ = engine.coordinator.open
    for index, (txn, at) in enumerate(zip(txns, reads.at, strict=True) if not stamps else ()):
        stamp: int | K2Error
        if txn:
            known = open_.get(txn)
            if known is None:
                stamp = session.begin_transaction(txn, at, now)
            elif isinstance(known, int):
                stamp = known
            else:
                stamp = known.stamp
        else:
            stamp = at or engine.stamp(session.seen, now) or engine.uncertain()
        if isinstance(stamp, K2Error):
            session.fail(requests[index], stamp)
            refused.append(index)
            stamp = 0
        stamps.append(stamp)
    if max(map(len, keys)) > key_bytes_max:
        for index, key in enumerate(keys):
            if len(key) > key_bytes_max and stamps[index]:
                session.fail(requests[index], key_refused(key, key_bytes_max))
                refused.append(index)
    if refused:
        left_out = set(refused)
        plain = [index for index in range(count) if index not in left_out]
        requests = [requests[index] for index in plain]
        txns = [txns[index] for index in plain]
        stamps = [stamps[index] for index in plain]
        keys = [keys[index] for index in plain]
        deadlines = [deadlines[index] for index in plain]
    if not requests:
        return
    single = engine.host.single
    message = Reads(session.number, requests, txns, stamps, keys, deadlines)
    if single is not None:
        engine.host.deliver(single, message)
    else:
        _deliver_by_partition(session, message)


def _deliver_by_partition(session: Session, message: Reads) -> None:
    """Give each partition the reads of its keys."""
    host, of = session.engine.host, session.engine.route.of
    first = of(min(message.keys))
    if first == of(max(message.keys)):
        host.deliver(first, message)
        return
    by_partition: dict[int, list[int]] = {}
    for index, key in enumerate(message.keys):
        by_partition.setdefault(of(key), []).append(index)
    for number, indexes in by_partition.items():
        part = Reads(
            message.owner,
            [message.requests[index] for index in indexes],
            [message.txns[index] for index in indexes],
            [message.stamps[index] for index in indexes],
            [message.keys[index] for index in indexes],
            [message.deadlines_ns[index] for index in indexes],
        )
        host.deliver(number, part)


def _plain_stamps(session: Session, txns: list[bytes], ats: Sequence[int]) -> list[int]:
    """The stamps of reads that all begin a transaction, or are all of the past; else []."""
    engine = session.engine
    count = len(txns)
    if not any(txns):
        return list(ats) if all(ats) else []
    open_ = engine.coordinator.open
    fresh = set(txns)
    if (
        any(ats)
        or len(fresh) < count
        or not session.owns(txns)
        or engine.draining
        or len(open_) + count > engine.limits.open_transactions_max
        or not fresh.isdisjoint(open_)
        or max(map(_ATTEMPT, txns)) > 1
    ):
        return []
    stamps = engine.oracle.next_stamps(count)
    if len(stamps) < count or stamps[0] <= session.seen:
        return []
    open_.update(zip(txns, stamps, strict=True))
    return list(stamps)
