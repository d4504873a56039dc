"""One client's session: frames in, messages to the machines out.

A session checks everything a client can get wrong before anything is done: sizes, counts, column lengths, ids.  A single
operation that is wrong fails alone; a frame that is malformed ends the session.  Request numbers are made unique in the node
by putting the session's number above the client's.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, cast

from google.protobuf.message import DecodeError

from k2store.errors import Expired, K2Error, Overloaded, Rejected, Unavailable
from k2store.node.columns import Columns
from k2store.node.limits import (
    key_refused,
    operations_refused,
    transaction_refused,
    txn_refused,
    value_refused,
)
from k2store.rpc.failures import to_failure
from k2store.rpc.transport import Connection
from k2store.v1 import session_pb2 as wire
from mvcc.conditions import Compare, Condition, Kind, Operand, Scalar
from mvcc.coordinator import Coordinator, Mutation, Open
from mvcc.messages import (
    OWNER_BITS,
    CommitsAlone,
    Forgets,
    OneShot,
    OneShots,
    Read,
    Reads,
    Scan,
    Status,
)
from truetime import Interval

if TYPE_CHECKING:
    from k2store.node.engine import Engine

REQUEST_BITS = OWNER_BITS
REQUEST_MASK = (1 << REQUEST_BITS) - 1
PROTOCOL = 1
_ATTEMPT = itemgetter(15)


class Malformed(Exception):
    """The frame breaks the protocol; the session ends."""


class Session:
    """A client's stream."""

    def __init__(self, engine: Engine, connection: Connection, number: int) -> None:
        self.engine = engine
        self.connection = connection
        self.number = number
        self.base = number << REQUEST_BITS
        self.client = b""
        self.name = ""
        self.out = Columns()
        self.outstanding = 0
        self.closed = False
        self.seen = 0
        self._timeout_ns = engine.limits.timeout_ns

    # -- frames --------------------------------------------------------------------------------------------------

    def begin(self, data: bytes, now: Interval) -> wire.SessionRequest | None:
        """Decode a frame and run its point reads; returns it if :meth:`finish` has more to do.

        Raises Malformed when the session cannot go on.
        """
        try:
            frame = wire.SessionRequest.FromString(data)
        except DecodeError:
            raise Malformed("the frame is not a SessionRequest") from None
        if frame.HasField("hello"):
            self._hello(frame.hello)
        elif not self.client:
            raise Malformed("the first frame must carry `hello`")
        if frame.seen:
            self._see(frame.seen, now)
        if not self._admit(frame):
            self._finished(frame.finished)
            return None
        if frame.HasField("reads"):
            self._reads(frame.reads, now)
        return frame

    def finish(self, frame: wire.SessionRequest, now: Interval) -> None:
        """Run everything else of a frame.  Raises Malformed when the session cannot go on."""
        if frame.finished:
            self._finished(frame.finished)
        if frame.HasField("one_shots"):
            self._one_shots(frame.one_shots, now)
        for write in frame.writes:
            self._write(write, now)
        if frame.HasField("commits"):
            self._commits(frame.commits, now)
        self._rare(frame, now)

    def _rare(self, frame: wire.SessionRequest, now: Interval) -> None:
        for scan in frame.scans:
            self._scan(scan, now)
        for rollback in frame.rollbacks:
            self._rollback(rollback)
        for outcome in frame.outcomes:
            self._outcome(outcome)
        for history in frame.histories:
            self._history(history)
        for watch in frame.watches:
            self.engine.feed.open(self, watch, now)
        for progress in frame.watch_progress:
            self.engine.feed.progress(self, progress)

    def _hello(self, hello: wire.SessionHello) -> None:
        if self.client:
            raise Malformed("`hello` twice")
        if len(hello.client) != 8:
            raise Malformed("`hello.client` must have 8 bytes")
        if hello.protocol != PROTOCOL:
            raise Malformed(f"protocol {hello.protocol} is not spoken here; this node speaks 1")
        self.client = hello.client
        self.name = hello.name[:200]
        if hello.timeout_ms:
            self._timeout_ns = self._timeout(hello.timeout_ms)
        self.engine.welcome(self)

    def _admit(self, frame: wire.SessionRequest) -> bool:
        """Count the operations of the frame against the session's limit; over it, all are refused and none is run."""
        requests = [
            *frame.reads.request,
            *frame.commits.request,
            *frame.one_shots.request,
            *(call.request for call in frame.writes),
            *(call.request for call in frame.scans),
            *(call.request for call in frame.outcomes),
            *(call.request for call in frame.histories),
        ]
        limit = self.engine.limits.in_flight_max
        self.outstanding += len(requests)
        if self.outstanding <= limit:
            if requests and max(requests) > REQUEST_MASK:
                raise Malformed(f"request numbers have at most {REQUEST_BITS} bits")
            return True
        error = Overloaded(
            f"more than {limit} operations of this session are unanswered; wait for answers",
            limit="limits.in_flight",
            retry_after_s=0.02,
        )
        for request in requests:
            self.fail(request, error)
        return False

    def fail(self, request: int, error: K2Error) -> None:
        """Answer one operation with an error."""
        self.out.add_failure(to_failure(error, request))
        self.engine.touch(self)

    def _see(self, stamp: int, now: Interval) -> None:
        if stamp > self.engine.furthest(now):
            raise Malformed("`seen` lies further ahead than any correct clock gives")
        self.seen = max(self.seen, stamp)

    def _finished(self, txns: Sequence[bytes]) -> None:
        engine = self.engine
        open_ = engine.coordinator.open
        if open_:
            for txn in txns:
                if txn in open_:
                    engine.coordinator.forget(txn)
        forgets = Forgets(list(txns))
        for partition in engine.partitions:
            partition.receive(forgets, engine.now)

    # -- stamps --------------------------------------------------------------------------------------------------

    def _open(self, txn: bytes, at: int, now: Interval) -> Open | K2Error:
        """The transaction, begun here and now if this is its first message (``at`` 0)."""
        coordinator = self.engine.coordinator
        if txn not in coordinator.open:
            stamp = self._begin(txn, at, now)
            if isinstance(stamp, K2Error):
                return stamp
        transaction = coordinator.opened(txn, self.number)
        assert transaction is not None
        return transaction

    def _begin(self, txn: bytes, at: int, now: Interval) -> int | K2Error:
        """Note a transaction that is not open here and give its stamp."""
        engine = self.engine
        if len(txn) != 16:
            return txn_refused(txn)
        if engine.draining:
            return Unavailable("the node is draining; connect to another", retry_after_s=0.1)
        open_ = engine.coordinator.open
        limit = engine.limits.open_transactions_max
        if len(open_) >= limit:
            return Overloaded(
                f"{limit} transactions are open on this node",
                limit="limits.open_transactions",
                retry_after_s=0.05,
            )
        if at:
            if at > engine.furthest(now):
                return Rejected("the stamp lies further ahead than any clock gives", field="at")
            if at < engine.oldest_allowed(now):
                return Expired(
                    "the transaction has outlived its time; run it again", what="transaction"
                )
            stamp = at
        else:
            stamp = engine.stamp(self.seen, now)
            if not stamp:
                return engine.uncertain()
            if txn[15] > 1:
                stamp = Coordinator.place(txn, stamp)
        open_[txn] = stamp
        return stamp

    def _timeout(self, timeout_ms: int) -> int:
        if not timeout_ms:
            return self._timeout_ns
        return min(timeout_ms * 1_000_000, self.engine.limits.timeout_ns_max)

    def _deadlines(self, timeouts: Sequence[int], count: int, now: Interval) -> list[int]:
        if not timeouts:
            return [now.lo_ns + self._timeout_ns] * count
        if len(timeouts) != count:
            raise Malformed("`timeout_ms` has another length than its group")
        return [now.lo_ns + self._timeout(timeout) for timeout in timeouts]

    # -- point reads ---------------------------------------------------------------------------------------------

    def _reads(self, reads: wire.ReadColumns, now: Interval) -> None:
        engine = self.engine
        requests, txns, keys = list(reads.request), list(reads.txn), list(reads.key)
        count = len(requests)
        if not count == len(txns) == len(reads.at) == len(keys):
            raise Malformed("the columns of `reads` differ in length")
        deadlines = self._deadlines(reads.timeout_ms, count, now)
        key_bytes_max = engine.limits.key_bytes_max
        stamps = self._plain_stamps(txns, reads.at)
        refused: list[int] = []
        open_ = engine.coordinator.open
        for index, (txn, at) in enumerate(zip(txns, reads.at, strict=True) if not stamps else ()):
            stamp: int | K2Error
            if txn:
                known = open_.get(txn)
                if known is None:
                    stamp = self._begin(txn, at, now)
                elif isinstance(known, int):
                    stamp = known
                else:
                    stamp = known.stamp
            else:
                stamp = at or engine.stamp(self.seen, now) or engine.uncertain()
            if isinstance(stamp, K2Error):
                self.fail(requests[index], stamp)
                refused.append(index)
                stamp = 0
            stamps.append(stamp)
        if max(map(len, keys)) > key_bytes_max:
            for index, key in enumerate(keys):
                if len(key) > key_bytes_max and stamps[index]:
                    self.fail(requests[index], key_refused(key, key_bytes_max))
                    refused.append(index)
        if refused:
            left_out = set(refused)
            plain = [index for index in range(count) if index not in left_out]
            requests = [requests[index] for index in plain]
            txns = [txns[index] for index in plain]
            stamps = [stamps[index] for index in plain]
            keys = [keys[index] for index in plain]
            deadlines = [deadlines[index] for index in plain]
        if len(engine.partitions) == 1:
            message = Reads(self.number, requests, txns, stamps, keys, deadlines)
            engine.partitions[0].receive(message, now)
            return
        base = self.base
        of = engine.route.of
        for request, txn, stamp, key, deadline in zip(
            requests, txns, stamps, keys, deadlines, strict=True
        ):
            message_ = Read(base | request, key, stamp, txn, deadline)
            engine.partitions[of(key)].receive(message_, now)

    def _plain_stamps(self, txns: list[bytes], ats: Sequence[int]) -> list[int]:
        """The stamps of reads that all begin a transaction, or are all of the past; else []."""
        engine = self.engine
        count = len(txns)
        if not any(txns):
            return list(ats) if all(ats) else []
        open_ = engine.coordinator.open
        fresh = set(txns)
        if (
            any(ats)
            or len(fresh) < count
            or set(map(len, txns)) != {16}
            or engine.draining
            or len(open_) + count > engine.limits.open_transactions_max
            or not fresh.isdisjoint(open_)
            or max(map(_ATTEMPT, txns)) > 1
        ):
            return []
        stamps = engine.oracle.next_stamps(count)
        if len(stamps) < count or stamps[0] <= self.seen:
            return []
        open_.update(zip(txns, stamps, strict=True))
        return list(stamps)

    # -- commits -------------------------------------------------------------------------------------------------

    def _commits(self, commits: wire.CommitColumns, now: Interval) -> None:
        engine = self.engine
        count = len(commits.request)
        if not count == len(commits.txn) == len(commits.at) == len(commits.write_count):
            raise Malformed("the columns of `commits` differ in length")
        keys, values = self._columns(commits.key, commits.value, commits.deleted)
        counts = list(commits.write_count)
        if sum(counts) != len(keys):
            raise Malformed("the columns of writes differ in length")
        fits = self._all_fit(keys, values)
        open_ = engine.coordinator.open
        single = len(engine.partitions) == 1
        if single and fits and min(counts) > 0:
            txns = list(commits.txn)
            known_stamps = [open_.get(txn) for txn in txns]
            if set(map(type, known_stamps)) == {int} and len(set(txns)) == count:
                for txn in txns:
                    del open_[txn]
                together = CommitsAlone(
                    self.number,
                    list(commits.request),
                    txns,
                    cast(list[int], known_stamps),
                    counts,
                    keys,
                    values,
                )
                engine.partitions[0].receive(together, now)
                return
        deadlines = self._deadlines(commits.timeout_ms, count, now)
        alone = CommitsAlone(self.number, [], [], [], [], [], [])
        start = 0
        for index, (request, txn, at, written) in enumerate(
            zip(commits.request, commits.txn, commits.at, counts, strict=True)
        ):
            end = start + written
            known = open_.get(txn)
            if known is None:
                begun = self._begin(txn, at, now)
                if isinstance(begun, K2Error):
                    self.fail(request, begun)
                    start = end
                    continue
                known = begun
            if single and fits and written and isinstance(known, int):
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
            error = None if fits else self._too_much(mine)
            if error is not None:
                self._abandon(txn)
                self.fail(request, error)
                continue
            transaction = engine.coordinator.opened(txn, self.number)
            assert transaction is not None
            engine.coordinator.commit(transaction, self.base | request, mine, deadlines[index])
        if alone.requests:
            engine.partitions[0].receive(alone, now)

    def _all_fit(self, keys: list[bytes], values: list[bytes | None]) -> bool:
        """Whether all writes of a group are certainly within the limits, without looking at each."""
        if not keys:
            return True
        limits = self.engine.limits
        return (
            len(keys) <= limits.operations_max
            and max(map(len, keys)) <= limits.key_bytes_max
            and sum(map(len, filter(None, values))) <= limits.value_bytes_max
        )

    @staticmethod
    def _columns(
        keys: Sequence[bytes], values: Sequence[bytes], deleted: Sequence[bool]
    ) -> tuple[list[bytes], list[bytes | None]]:
        if len(keys) != len(values) or (deleted and len(keys) != len(deleted)):
            raise Malformed("the columns of writes differ in length")
        if not deleted:
            return list(keys), list(values)
        return list(keys), [
            None if gone else value for value, gone in zip(values, deleted, strict=True)
        ]

    def _abandon(self, txn: bytes) -> None:
        transaction = self.engine.coordinator.opened(txn, self.number)
        if transaction is not None:
            self.engine.coordinator.rollback(transaction)

    def _too_much(self, writes: Sequence[Mutation]) -> K2Error | None:
        limits = self.engine.limits
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

    def _write(self, call: wire.WriteCall, now: Interval) -> None:
        writes = list(zip(*self._columns(call.key, call.value, call.deleted), strict=True))
        error = self._too_much(writes)
        if error is None and not writes:
            error = Rejected("a write without keys", field="key")
        transaction = error or self._open(call.txn, call.at, now)
        if isinstance(transaction, K2Error):
            self.fail(call.request, transaction)
            return
        deadline = now.lo_ns + self._timeout(call.timeout_ms)
        self.engine.coordinator.write(transaction, self.base | call.request, writes, deadline)

    def _rollback(self, call: wire.RollbackCall) -> None:
        transaction = self.engine.coordinator.opened(call.txn, self.number)
        request = self.base | call.request if call.request else 0
        if request:
            self.outstanding += 1
        if transaction is not None:
            self.engine.coordinator.rollback(transaction, request)
        elif call.request:
            answer = self.out.rest().outcomes.add(request=call.request)
            answer.state = wire.OUTCOME_STATE_ABORTED
            self.out.count += 1
            self.engine.touch(self)

    # -- one-shots -----------------------------------------------------------------------------------------------

    def _one_shots(self, calls: wire.OneShotColumns, now: Interval) -> None:
        count = len(calls.request)
        if count != len(calls.txn):
            raise Malformed("the columns of `one_shots` differ in length")
        condition_counts = _counts(calls.condition_count, count)
        read_counts = _counts(calls.read_count, count)
        write_counts = _counts(calls.write_count, count)
        keys, values = self._columns(calls.write_key, calls.write_value, calls.write_deleted)
        deadlines = self._deadlines(calls.timeout_ms, count, now)
        if sum(write_counts) != len(keys):
            raise Malformed("the counts of `one_shots` do not add up")
        if self._one_shots_together(calls, condition_counts, write_counts, keys, values, deadlines):
            return
        conditions = _conditions(calls)
        if sum(condition_counts) != len(conditions) or sum(read_counts) != len(calls.read_key):
            raise Malformed("the counts of `one_shots` do not add up")
        writes = list(zip(keys, values, strict=True))
        reads = list(calls.read_key)
        c = r = w = 0
        for request, txn, nc, nr, nw, deadline in zip(
            calls.request,
            calls.txn,
            condition_counts,
            read_counts,
            write_counts,
            deadlines,
            strict=True,
        ):
            message = OneShot(
                self.base | request,
                txn,
                self.seen,
                deadline,
                conditions[c : c + nc],
                reads[r : r + nr],
                writes[w : w + nw],
            )
            c, r, w = c + nc, r + nr, w + nw
            self._one_shot(request, message, now)

    def _one_shots_together(
        self,
        calls: wire.OneShotColumns,
        condition_counts: Sequence[int],
        write_counts: Sequence[int],
        keys: list[bytes],
        values: list[bytes | None],
        deadlines: list[int],
    ) -> bool:
        """Hand the group over as columns where nothing in it needs a look at single operations."""
        engine = self.engine
        if (
            len(engine.partitions) > 1
            or engine.draining
            or calls.predicates
            or calls.read_key
            or not self._all_fit(keys, values)
        ):
            return False
        txns = list(calls.txn)
        kinds, condition_keys = (
            [int(kind) for kind in calls.condition_kind],
            list(calls.condition_key),
        )
        count = len(kinds)
        versions = list(calls.condition_version) or [0] * count
        wanted = list(calls.condition_value) or [b""] * count
        if (
            not count
            == sum(condition_counts)
            == len(condition_keys)
            == len(versions)
            == len(wanted)
        ):
            raise Malformed("the condition columns of `one_shots` differ in length")
        limits = self.engine.limits
        if set(map(len, txns)) != {16} or count > limits.operations_max:
            return False
        if count and (
            min(kinds) < Kind.ABSENT
            or max(kinds) >= Kind.FIELD
            or max(map(len, condition_keys)) > limits.key_bytes_max
        ):
            return False
        message = OneShots(
            self.number,
            self.seen,
            list(calls.request),
            txns,
            deadlines,
            list(condition_counts),
            kinds,
            condition_keys,
            versions,
            wanted,
            list(write_counts),
            keys,
            values,
        )
        engine.partitions[0].receive(message, engine.now)
        return True

    def _one_shot(self, request: int, message: OneShot, now: Interval) -> None:
        engine = self.engine
        error = self._one_shot_error(message)
        if error is not None:
            self.fail(request, error)
            return
        if len(engine.partitions) == 1:
            engine.partitions[0].receive(message, now)
            return
        of = engine.route.of
        touched = {of(key) for key, _ in message.writes}
        touched.update(of(key) for key in message.reads)
        for condition in message.conditions:
            if condition.kind == Kind.NO_ROW:
                touched.update(engine.route.covering(condition.key, condition.end))
            else:
                touched.add(of(condition.key))
        if len(touched) > 1:
            self.fail(
                request,
                Rejected(
                    "the keys of a one-shot lie in several partitions; use an interactive "
                    "transaction",
                    field="one_shot",
                ),
            )
            return
        engine.partitions[touched.pop() if touched else 0].receive(message, now)

    def _one_shot_error(self, message: OneShot) -> K2Error | None:
        limits = self.engine.limits
        if len(message.txn) != 16:
            return txn_refused(message.txn)
        if self.engine.draining:
            return Unavailable("the node is draining; connect to another", retry_after_s=0.1)
        operations = len(message.conditions) + len(message.reads) + len(message.writes)
        if operations > limits.operations_max:
            return operations_refused(operations, limits.operations_max)
        for key in message.reads:
            if len(key) > limits.key_bytes_max:
                return key_refused(key, limits.key_bytes_max)
        for condition in message.conditions:
            if condition.kind not in Kind._value2member_map_ or not condition.kind:
                return Rejected("a condition of no known kind", field="condition")
            if len(condition.key) > limits.key_bytes_max:
                return key_refused(condition.key, limits.key_bytes_max)
            if condition.kind >= Kind.FIELD and not 0 < condition.compare <= max(Compare):
                return Rejected("a comparison of no known kind", field="condition")
        return self._too_much(message.writes)

    # -- the rest ------------------------------------------------------------------------------------------------

    def _scan(self, call: wire.ScanCall, now: Interval) -> None:
        engine = self.engine
        limits = engine.limits
        for key in (call.start, call.end):
            if len(key) > limits.key_bytes_max + 1:
                self.fail(call.request, key_refused(key, limits.key_bytes_max))
                return
        if call.txn:
            transaction = self._open(call.txn, call.at, now)
            if isinstance(transaction, K2Error):
                self.fail(call.request, transaction)
                return
            stamp = transaction.stamp
        else:
            stamp = call.at or engine.stamp(self.seen, now)
            if not stamp:
                self.fail(call.request, engine.uncertain())
                return
        touched = engine.route.covering(call.start, call.end)
        index = touched[-1] if call.reverse else touched[0]
        rest = touched[-2] if call.reverse and len(touched) > 1 else None
        token = self.base | call.request
        if len(touched) > 1:
            partition = engine.partitions[index].state
            engine.continue_scan(token, partition.start if rest is not None else partition.end)
        message = Scan(
            token,
            call.start,
            call.end,
            stamp,
            call.txn,
            min(call.limit or limits.scan_rows_max, limits.scan_rows_max),
            call.reverse,
            now.lo_ns + self._timeout(call.timeout_ms),
        )
        engine.partitions[index].receive(message, now)

    def _outcome(self, call: wire.OutcomeCall) -> None:
        if len(call.txn) != 16:
            self.fail(call.request, txn_refused(call.txn))
            return
        engine = self.engine
        transaction = engine.coordinator.opened(call.txn, self.number) if call.decide else None
        if transaction is not None:
            # The client has lost track of it: nothing more will come.
            engine.coordinator.rollback(transaction)
        status = Status(
            self.base | call.request,
            call.txn,
            call.at,
            call.decide and call.txn[:8] == self.client,
        )
        engine.partitions[engine.route.of(call.anchor)].receive(status, engine.now)

    def _history(self, call: wire.HistoryCall) -> None:
        limits = self.engine.limits
        if len(call.key) > limits.key_bytes_max:
            self.fail(call.request, key_refused(call.key, limits.key_bytes_max))
            return
        count = min(call.limit or limits.scan_rows_max, limits.scan_rows_max)
        versions, more = self.engine.history(call.key, call.at, count)
        answer = self.out.rest().histories.add(request=call.request, more=more)
        for stamp, value in versions:
            answer.at.append(stamp)
            answer.value.append(value or b"")
            answer.deleted.append(value is None)
        self.out.count += 1
        self.engine.touch(self)


