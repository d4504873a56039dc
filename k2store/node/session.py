"""One client's session: frames in, messages to the machines out.

A session checks everything a client can get wrong before anything is done: sizes, counts, column
lengths, ids.  A single operation that is wrong fails alone; a frame that is malformed ends the
session.  Request numbers are made unique in the node by putting the session's number above the
client's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from k2store.errors import Expired, K2Error, Overloaded, Rejected, Unavailable
from k2store.node import questions
from k2store.node.columns import Columns
from k2store.node.commits import commit_columns, early_write, roll_back
from k2store.node.limits import Ahead, Malformed, txn_refused
from k2store.node.one_shots import one_shot_columns
from k2store.node.point_reads import point_reads
from k2store.rpc.failures import to_failure
from k2store.rpc.local import LocalConnection
from k2store.rpc.transport import Connection
from k2store.v1 import session_pb2 as wire
from mvcc.coordinator import Coordinator, Open
from mvcc.messages import OWNER_BITS
from truetime import Interval

if TYPE_CHECKING:
    from k2store.node.engine import Engine

REQUEST_BITS = OWNER_BITS
REQUEST_MASK = (1 << REQUEST_BITS) - 1
PROTOCOL = 1


class Session:
    """A client's stream."""

    def __init__(self, engine: Engine, connection: Connection, number: int) -> None:
        self.engine = engine
        self.connection = connection
        self.number = number
        self.base = number << REQUEST_BITS
        self.client = b""
        self._client_word: set[int] = set()
        self._inside = isinstance(connection, LocalConnection)
        self.name = ""
        self.out = Columns()
        self.outstanding = 0
        self.closed = False
        self.seen = 0
        self._connected_ns = engine.now.lo_ns
        self._timeout_ns = engine.limits.timeout_ns

    # -- frames ------------------------------------------------------------------------------------

    def begin(self, data: bytes, now: Interval) -> wire.SessionRequest | None:
        """Decode a frame and run its point reads; returns it if :meth:`finish` has more to do.

        Raises Malformed when the session cannot go on.
        """
        try:
            frame = wire.SessionRequest.FromString(data)
        except DecodeError:
            raise Malformed("the frame is not a SessionRequest") from None
        first = not self.client
        if frame.HasField("hello"):
            self._hello(frame.hello)
        elif not self.client:
            raise Malformed("the first frame must carry `hello`")
        # A client sends its first frame after this node has accepted the stream.
        sent_ns = frame.sent_ns or (self._connected_ns if first else now.lo_ns)
        if now.lo_ns - sent_ns > self.engine.limits.timeout_ns_max:
            raise Malformed("the frame was longer on its way than any deadline lasts")
        if frame.seen:
            self._see(frame.seen, now)
        if not self._admit(frame):
            self._finished(frame.finished)
            return None
        if frame.HasField("reads"):
            point_reads(self, frame.reads, now)
        return frame

    def finish(self, frame: wire.SessionRequest, now: Interval) -> None:
        """Run everything else of a frame.  Raises Malformed when the session cannot go on."""
        if frame.finished:
            self._finished(frame.finished)
        if frame.HasField("one_shots"):
            one_shot_columns(self, frame.one_shots, now)
        for write in frame.writes:
            early_write(self, write, now)
        if frame.HasField("commits"):
            commit_columns(self, frame.commits, now)
        self._rare(frame, now)

    def _rare(self, frame: wire.SessionRequest, now: Interval) -> None:
        for scan in frame.scans:
            questions.scan(self, scan, now)
        for rollback in frame.rollbacks:
            roll_back(self, rollback)
        for outcome in frame.outcomes:
            questions.outcome(self, outcome)
        for history in frame.histories:
            questions.history(self, history)
        for waiting in frame.safe_calls:
            self.engine.safe_waits.ask(self, waiting, now)
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
        self._client_word = set(memoryview(hello.client).cast("Q"))
        self.name = hello.name[:200]
        if hello.timeout_ms:
            self._timeout_ns = self.timeout(hello.timeout_ms)
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
            *(call.request for call in frame.safe_calls),
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
            raise Ahead("`seen` lies further ahead than any correct clock gives")
        self.seen = max(self.seen, stamp)

    def owns(self, txns: Sequence[bytes]) -> bool:
        """Whether these are transaction ids of this client: 16 bytes, the first 8 the client's.

        A client inside the process may speak for others: the unary services name transactions as
        their callers do.
        """
        if set(map(len, txns)) != {16}:
            return False
        if self._inside:
            return True
        words = memoryview(b"".join(txns)).cast("Q")
        return set(words[::2]) == self._client_word

    def _finished(self, txns: Sequence[bytes]) -> None:
        if not txns or not self.owns(txns):
            return
        engine = self.engine
        open_ = engine.coordinator.open
        if open_:
            for txn in txns:
                if txn in open_:
                    engine.coordinator.forget(txn)
        engine.host.forget(list(txns))

    # -- stamps ------------------------------------------------------------------------------------

    def open_transaction(self, txn: bytes, at: int, now: Interval) -> Open | K2Error:
        """The transaction, begun here and now if this is its first message (``at`` 0)."""
        coordinator = self.engine.coordinator
        if txn not in coordinator.open:
            stamp = self.begin_transaction(txn, at, now)
            if isinstance(stamp, K2Error):
                return stamp
        transaction = coordinator.opened(txn, self.number)
        assert transaction is not None
        return transaction

    def begin_transaction(self, txn: bytes, at: int, now: Interval) -> int | K2Error:
        """Note a transaction that is not open here and give its stamp."""
        engine = self.engine
        if not self.owns((txn,)):
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

    def timeout(self, timeout_ms: int) -> int:
        if not timeout_ms:
            return self._timeout_ns
        return min(timeout_ms * 1_000_000, self.engine.limits.timeout_ns_max)

    def deadlines(self, timeouts: Sequence[int], count: int, now: Interval) -> list[int]:
        if not timeouts:
            return [now.lo_ns + self._timeout_ns] * count
        if len(timeouts) != count:
            raise Malformed("`timeout_ms` has another length than its group")
        return [now.lo_ns + self.timeout(timeout) for timeout in timeouts]
