"""One session with a node: what has been asked, what leaves, what comes back, and reconnecting.

An operation is entered in `_pending` and in the outbox, and is a future for its caller. Once per
turn of the loop the outbox leaves as one frame, so operations share the cost of a message without
any timer. A frame that arrives is spread over the futures in one pass. Deadlines are looked at by
one coarse timer that runs only while somebody waits.

When the connection ends nobody knows which of the last frames arrived. On the next one

    reads, scans, questions, early writes   are sent again: doing them twice changes nothing
    one-shots                               are sent again under their id: the node applies an id
                                            once and gives the stored answer
    commits that had left                   fail with `CommitLost`: the transaction asks what
                                            became of it before anything else happens
    commits that had not left               leave

The node drops what it has not read of the old stream when it meets the new hello, so nothing
that is sent again can be overtaken by its first copy.

A read outside of transactions that nobody could serve is asked again until its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from k2store.client.bounded_time import BoundedTime
from k2store.client.doubt import CommitLost, doubtful, pause_before, too_late
from k2store.client.outbox import (
    CALL,
    COMMIT,
    DEADLINE,
    FUTURE,
    KIND,
    ONE_SHOT,
    READ,
    REQUEST,
    Call,
    Commit,
    Entry,
    Future,
    OneShot,
    Outbox,
    Owner,
    Read,
)
from k2store.client.waker import Answered, Waker
from k2store.errors import (
    ClockUncertain,
    Corruption,
    Deadline,
    K2Error,
    OutcomeUnknown,
    Overloaded,
    Rejected,
    Unavailable,
)
from k2store.rpc.failures import from_failure
from k2store.rpc.transport import (
    FRAME_BYTES_MAX,
    SEND_QUEUE_BYTES_MAX,
    ConnectFailed,
    Connection,
    ConnectionClosed,
    Dialer,
)
from k2store.v1 import session_pb2 as wire

if TYPE_CHECKING:
    from k2store.client.conditions import Condition
    from k2store.client.retry import Rng
    from k2store.client.settings import ClientSettings
    from k2store.client.watch import Watch

PROTOCOL: Final = 1
_QUEUE_BYTES_HIGH: Final = SEND_QUEUE_BYTES_MAX // 2
_KEY_BYTES_MAX: Final = 4 * 1024
_VALUE_BYTES_MAX: Final = 1024 * 1024
_UNRESOLVED_MAX: Final = 1024
_UNCERTAIN: Final = (OutcomeUnknown, Unavailable, Deadline, Corruption)
"""When the node answers a commit like this, the commit may have taken."""


class Session:
    """The one session of a `Database`; implements the transport's `Handler`."""

    __slots__ = (
        "_addresses",
        "_closed",
        "_connection",
        "_create_future",
        "_dialer",
        "_drain_task",
        "_draining",
        "_fatal",
        "_flushing",
        "_hello",
        "_last_failure",
        "_link_task",
        "_loop",
        "_metadata",
        "_next_request",
        "_operations_max",
        "_outbox",
        "_pause_s",
        "_pending",
        "_queued_bytes",
        "_rng",
        "_sent_before",
        "_sweeper",
        "_turn",
        "_waker",
        "_watches",
        "_welcomed",
        "blocks_open",
        "bounded_time",
        "client",
        "early_write_bytes",
        "early_write_count",
        "key_bytes_max",
        "next_number",
        "now_s",
        "operations_max",
        "safe",
        "seen",
        "settings",
        "unresolved",
        "value_bytes_max",
        "welcome",
    )

    def __init__(
        self,
        addresses: tuple[str, ...],
        dialer: Dialer,
        hello: wire.SessionHello,
        metadata: Mapping[str, str],
        settings: ClientSettings,
        bounded_time: BoundedTime,
        rng: Rng,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._rng = rng
        self._pause_s = 0.0
        self._last_failure = ""
        self._addresses = addresses
        self._dialer = dialer
        self._hello = hello
        self.client = hello.client
        self.next_number = 1
        self._metadata = metadata
        self.settings = settings
        self._operations_max = settings.operations_max
        self._loop = loop
        self._create_future: Callable[[], Future] = loop.create_future
        self.now_s: Callable[[], float] = loop.time
        self.bounded_time = bounded_time
        self._outbox = Outbox(settings.frame_bytes, hello.timeout_ms)
        self._pending: dict[int, Entry] = {}
        self._watches: dict[int, Watch] = {}
        self._sent_before: set[int] = set()  # one-shots an earlier connection has carried
        self._next_request = 1
        self._queued_bytes = 0
        self._flushing = False
        self._waker = Waker(loop, lambda: self._flushing)
        self._connection: Connection | None = None
        self._link_task: asyncio.Task[None] | None = None
        self._drain_task: asyncio.Task[None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._turn = 0
        self._draining = False
        self._closed = False
        self._fatal: K2Error | None = None
        self._welcomed: asyncio.Future[None] = loop.create_future()
        self.welcome = wire.SessionWelcome()
        self.key_bytes_max = _KEY_BYTES_MAX
        self.value_bytes_max = _VALUE_BYTES_MAX
        self.operations_max = 10_000
        self.early_write_count = settings.early_write_count
        self.early_write_bytes = settings.early_write_bytes
        self.seen = self.safe = self.blocks_open = 0
        self.unresolved: dict[bytes, tuple[bytes, int, int]] = {}

    # ------------------------------------------------------------------------------ life

    async def open(self, timeout_s: float) -> None:
        """Connect and wait until the node has said who it is; `Unavailable` if nobody does."""
        self._start_link()
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._welcomed)
        except TimeoutError:
            self.close()
            raise Unavailable(
                f"none of {', '.join(self._addresses)} answered within {timeout_s:g} s"
                + (f": {self._last_failure}" if self._last_failure else "")
            ) from None

    def close(self) -> None:
        """End the session; whoever still waits gets `Unavailable`."""
        if self._closed:
            return
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            self._send(connection, None)
            self._send_finished(connection)
            connection.close("the client has closed")
        for task in (self._link_task, self._drain_task):
            if task is not None:
                task.cancel()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.bounded_time.close()
        self._fail_everything(self._fatal or Unavailable("the database object is closed"))
        if not self._welcomed.done():
            self._welcomed.cancel()

    @property
    def address(self) -> str:
        """Where the session is, or where it tries next."""
        return self._addresses[self._turn % len(self._addresses)]

    @property
    def in_flight(self) -> int:
        """Operations without an answer."""
        return len(self._pending)

    # ---------------------------------------------------------------------------- asking

    def read(
        self,
        txn: bytes,
        at: int,
        key: bytes,
        deadline: float,
        timeout_ms: int,
        owner: Owner | None,
    ) -> Future:
        """A point read; the future gives `(value or None, version, at)`."""
        request = self._next_request
        self._next_request = request + 1
        future = self._create_future()
        entry: Read = (future, deadline, READ, request, txn, at, key, timeout_ms, owner)
        if len(self._pending) >= self._operations_max or self._closed:
            raise self._refusal()
        self._pending[request] = entry
        self._outbox.reads.append(entry)
        if not self._flushing:
            self._schedule_flush()
        return future

    def commit(
        self,
        txn: bytes,
        at: int,
        keys: list[bytes],
        values: list[bytes | None],
        size: int,
        deadline: float,
        timeout_ms: int,
        early: int = 0,
    ) -> Future:
        """A commit; the future gives `(at, waited_ns, versions, values)` or raises CommitLost.

        `early`: how many writes of the transaction have left before.
        """
        request = self._next_request
        self._next_request = request + 1
        future = self._create_future()
        entry: Commit = (
            future,
            deadline,
            COMMIT,
            request,
            txn,
            at,
            keys,
            values,
            timeout_ms,
            early,
            size,
        )
        self._queued_bytes += size
        if (
            len(self._pending) >= self._operations_max
            or self._queued_bytes > self.settings.queued_bytes_max
            or self._closed
        ):
            self._queued_bytes -= size
            raise self._refusal()
        self._pending[request] = entry
        self._outbox.commits.append(entry)
        if not self._flushing:
            self._schedule_flush()
        return future

    def one_shot(
        self,
        txn: bytes,
        conditions: tuple[Condition, ...],
        reads: tuple[bytes, ...],
        keys: tuple[bytes, ...],
        values: tuple[bytes | None, ...],
        size: int,
        deadline: float,
        timeout_ms: int,
    ) -> Future:
        """A one-shot transaction; the future gives `(at, waited_ns, versions, values)`."""
        request = self._next_request
        self._next_request = request + 1
        future = self._create_future()
        entry: OneShot = (
            future,
            deadline,
            ONE_SHOT,
            request,
            txn,
            timeout_ms,
            conditions,
            reads,
            keys,
            values,
            size,
        )
        self._queued_bytes += size
        if (
            len(self._pending) >= self._operations_max
            or self._queued_bytes > self.settings.queued_bytes_max
            or self._closed
        ):
            self._queued_bytes -= size
            raise self._refusal()
        self._pending[request] = entry
        self._outbox.one_shots.append(entry)
        if not self._flushing:
            self._schedule_flush()
        return future

    def call(self, field: str, message: Any, deadline: float, owner: Owner | None) -> Future:
        """Anything that travels as a message of its own; the future gives the answer's message."""
        request = self._next_request
        self._next_request = request + 1
        message.request = request
        size = message.ByteSize()
        if size > FRAME_BYTES_MAX // 2:
            raise Rejected(f"a call of {size} bytes does not fit a frame", field=field)
        self._queued_bytes += size
        if (
            len(self._pending) >= self._operations_max
            or self._queued_bytes > self.settings.queued_bytes_max
            or self._closed
        ):
            self._queued_bytes -= size
            raise self._refusal()
        future = self._create_future()
        entry: Call = (future, deadline, CALL, request, field, message, owner)
        self._pending[request] = entry
        self._outbox.calls.append(entry)
        if not self._flushing:
            self._schedule_flush()
        return future

    def rollback(self, txn: bytes) -> None:
        """End a transaction without effect; nobody waits for the answer."""
        if self._connection is None or self._closed:
            return  # The node ends what its client does not continue.
        message = wire.RollbackCall(txn=txn)
        future = self._create_future()
        self._outbox.calls.append((future, 0.0, CALL, 0, "rollbacks", message, None))
        if not self._flushing:
            self._schedule_flush()

    def finished(self, txn: bytes, *, doubt: bool = False) -> None:
        """Let the node forget a transaction, soon; not where a copy may be alive (`doubt`)."""
        self._outbox.finish(txn, doubt=doubt)

    def sent_twice(self, txn: bytes) -> bool:
        """Whether two connections have carried a one-shot."""
        return txn in self._outbox.twice

    def remember_unresolved(self, txn: bytes, anchor: bytes, at: int, not_before: int) -> None:
        """Keep where the record of a transaction is whose outcome could not be learned."""
        self._outbox.finish(txn, doubt=True)
        if len(self.unresolved) >= _UNRESOLVED_MAX:
            del self.unresolved[next(iter(self.unresolved))]
        self.unresolved[txn] = (anchor, at, not_before)

    def add_watch(self, watch: Watch) -> int:
        """Start a watch; it is started again where it was on every new connection."""
        if self._closed:
            raise self._refusal()
        request = self._next_request
        self._next_request = request + 1
        self._watches[request] = watch
        self._queue_watch(request, watch)
        return request

    def forget_watch(self, request: int) -> None:
        """The node has ended a watch."""
        self._watches.pop(request, None)

    def watch_progress(self, request: int, consumed: int, *, cancel: bool = False) -> None:
        """Tell the node what has been consumed of a watch, or that it is over."""
        if cancel and self._watches.pop(request, None) is None:
            return
        if self._connection is None or self._closed:
            return
        self._outbox.progress[request] = wire.WatchProgress(
            request=request, consumed=consumed, cancel=cancel
        )
        if not self._flushing:
            self._schedule_flush()

    def _queue_watch(self, request: int, watch: Watch) -> None:
        future = self._create_future()
        call: Call = (future, 0.0, CALL, request, "watches", watch.message(request), None)
        self._outbox.calls.append(call)
        if not self._flushing:
            self._schedule_flush()

    def report(self, message: str, error: BaseException | None) -> None:
        """Tell the loop's exception handler what has nobody else to go to."""
        context: dict[str, Any] = {"message": message}
        if error is not None:
            context["exception"] = error
        self._loop.call_exception_handler(context)

    def _refusal(self) -> K2Error:
        if self._closed:
            return self._fatal or Unavailable("the database object is closed")
        if len(self._pending) >= self._operations_max:
            limit, what = "operations_max", f"{self._operations_max} operations"
        else:
            limit, what = "queued_bytes_max", f"{self.settings.queued_bytes_max} bytes"
        return Overloaded(
            f"{what} of this client already wait",
            limit=limit,
            retry_after_s=self.settings.sweep_interval_s,
        )

    # --------------------------------------------------------------------------- leaving

    def _schedule_flush(self) -> None:
        self._flushing = True
        self._loop.call_soon(self._flush)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self.settings.sweep_interval_s, self._sweep)

    def _flush(self) -> None:
        self._flushing = False
        connection = self._connection
        if connection is not None and not self._closed and self._drain_task is None:
            self._send(connection, None)
        self._waker.left()

    def _send(self, connection: Connection, hello: wire.SessionHello | None) -> None:
        """Send the outbox, frame by frame, as far as the connection takes it."""
        outbox = self._outbox
        try:
            while hello is not None or outbox:
                if connection.queued_bytes > _QUEUE_BYTES_HIGH:
                    self._drain_task = self._loop.create_task(self._drain(connection))
                    return
                frame = outbox.frame(hello, self.seen, self.bounded_time.lower_ns())
                hello = None
                connection.send(frame)
            self._queued_bytes = 0
        except ConnectionClosed:
            return  # What was in that frame counts as sent; `on_close` takes it from there.

    def _send_finished(self, connection: Connection) -> None:
        """Nothing else leaves for a while: tell by itself which transactions are over."""
        if self._outbox.finished and not self._outbox:
            try:
                connection.send(self._outbox.frame(None, self.seen, self.bounded_time.lower_ns()))
            except ConnectionClosed:
                return

    async def _drain(self, connection: Connection) -> None:
        try:
            await connection.drain()
        except ConnectionClosed:
            return
        finally:
            self._drain_task = None
        if connection is self._connection:
            self._send(connection, None)

    # -------------------------------------------------------------------------- arriving

    def on_connect(self, connection: Connection) -> None:
        """The transport's call: say hello and send again what has no answer."""
        if self._closed:
            connection.close("the client has closed")
            return
        self._connection = connection
        self._draining = False
        self._send_again()
        self.bounded_time.asked()
        self._send(connection, self._hello)

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        """The transport's call: spread the answers over those who wait."""
        if connection is not self._connection:
            return
        response = wire.SessionResponse.FromString(frame)
        if response.lo_ns:
            self.bounded_time.observe(response.lo_ns)
        if response.safe > self.safe:
            self.safe = response.safe
        answered: Answered = []
        if response.values.request:
            self._take_values(response.values, answered)
        if response.committed.request:
            self._take_committed(response.committed, answered)
        if answered:
            self._waker.tell(answered)
        for failure in response.failures:
            self._take_failure(failure)
        self._take_others(response)
        if response.HasField("welcome"):
            self._take_welcome(response.welcome)
        if response.draining:
            self._draining = True

    def on_close(self, connection: Connection, reason: str) -> None:
        """The transport's call: connect again; `on_connect` does the rest."""
        if connection is self._connection and not self._closed:
            self._connection = None
            self._start_link()

    def _take_values(self, values: wire.ValueColumns, answered: Answered) -> None:
        pop = self._pending.pop
        at_column = values.at
        for request, at, version, value in zip(
            values.request, at_column, values.version, values.value, strict=True
        ):
            entry = pop(request, None)
            if entry is not None:
                answered.append((entry[FUTURE], (value if version else None, version, at)))
        self._saw(max(at_column))

    def _take_others(self, response: wire.SessionResponse) -> None:
        """What comes one by one."""
        if response.watch_events:
            for events in response.watch_events:
                watch = self._watches.get(events.request)
                if watch is not None:
                    watch.take(events)
        for request in response.written:
            self._answer(request, None)
        for answers in (
            response.rows,
            response.outcomes,
            response.histories,
            response.safe_answers,
        ):
            for answer in answers:
                self._answer(answer.request, answer)

    def _take_committed(self, columns: wire.CommittedColumns, answered: Answered) -> None:
        pop = self._pending.pop
        at_column = columns.at
        if columns.read_count:
            start = 0
            versions, values = columns.version[:], columns.value[:]
            for request, at, waited_ns, count in zip(
                columns.request, at_column, columns.waited_ns, columns.read_count, strict=True
            ):
                end = start + count
                entry = pop(request, None)
                if entry is not None:
                    found = (at, waited_ns, versions[start:end], values[start:end])
                    answered.append((entry[FUTURE], found))
                start = end
        else:
            for request, at, waited_ns in zip(
                columns.request, at_column, columns.waited_ns, strict=True
            ):
                entry = pop(request, None)
                if entry is not None:
                    answered.append((entry[FUTURE], (at, waited_ns, (), ())))
        self._saw(max(at_column))

    def _saw(self, stamp: int) -> None:
        if stamp > self.seen:
            self.seen = stamp

    def _answer(self, request: int, answer: Any) -> None:
        entry = self._pending.pop(request, None)
        if entry is not None and not entry[FUTURE].done():
            entry[FUTURE].set_result(answer)

    def _take_failure(self, failure: wire.Failure) -> None:
        error = from_failure(failure)
        if failure.request == 0:
            self._fail_session(error)
            return
        watch = self._watches.pop(failure.request, None)
        if watch is not None:
            watch.fail(error)
            return
        entry = self._pending.pop(failure.request, None)
        if entry is not None and not entry[FUTURE].done():
            if failure.request in self._sent_before:
                error = doubtful(entry, error)
            if isinstance(error, Unavailable | ClockUncertain) and self._put_off(entry, error):
                return
            uncertain = entry[KIND] == COMMIT and isinstance(error, _UNCERTAIN)
            entry[FUTURE].set_exception(CommitLost(error.message) if uncertain else error)

    def _put_off(self, entry: Entry, error: Unavailable | ClockUncertain) -> bool:
        """Whether it is asked again, a little later."""
        pause_s = pause_before(entry, error, self.now_s(), self._rng)
        if pause_s:
            self._loop.call_later(pause_s, self._ask_again, entry)
        return pause_s > 0

    def _ask_again(self, entry: Entry) -> None:
        if self._closed and not entry[FUTURE].done():
            entry[FUTURE].set_exception(self._refusal())
        if entry[FUTURE].done():  # Or its caller has been cancelled.
            return
        self._pending[entry[REQUEST]] = entry
        self._outbox.put(entry)
        if not self._flushing:
            self._schedule_flush()

    def _fail_session(self, error: K2Error) -> None:
        """The node has given the session up: for good if it says that we are wrong."""
        if isinstance(error, Rejected):
            self._fatal = error
            if not self._welcomed.done():
                self._welcomed.set_exception(error)
                self._welcomed.exception()  # Seen: `open` may have given up already.
            self.close()
        elif self._connection is not None:
            self._last_failure = error.message
            self._connection.close("the node has ended the session")

    def _take_welcome(self, welcome: wire.SessionWelcome) -> None:
        self.welcome = wire.SessionWelcome()
        self.welcome.CopyFrom(welcome)
        self.bounded_time.answered(welcome.ahead_ns_max)
        self._pause_s = 0.0
        self.key_bytes_max = welcome.key_bytes_max or _KEY_BYTES_MAX
        # A frame must have room for at least one write of the largest size.
        value_bytes = welcome.value_bytes_max or _VALUE_BYTES_MAX
        self.value_bytes_max = min(value_bytes, FRAME_BYTES_MAX // 2)
        self.operations_max = welcome.operations_max or self.operations_max
        self._outbox.shares_conditions = welcome.shares_conditions
        if not self._welcomed.done():
            self._welcomed.set_result(None)

    # -------------------------------------------------------------------------- the link

    def _start_link(self) -> None:
        if self._link_task is None:
            self._link_task = self._loop.create_task(self._link(), name="k2store session")

    async def _link(self) -> None:
        """Try the addresses in turn until one takes us; `on_connect` has run by then."""
        try:
            while True:
                # Nodes that hang up before they have said who they are count as not reached.
                if self._pause_s:
                    await asyncio.sleep(self._pause_s * (0.5 + self._rng.random()))
                self._pause_s = min(
                    max(self._pause_s * 2, self.settings.reconnect_pause_s),
                    self.settings.reconnect_pause_max_s,
                )
                for _ in self._addresses:
                    if await self._dial(self.address):
                        return
                    self._turn += 1
        finally:
            self._link_task = None

    async def _dial(self, address: str) -> bool:
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s):
                connection = await self._dialer.connect(address, self._metadata, self)
        except (ConnectFailed, TimeoutError, OSError) as error:
            self._last_failure = str(error) or f"{address} does not answer"
            return False
        # It may have ended before we got here; then `on_close` comes, and starts a new link only
        # after this one is over.
        return not connection.closed

    def _send_again(self) -> None:
        """Rebuild the outbox from what has no answer, for a new connection."""
        outbox, now_s = self._outbox, self.now_s()
        unsent = {commit[REQUEST] for commit in outbox.commits}
        unsent_shots = {shot[REQUEST] for shot in outbox.one_shots} - self._sent_before
        self._sent_before.clear()
        outbox.clear()
        for request, entry in list(self._pending.items()):
            if entry[FUTURE].done():  # Its caller has been cancelled.
                del self._pending[request]
                continue
            again: Any
            left_ms = max(1, int((entry[DEADLINE] - now_s) * 1000))
            kind = entry[KIND]
            if kind == READ:
                again = entry
                _, _, _, _, txn, at, key, timeout_ms, owner = again
                at = at or (owner.at if owner is not None else 0)
                timeout_ms = timeout_ms and left_ms
                again = (*entry[:4], txn, at, key, timeout_ms, owner)
                outbox.reads.append(again)
            elif kind == ONE_SHOT:
                again = (*entry[:5], left_ms, *entry[6:])
                outbox.one_shots.append(again)
                if request not in unsent_shots:
                    self._sent_before.add(request)
                    outbox.twice.add(again[4])
            elif kind == CALL:
                again = entry
                message, owner = again[5], again[6]
                if owner is not None and not message.at:
                    message.at = owner.at
                outbox.calls.append(again)
            elif request in unsent:
                again = entry
                outbox.commits.append(again)
            else:
                del self._pending[request]
                entry[FUTURE].set_exception(CommitLost("the connection was lost"))
                continue
            self._pending[request] = again
        self._restart_watches()

    def _restart_watches(self) -> None:
        """Each goes on under a new number from the last stamp that it has received."""
        watches, self._watches = self._watches, {}
        for watch in watches.values():
            request = self._next_request
            self._next_request = request + 1
            self._watches[request] = watch
            watch.restarted(request)
            future = self._create_future()
            self._outbox.calls.append(
                (future, 0.0, CALL, request, "watches", watch.message(request), None)
            )

    # ------------------------------------------------------------------------- deadlines

    def _sweep(self) -> None:
        """Fail what is past its deadline; run again while anybody waits."""
        self._sweeper = None
        if self._closed:
            return
        now_s = self.now_s()
        late = [entry for entry in self._pending.values() if entry[DEADLINE] <= now_s]
        for entry in late:
            del self._pending[entry[REQUEST]]
            if not entry[FUTURE].done():
                entry[FUTURE].set_exception(self._too_late(entry))
        if late:
            self._outbox.drop({entry[REQUEST] for entry in late})
        connection = self._connection
        if not self._pending:
            if self._draining and connection is not None and not self.blocks_open:
                self._turn += 1
                connection.close("the node is draining")
            elif connection is not None:
                self._send_finished(connection)
        if self._pending or self._outbox:
            self._sweeper = self._loop.call_later(self.settings.sweep_interval_s, self._sweep)

    def _too_late(self, entry: Entry) -> Exception:
        """What an operation past its deadline has to be told."""
        outbox = self._outbox
        waiting = (*outbox.commits, *outbox.one_shots, *outbox.reads)
        if entry[REQUEST] not in self._sent_before and any(entry is one for one in waiting):
            return Unavailable(
                f"no connection to {', '.join(self._addresses)} before the deadline; "
                "nothing was sent"
            )
        return too_late(entry)

    def _fail_everything(self, error: K2Error) -> None:
        pending, self._pending = self._pending, {}
        sent = {entry[REQUEST] for entry in pending.values()} - {
            entry[REQUEST] for entry in (*self._outbox.commits, *self._outbox.one_shots)
        }
        self._outbox.clear()
        for request, entry in pending.items():
            if entry[FUTURE].done():
                continue
            if request in sent and entry[KIND] in {COMMIT, ONE_SHOT}:
                entry[FUTURE].set_exception(self._too_late(entry))
            else:
                entry[FUTURE].set_exception(error)
        watches, self._watches = self._watches, {}
        for watch in watches.values():
            watch.fail(error)
