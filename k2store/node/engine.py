"""The engine of a node: turns, durability, and who may be told what when.

A turn, always in this order:

1. read the clock once; give every frame that has arrived to its session, which runs it through the machines;
2. take what the partitions have ready; the host puts their entries into the log, with one sync for all;
3. the host tells the partitions what stands; take the answers that waited for it;
4. hold back what rule T3 forbids to tell yet (:mod:`k2store.node.held`);
5. send each session one frame.

A failure of the disk or a broken invariant stops the engine: it answers nothing that it cannot
stand by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msgspec import Struct

from k2store.clock import Clock
from k2store.errors import (
    ClockUncertain,
    Corruption,
    K2Error,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from k2store.node.alarm import Alarm, make_alarm
from k2store.node.columns import Columns
from k2store.node.explain import explain, explain_failed
from k2store.node.feed import Feed
from k2store.node.held import Held
from k2store.node.host import Host
from k2store.node.limits import Ahead, Malformed, SessionLimits
from k2store.node.safe_waits import SafeWaits
from k2store.node.session import REQUEST_BITS, REQUEST_MASK, Session
from k2store.node.solo import SoloHost
from k2store.node.spaces import SPACE
from k2store.rpc.failures import to_failure
from k2store.rpc.transport import Connection, ConnectionClosed, SendQueueFull
from k2store.storage import StorageFailed, Store
from k2store.v1 import session_pb2 as wire
from mvcc.coordinator import Coordinator, Route
from mvcc.messages import (
    Answer,
    BatchAnswer,
    Commits,
    Committed,
    Failed,
    Outcome,
    Refused,
    Rows,
    Value,
    Values,
    Written,
)
from mvcc.partition import Partition
from mvcc.records import Entry
from mvcc.state import PartitionSettings
from mvcc.transactions import Verdict
from truetime import Interval, Oracle, OracleSettings
from truetime.timestamp import ceiling, describe, floor

ROUNDS_MAX = 1_000
"""Rounds of messages between partitions in one turn; more can only be a loop."""
SESSIONS_MAX = (1 << 18) - 1
"""Numbers of sessions; they are given again when their sessions have ended."""
FRAME_BYTES_FULL = 1 << 20
"""Keys and values after which a frame leaves; what one answer adds to it is at most as much."""
SEND_QUEUE_BYTES_FULL = 8 << 20
"""Bytes waiting for one client after which its reads are refused."""
TICK_LATE_NS = 200_000
"""How long after its moment a tick is due: a little early would be a whole tick late."""
FENCED = "this clock contradicts those of most other nodes"
DOUBT_PAUSE_S = 0.1
"""A clock that promises nothing needs longer than a stamp that is not due yet."""
SEND_AHEAD_MIN = 48
"""Answers to reads that are sent before the commits of the same turn are made durable."""


class EngineSettings(Struct, frozen=True, kw_only=True):
    """What an engine must know; times in nanoseconds."""

    name: str = "node-1"
    region: str = "local"
    oracle_id: int = 1
    oracle: OracleSettings = OracleSettings()
    partition: PartitionSettings = PartitionSettings()
    limits: SessionLimits = SessionLimits()
    heartbeat_ns: int = 500_000_000
    tick_ns: int = 20_000_000
    collect_every_ns: int = 60_000_000_000
    split_keys: tuple[bytes, ...] = ()
    """Keys at which a new store is split into partitions."""
    sync: bool = True


class Engine:
    """One node's partitions, log and sessions.  Implements the transport's ``Handler``."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: EngineSettings,
        *,
        incarnation: bytes,
        alarm: Callable[[asyncio.AbstractEventLoop, Callable[[], None]], Alarm] = make_alarm,
        on_failure: Callable[[BaseException], None] | None = None,
        host: Callable[[Engine], Host] | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.settings = settings
        self.limits = settings.limits
        self.incarnation = incarnation
        self.draining = False
        self.failed: BaseException | None = None
        self._on_failure = on_failure
        self._make_alarm = alarm
        self.log = store.log
        self.settled = store.settled
        self.now = clock.now()

        self.host: Host = (host or SoloHost)(self)
        self.coordinator = Coordinator(
            self.host.route,
            lifetime_ns_max=settings.partition.lifetime_ns_max,
            heartbeat_ns=settings.heartbeat_ns,
        )
        self.feed = Feed(self)
        self.held = Held()
        self.safe_waits = SafeWaits(self)
        self.sessions: dict[int, Session] = {}
        self.by_client: dict[bytes, Session] = {}
        self.safe = 0
        self.counts = {"turns": 0, "syncs": 0, "frames": 0, "operations": 0}
        self._by_connection: dict[int, Session] = {}
        self._session_number = 0
        self._inbox: list[tuple[Session, bytes]] = []
        self._half_done: list[tuple[Session, wire.SessionRequest]] = []
        self._touched: dict[int, Session] = {}
        self.asked: set[int] = set()
        """Requests that ask for an outcome."""
        self._scheduled = False
        self.standing = False
        """The clock promises nothing: time stands still here."""
        self._doubt = ""
        """Why, while it does."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm: Alarm | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._collected_ns = 0
        # A pass reads everything that is stored: often enough is a fraction of the retention.
        self._collect_every_ns = max(
            settings.collect_every_ns, settings.partition.retention_ns // 8
        )
        self._drained: asyncio.Event | None = None
        self.stopped = False

    # -- life --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Reserve stamps, start the partitions, and serve once the low-water mark of the start has passed."""
        self._loop = asyncio.get_running_loop()
        self._alarm = self._make_alarm(self._loop, self._wake)
        await self.host.start()
        self._tick()

    def handler_ready(self) -> bool:
        """Whether requests can be answered."""
        return self.failed is None and not self.stopped and self._ticker is not None

    async def drain(self, grace_s: float) -> None:
        """Take no new transactions and wait until the open ones have ended, at most ``grace_s``."""
        self.draining = True
        for session in self.sessions.values():
            session.out.rest().draining = True
            self.touch(session)
        self.schedule()
        assert self._loop is not None
        deadline = self._loop.time() + grace_s
        while self.coordinator.open or len(self.held):
            if self._loop.time() >= deadline or self.failed is not None:
                break
            await asyncio.sleep(0.01)
        await self.host.hand_over(deadline)

    def close(self) -> None:
        """Stop serving and give the store back.  Answers that are still held are not given."""
        if self.stopped:
            return
        self.stopped = True
        if self._ticker is not None:
            self._ticker.cancel()
        if self._alarm is not None:
            self._alarm.close()
        for session in list(self.sessions.values()):
            self._drop(session, "the node has stopped")
        try:
            if self.failed is None:
                self.host.stop()
        finally:
            self.host.abandon()
            self._close_store()

    def _close_store(self) -> None:
        try:
            self.store.close()
        except (StorageFailed, Corruption):
            # A disk that has failed fails again; why the node ends has been said.
            if self.failed is None:
                raise

    # -- the partitions ----------------------------------------------------------------------------

    @property
    def oracle(self) -> Oracle:
        """What gives stamps to transactions that begin here."""
        return self.host.oracle

    @property
    def partitions(self) -> list[Partition]:
        """The partitions held here, in order of key."""
        return self.host.partitions

    @property
    def route(self) -> Route:
        """From keys to partition numbers."""
        return self.host.route

    @property
    def replayed(self) -> int:
        """Turns found in the store when it was opened."""
        return self.host.replayed

    # -- transport ---------------------------------------------------------------------------------

    def on_connect(self, connection: Connection) -> None:
        """A stream stands; its first frame will say who it is."""
        self._session_number = self._session_number % SESSIONS_MAX + 1
        while self._session_number in self.sessions:
            self._session_number = self._session_number % SESSIONS_MAX + 1
        session = Session(self, connection, self._session_number)
        self.sessions[session.number] = session
        self._by_connection[id(connection)] = session
        if self.stopped or self.failed is not None:
            self._drop(session, "the node does not serve")

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        """A frame arrived: it waits for the next turn, with everything else that has arrived by then."""
        session = self._by_connection.get(id(connection))
        if session is None or session.closed:
            return
        self._inbox.append((session, frame))
        self.schedule()

    def on_close(self, connection: Connection, reason: str) -> None:
        """The stream has ended: what its client left open is rolled back."""
        session = self._by_connection.pop(id(connection), None)
        if session is not None:
            self._forget(session)
            self.schedule()

    def welcome(self, session: Session) -> None:
        """Answer the first frame; an older session of the same client is over."""
        older = self.by_client.get(session.client)
        if older is not None and older is not session:
            self._drop(older, "replaced by a newer session of the same client")
        self.by_client[session.client] = session
        source = self.clock.source
        welcome = session.out.rest().welcome
        welcome.incarnation = self.incarnation
        welcome.node = self.settings.name
        welcome.region = self.settings.region
        welcome.key_bytes_max = self.limits.key_bytes_max
        welcome.value_bytes_max = self.limits.value_bytes_max
        welcome.operations_max = self.limits.operations_max
        welcome.lifetime_ms_max = self.settings.partition.lifetime_ns_max // 1_000_000
        # While the clock is in doubt, true time may be later still.
        width_ns = self.now.hi_ns - self.now.lo_ns
        welcome.ahead_ns_max = max(self.settings.oracle.ahead_max_ns, width_ns)
        welcome.clock_source = source.name
        welcome.clock_assumed = source.assumed
        welcome.shares_conditions = True
        self.touch(session)

    def touch(self, session: Session) -> None:
        """The session has something to send."""
        self._touched[session.number] = session

    def _drop(self, session: Session, reason: str) -> None:
        session.connection.close(reason)
        self._by_connection.pop(id(session.connection), None)
        self._forget(session)

    def _forget(self, session: Session) -> None:
        if session.closed:
            return
        session.closed = True
        self.sessions.pop(session.number, None)
        self._touched.pop(session.number, None)
        if self.by_client.get(session.client) is session:
            del self.by_client[session.client]
        self.feed.leave(session)
        self.coordinator.leave(session.number, session.client)
        self.host.leave(session.number)

    # -- what sessions ask of the engine -----------------------------------------------------------

    def stamp(self, seen: int, now: Interval) -> int:
        """A fresh stamp above ``seen``; 0 when the clock allows none."""
        stamp = self.oracle.next_stamp()
        if stamp > seen:
            return stamp
        if stamp == 0:
            return 0
        return self.oracle.stamp_at_least(seen, now.lo_ns, now.hi_ns)

    def uncertain(self) -> K2Error:
        """Why there was no stamp."""
        if self.standing:
            return ClockUncertain(self._doubt, retry_after_s=DOUBT_PAUSE_S)
        refusal = self.oracle.refusal(self.now.lo_ns, self.now.hi_ns)
        message = "no stamp can be given now" if refusal is None else refusal.message
        return ClockUncertain(message, retry_after_s=0.002)

    def furthest(self, now: Interval) -> int:
        """No correct clock gives a stamp above this one."""
        return ceiling(now.hi_ns + self.settings.partition.ahead_ns_max)

    def oldest_allowed(self, now: Interval) -> int:
        """A transaction with a stamp below this one has outlived its time, or began in an earlier
        life of the node, which alone knew what it had written.
        """
        return max(floor(now.lo_ns - self.settings.partition.lifetime_ns_max), self.host.began)

    def history(
        self, key: bytes, at: int, count: int
    ) -> tuple[Sequence[tuple[int, bytes | None]], bool]:
        """Committed versions of a key at or below ``at``, newest first, and whether there are more.

        0 stands for all that are here.
        Raises Unavailable while this node's copy does not reach as far.
        """
        number = self.route.of(key)
        state = self.host.partition(number).state
        if not self.host.shows(number, at):
            raise Unavailable(
                f"this node's copy does not show everything up to {describe(at)} yet",
                retry_after_s=0.05,
            )
        state.settle()
        found = state.settled.versions(SPACE, key, at_most=at or (1 << 64) - 1, count_max=count + 1)
        size = 0
        for index, (_, value) in enumerate(found[:count]):
            size += len(value or b"")
            if size > FRAME_BYTES_FULL and index:
                return found[:index], True
        return found[:count], len(found) > count

    # -- turns -------------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Have a turn soon."""
        if not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """The first half of a turn: decode what has arrived and run its reads.

        When there are many of them their answers leave before the second half begins, so that the
        clients work on them while commits are made durable here.
        """
        self._scheduled = False
        if self.stopped or self.failed is not None:
            return
        try:
            self.see()
            self.host.begin_turn()
            inbox, self._inbox = self._inbox, []
            now = self.now
            for session, data in inbox:
                if session.closed:
                    continue
                try:
                    frame = session.begin(data, now)
                except Malformed as error:
                    self._expel(session, error)
                    continue
                if frame is not None:
                    self._half_done.append((session, frame))
            self.counts["turns"] += 1
            self.counts["frames"] += len(inbox)
            if self._send_reads():
                assert self._loop is not None
                self._loop.call_soon(self._finish_turn)
            else:
                self._finish()
        except (StorageFailed, Corruption) as error:
            self.fail(error)
        except BaseException as error:
            self.fail(error)
            raise

    def _send_reads(self) -> bool:
        """Send the answers to reads ahead if they are worth a frame of their own."""
        answers: list[Answer | BatchAnswer] = []
        for partition in self.partitions:
            state = partition.state
            answers += state.answers
            state.answers = []
        if not answers:
            return False
        self.dispatch(self.host.sift(answers))
        worth = [one for one in self._touched.values() if one.out.count >= SEND_AHEAD_MIN]
        for session in worth:
            # Before the sending: that may drop a session that does not take its answers.
            del self._touched[session.number]
            self._send(session)
        return bool(worth)

    def _finish_turn(self) -> None:
        """The second half of a turn whose reads have been answered ahead."""
        if self.stopped or self.failed is not None:
            return
        try:
            self.see()
            self._finish()
        except (StorageFailed, Corruption) as error:
            self.fail(error)
        except BaseException as error:
            self.fail(error)
            raise

    def _finish(self) -> None:
        frames, self._half_done = self._half_done, []
        for session, frame in frames:
            if session.closed:
                continue
            try:
                session.finish(frame, self.now)
            except Malformed as error:
                self._expel(session, error)
        self._run()

    def see(self) -> None:
        """Read the clock for the turn.

        While the clock promises nothing, time stands still here: no stamps are given, nothing is
        closed, nothing that waits for its stamp is told; what needs no stamp goes on.
        """
        try:
            lo_ns, hi_ns = self.clock.read()
            if self.host.fenced:
                raise ClockUncertain(FENCED)
            self.standing = False
        except ClockUncertain as error:
            self.standing, self._doubt = True, error.message
            lo_ns = self.now.lo_ns
            hi_ns = max(self.now.hi_ns, lo_ns + 2 * self.settings.oracle.uncertainty_max_ns)
        self.now = Interval(lo_ns, hi_ns)
        self.oracle.open_turn(lo_ns, hi_ns)
        self.host.see(self.now)

    def _expel(self, session: Session, wrong: Malformed) -> None:
        reason = str(wrong)
        failure = to_failure(Unavailable(f"the session is over: {reason}"))
        if not isinstance(wrong, Ahead):
            failure.reason = "Rejected"
        session.out.add_failure(failure)
        self._send(session)
        self._drop(session, reason)

    def _run(self) -> None:
        """Carry messages, make entries durable, give answers, until there is nothing left to do now."""
        for _ in range(ROUNDS_MAX):
            moved = self.host.persist(self._gather())
            for partition in self.partitions:
                if partition.state.parked:
                    partition.wake(self.now)
            if not moved and not self._pending():
                break
        else:
            raise AssertionError("partitions have been talking to each other without end")
        self._release()
        self.safe_waits.look()
        for session in list(self._touched.values()):
            self._send(session)
        self._touched.clear()
        self.host.flush()
        self._set_alarm()

    def _pending(self) -> bool:
        if self.coordinator.sends or self.coordinator.answers:
            return True
        return any(partition.gathered for partition in self.partitions)

    def _gather(self) -> list[Entry]:
        """Deliver messages and answers between the machines; collect the entries to make durable."""
        coordinator = self.coordinator
        entries: list[Entry] = []
        for _ in range(ROUNDS_MAX):
            if coordinator.sends:
                sends, coordinator.sends = coordinator.sends, []
                for number, message in sends:
                    self.host.deliver(number, message)
            if coordinator.answers:
                answers, coordinator.answers = coordinator.answers, []
                self.dispatch(answers)
            moved = False
            for partition in self.partitions:
                if not partition.gathered:
                    continue
                ready = partition.ready()
                if ready.entry is not None:
                    entries.append(ready.entry)
                if ready.answers:
                    self.dispatch(self.host.sift(ready.answers))
                for key, message in ready.sends:
                    moved = True
                    self.host.carry(key, message)
            if not moved and not coordinator.sends and not coordinator.answers:
                return entries
        raise AssertionError("messages have been going round without end")

    # -- answers -----------------------------------------------------------------------------------

    def dispatch(self, answers: Sequence[Answer | BatchAnswer]) -> None:
        """Give each answer to whom it belongs; hold those that rule T3 keeps back."""
        sessions = self.sessions
        touched = self._touched
        lo = floor(self.now.lo_ns)
        for answer in answers:
            if isinstance(answer, Values):
                session = sessions.get(answer.owner)
                if session is not None:
                    self._give_values(session, answer)
                    touched[session.number] = session
                continue
            if isinstance(answer, Commits):
                self._committed_together(answer, lo)
                continue
            token = answer.request
            if token < 0:
                self.coordinator.receive(answer)
                continue
            if isinstance(answer, Value):
                session = sessions.get(token >> REQUEST_BITS)
                if session is not None:
                    session.out.add_value(token & REQUEST_MASK, answer)
                    touched[session.number] = session
                    if session.out.size > FRAME_BYTES_FULL:
                        self._send(session)
            elif isinstance(answer, Committed):
                if answer.stamp >= lo:
                    self.held.hold(answer.stamp, answer, self.now.lo_ns)
                    continue
                session = sessions.get(token >> REQUEST_BITS)
                if session is not None:
                    session.out.add_committed(token & REQUEST_MASK, answer, 0)
                    touched[session.number] = session
            elif isinstance(answer, Failed) or (
                isinstance(answer, Outcome) and answer.verdict == Verdict.COMMITTED
            ):
                if answer.stamp >= lo:
                    self.held.hold(answer.stamp, answer, self.now.lo_ns)
                else:
                    self._tell(answer, 0)
            else:
                self._tell(answer, 0)

    def _give_values(self, session: Session, answer: Values) -> None:
        """Add values to the session's frame; long ones leave in several frames."""
        if sum(map(len, answer.values)) + session.out.size <= FRAME_BYTES_FULL:
            session.out.add_values(answer)
            return
        columns = zip(answer.requests, answer.stamps, answer.versions, answer.values, strict=True)
        for request, stamp, version, value in columns:
            if session.connection.queued_bytes > SEND_QUEUE_BYTES_FULL:
                error = Overloaded(
                    "the answers of this session already fill its queue; read less at a time",
                    limit="send queue",
                    retry_after_s=0.05,
                )
                session.fail(request, error)
                continue
            session.out.add_values(Values(answer.owner, [request], [stamp], [version], [value]))
            if session.out.size > FRAME_BYTES_FULL:
                self._send(session)

    def _committed_together(self, answer: Commits, lo: int) -> None:
        session = self.sessions.get(answer.owner)
        if session is None:
            return
        if max(answer.stamps) < lo:
            session.out.add_commits(answer)
            self._touched[session.number] = session
            return
        for request, stamp in zip(answer.requests, answer.stamps, strict=True):
            one = Committed(session.base | request, stamp, None)
            self.held.hold(stamp, one, self.now.lo_ns)

    def _release(self) -> None:
        held = self.held
        if not len(held):
            return
        self.see()
        lo_ns = self.now.lo_ns
        for answer, waited_ns in held.release(floor(lo_ns), lo_ns):
            self._tell(answer, waited_ns)

    def _tell(self, answer: Answer, waited_ns: int) -> None:
        session = self.sessions.get(answer.request >> REQUEST_BITS)
        asked = answer.request in self.asked
        self.asked.discard(answer.request)
        if session is None:
            return
        request = answer.request & REQUEST_MASK
        out = session.out
        if isinstance(answer, Committed):
            out.add_committed(request, answer, waited_ns)
        elif isinstance(answer, Refused):
            out.add_failure(to_failure(explain(answer.refusal), request))
        elif isinstance(answer, Failed):
            out.add_failure(to_failure(explain_failed(answer), request))
        elif isinstance(answer, Rows):
            out.add_rows(request, answer)
        elif isinstance(answer, Written):
            out.count += 1
            out.written.append(request)
        elif isinstance(answer, Outcome):
            if answer.verdict == Verdict.UNKNOWN and not asked:
                # The answer to a commit, not to a question: its client will ask.
                lost = OutcomeUnknown("whoever led the partition did not say; ask the record")
                out.add_failure(to_failure(lost, request))
                self._touched[session.number] = session
                return
            out.count += 1
            outcome = out.rest().outcomes.add(request=request, at=answer.stamp)
            outcome.state = _OUTCOMES[answer.verdict]
        else:
            out.add_value(request, answer)
        self._touched[session.number] = session
        if out.size > FRAME_BYTES_FULL:
            self._send(session)

    def _send(self, session: Session) -> None:
        out = session.out
        if out.count == 0 and out.other is None:
            return
        session.out = Columns()
        session.outstanding -= out.count
        self.counts["operations"] += out.count
        if session.closed:
            return
        try:
            session.connection.send(out.encode(self.now.lo_ns, self.safe))
        except (SendQueueFull, ConnectionClosed, ValueError) as error:
            self._drop(session, f"the client does not take its answers: {error}")

    # -- time --------------------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        next_ns = self.held.next_ns()
        if any(partition.state.parked for partition in self.partitions):
            soon_ns = self.now.lo_ns + 50_000
            next_ns = soon_ns if next_ns is None else min(next_ns, soon_ns)
        if next_ns is not None and self._alarm is not None:
            delay_ns = next_ns - self.now.lo_ns
            self._alarm.set(max(delay_ns, 5_000_000) if self.standing else delay_ns)

    def _wake(self) -> None:
        """The alarm: something can be released or run again."""
        if self.stopped or self.failed is not None:
            return
        try:
            self.see()
            self._run()
        except (StorageFailed, Corruption) as error:
            self.fail(error)
        except BaseException as error:
            self.fail(error)
            raise

    def _tick(self) -> None:
        """Upkeep, on a coarse timer."""
        assert self._loop is not None
        if self.stopped or self.failed is not None:
            return
        try:
            self._upkeep()
        except ClockUncertain:
            pass  # no stamps are given and no time is closed until the clock is certain again
        except (StorageFailed, Corruption) as error:
            self.fail(error)
        except BaseException as error:
            self.fail(error)
            raise
        # Just after multiples of the tick, so that nodes that agree on the time act together.
        tick_ns = self.settings.tick_ns
        delay_ns = tick_ns - self.now.lo_ns % tick_ns + TICK_LATE_NS
        self._ticker = self._loop.call_later(delay_ns / 1e9, self._tick)

    def _upkeep(self) -> None:
        self.see()
        now = self.now
        until_ns = self.oracle.needs_reservation(now)
        if until_ns is not None:
            self.host.reserve(until_ns)
        self.coordinator.tick(now)
        protected = self.feed.oldest()
        self.host.tick(now, self.coordinator.oldest(), protected)
        if now.lo_ns - self._collected_ns > self._collect_every_ns:
            self._collected_ns = now.lo_ns
            self.host.collect(protected)
        self.safe = self.host.safe()
        self.feed.tick()
        self._run()

    # -- failure -----------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Stop at once: nothing that is not certain is answered, now or later."""
        if self.failed is not None:
            return
        self.failed = error
        for session in list(self.sessions.values()):
            self._drop(session, "the node has failed")
        if isinstance(error, Corruption):
            self.store.quarantine(str(error))
        if self._on_failure is not None:
            self._on_failure(error)


_OUTCOMES: dict[int, wire.OutcomeState] = {
    Verdict.UNKNOWN: wire.OUTCOME_STATE_UNKNOWN,
    Verdict.COMMITTED: wire.OUTCOME_STATE_COMMITTED,
    Verdict.ABORTED: wire.OUTCOME_STATE_ABORTED,
    Verdict.GONE: wire.OUTCOME_STATE_UNKNOWN,
}