def _counts(column: Sequence[int], count: int) -> Sequence[int]:
    if not column:
        return [0] * count
    if len(column) != count:
        raise Malformed("the columns of `one_shots` differ in length")
    return column


def _conditions(calls: wire.OneShotColumns) -> list[Condition]:
    kinds = calls.condition_kind
    keys = calls.condition_key
    count = len(kinds)
    if count != len(keys):
        raise Malformed("the condition columns of `one_shots` differ in length")
    versions: Sequence[int] = calls.condition_version or [0] * count
    values: Sequence[bytes] = calls.condition_value or [b""] * count
    if count != len(versions) or count != len(values):
        raise Malformed("the condition columns of `one_shots` differ in length")
    if not calls.predicates:
        if any(kind >= Kind.FIELD for kind in kinds):
            raise Malformed("a field condition without its predicate")
        return [
            Condition(kind, key, version, value)
            for kind, key, version, value in zip(kinds, keys, versions, values, strict=True)
        ]
    predicates = iter(calls.predicates)
    conditions = []
    for kind, key, version, value in zip(kinds, keys, versions, values, strict=True):
        if kind < Kind.FIELD:
            conditions.append(Condition(kind, key, version, value))
            continue
        predicate = next(predicates, None)
        if predicate is None:
            raise Malformed("a field condition without its predicate")
        conditions.append(_field_condition(kind, key, predicate))
    return conditions


def _field_condition(kind: int, key: bytes, predicate: wire.FieldPredicate) -> Condition:
    field: str | int = predicate.name
    if predicate.WhichOneof("field") == "index":
        field = predicate.index
    chosen = predicate.WhichOneof("constant")
    constant: Scalar = getattr(predicate, chosen) if chosen is not None else None
    operand = Operand.CONSTANT
    if predicate.own == wire.OWN_OPERAND_STAMP:
        operand = Operand.OWN_STAMP
    elif predicate.own == wire.OWN_OPERAND_TIME_NS:
        operand = Operand.OWN_TIME
    return Condition(
        kind,
        key,
        end=predicate.end,
        field=field,
        compare=predicate.comparison,
        operand=operand,
        constant=constant,
    )
