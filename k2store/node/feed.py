"""The change feed of a node: whole commits in stamp order, marks, no gap and no repetition
(docs/protocol.md §5.6).

A change may be told once nothing older can come any more, that is when its stamp is at or below the
safe time of every partition the watch touches.  While somebody watches, partitions hand on what they
commit; each watch has a heap of what lies in its range, and each tick takes off what has become safe::

    commits ──► each watch's range ──► heap by stamp ──► (safe time passes) ──► group by stamp ──► queue ──► session

So a partition whose safe time stands still, because its home is cut off, holds back only watches that
touch it.

A new watch begins in the past.  It is given a *join* stamp beyond anything committed so far;
versions between its cursor and the join come from the store, once the safe time has reached the
join, and everything after that from the heap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from k2store.errors import K2Error, Overloaded, Rejected, TooOld, Unavailable
from k2store.node.spaces import SPACE
from k2store.rpc.failures import to_failure
from k2store.v1 import session_pb2 as wire
from mvcc.settled import Row
from truetime import Interval
from truetime.timestamp import describe, floor

if TYPE_CHECKING:
    from k2store.node.engine import Engine
    from k2store.node.session import Session

WINDOW = 4_096
"""Events sent to a watch before its client must report progress."""
BATCH_EVENTS = 1_024
"""Events in one frame."""
BATCH_BYTES = 1 << 20
"""Bytes of keys and values in one frame; the commit that passes it is still sent whole."""
CATCH_UP_BATCHES = 4
"""Batches of stored rows a watch reads in one tick."""
IDLE_TICKS_MAX = 500
"""Ticks without watches before partitions stop gathering changes."""

Commit = tuple[int, list[tuple[bytes, bytes | None]]]
"""A commit as a watch sees it: its stamp and its changes inside the range, in order of key."""


class Watch:
    """One watch of one session."""

    def __init__(
        self, session: Session, request: int, start: bytes, end: bytes, since: int, join: int
    ) -> None:
        self.session = session
        self.request = request
        self.start = start
        self.end = end
        self.cursor = since
        self.join = join
        self.heap: list[tuple[int, bytes, bytes | None]] = []
        self.queue: deque[Commit] = deque()
        self.queued_events = 0
        self.backlog_events = 0
        self.sent = 0
        self.consumed = 0
        self.resolved = 0
        self.rows: Iterator[Sequence[Row]] | None = None
        self.found: list[tuple[int, bytes, bytes | None]] = []
        self.live = False

    def covers(self, key: bytes) -> bool:
        """Whether the key lies in the watch's range."""
        return self.start <= key and (not self.end or key < self.end)

    def take_safe(self, safe: int) -> None:
        """Queue what has become safe, and stand there.

        What a leader had handed on when it was deposed may come once more, from the log.
        """
        if safe <= self.cursor:
            return  # A copy has come or gone; what was told stays true meanwhile.
        changes: list[tuple[int, bytes, bytes | None]] = []
        while self.heap and self.heap[0][0] <= safe:
            change = heappop(self.heap)
            if not changes or changes[-1] != change:
                changes.append(change)
        for commit in _grouped(changes):
            if commit[0] > self.cursor:
                self.put(commit)
        self.cursor = safe

    def put(self, commit: Commit) -> None:
        """Queue a commit for sending."""
        self.queue.append(commit)
        self.queued_events += len(commit[1])


class Feed:
    """All watches of a node."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watches: dict[tuple[int, int], Watch] = {}
        self.gathering = False
        self._idle_ticks = 0
        self.events = 0
        self.cut_off = 0

    def __len__(self) -> int:
        return len(self._watches)

    # -- requests of sessions ----------------------------------------------------------------------

    def open(self, session: Session, call: wire.WatchCall, now: Interval) -> None:
        """Begin a watch."""
        limits = self._engine.limits
        error: K2Error | None = None
        horizon = max((one.state.horizon for one in self._engine.partitions), default=0)
        if len(self._watches) >= limits.watches_max:
            error = Overloaded(
                f"{limits.watches_max} watches are open on this node",
                limit="limits.watchers",
                retry_after_s=1.0,
            )
        elif call.end and call.end <= call.start:
            error = Rejected("the range of a watch is empty", field="end")
        elif call.since and call.since < horizon:
            error = TooOld(
                f"changes before {describe(horizon)} have been collected; take a snapshot there "
                "and watch from it",
                horizon=horizon,
            )
        elif call.since > self._engine.furthest(now):
            error = Rejected("a watch cannot begin in the future", field="since")
        if error is not None:
            self._end(session, call.request, error)
            return
        self._gather()
        since = call.since or floor(now.lo_ns)
        watch = Watch(
            session, call.request, call.start, call.end, since, self._engine.furthest(now)
        )
        self._watches[session.number, call.request] = watch

    def progress(self, session: Session, progress: wire.WatchProgress) -> None:
        """The client has consumed events, or ends the watch."""
        watch = self._watches.get((session.number, progress.request))
        if watch is None:
            return
        if progress.cancel:
            del self._watches[session.number, progress.request]
            return
        watch.consumed = min(max(watch.consumed, progress.consumed), watch.sent)
        self._send(watch)

    def leave(self, session: Session) -> None:
        """The session is over, and its watches with it."""
        for key in [key for key in self._watches if key[0] == session.number]:
            del self._watches[key]

    def oldest(self) -> int:
        """The oldest cursor that still reads from the store; 0 when none does."""
        return min((watch.cursor for watch in self._watches.values() if not watch.live), default=0)

    # -- time --------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Tell what has become safe."""
        if not self.gathering:
            return
        for partition in self._engine.partitions:
            for change in partition.take_changes():
                for watch in self._watches.values():
                    if watch.covers(change[1]):
                        heappush(watch.heap, change)
        for watch in list(self._watches.values()):
            safe = self._engine.host.safe_in(watch.start, watch.end)
            if watch.live:
                watch.take_safe(safe)
            else:
                self._catch_up(watch, safe)
            self._send(watch)
        if self._watches:
            self._idle_ticks = 0
            return
        self._idle_ticks += 1
        if self._idle_ticks > IDLE_TICKS_MAX:
            self._stop_gathering()

    def _gather(self) -> None:
        if not self.gathering:
            self.gathering = True
            for partition in self._engine.partitions:
                partition.watch(True)

    def _stop_gathering(self) -> None:
        self.gathering = False
        for partition in self._engine.partitions:
            partition.watch(False)

    def interrupted(self, start: bytes, end: bytes) -> None:
        """Commits in [start, end) were learned as a whole state and not one by one: watches that
        touch it are ended, to be resumed from their cursors.
        """
        for key, watch in list(self._watches.items()):
            if (not end or watch.start < end) and (not watch.end or start < watch.end):
                del self._watches[key]
                error = Unavailable(
                    "this node has taken over a whole state in place of single changes; resume "
                    "the watch from its cursor",
                    retry_after_s=0.05,
                )
                self._end(watch.session, watch.request, error)

    def _catch_up(self, watch: Watch, safe: int) -> None:
        """Read what lies between the cursor and the join from the store, a few batches a tick.

        Commits above the join wait in the watch's heap meanwhile.
        """
        if safe < watch.join:
            return
        if watch.rows is None:
            watch.rows = self._stored(watch)
        for _ in range(CATCH_UP_BATCHES):
            batch = next(watch.rows, None)
            if batch is None:
                if self._collected(watch):
                    return
                watch.found.sort(key=itemgetter(0, 1))
                for commit in _grouped(watch.found):
                    watch.put(commit)
                watch.found = []
                watch.rows = None
                watch.live = True
                watch.cursor = watch.join
                watch.take_safe(safe)
                # What it had missed is no sign of a slow reader.
                watch.backlog_events = watch.queued_events
                return
            watch.found.extend(
                (stamp, key, value)
                for key, stamp, value in batch
                if watch.cursor < stamp <= watch.join
            )

    def _collected(self, watch: Watch) -> bool:
        """End a watch whose past was collected before it was read; whether it was.

        The leader of a partition knows of the watches of its own node only.
        """
        engine = self._engine
        indices = engine.route.covering(watch.start, watch.end)
        horizon = max((engine.host.partition(one).state.horizon for one in indices), default=0)
        if horizon <= watch.cursor:
            return False
        del self._watches[watch.session.number, watch.request]
        error = TooOld(
            f"changes before {describe(horizon)} have been collected before they were read; take "
            "a snapshot there and watch from it",
            horizon=horizon,
        )
        self._end(watch.session, watch.request, error)
        return True

    def _stored(self, watch: Watch) -> Iterator[Sequence[Row]]:
        engine = self._engine
        for index in engine.route.covering(watch.start, watch.end):
            state = engine.host.partition(index).state
            state.settle()
        return iter(engine.settled.all_rows(SPACE, watch.start, watch.end or None))

    # -- sending -----------------------------------------------------------------------------------

    def _send(self, watch: Watch) -> None:
        """Send what the window allows; a mark only when everything below it has been sent."""
        engine = self._engine
        fresh_events = watch.queued_events - watch.backlog_events
        if fresh_events > engine.limits.watch_queue_max and watch.live:
            self.cut_off += 1
            error = Overloaded(
                f"the watch fell {watch.queued_events} events behind and was ended; resume it from "
                "its cursor",
                limit="limits.watch_queue",
                retry_after_s=0.1,
            )
            del self._watches[watch.session.number, watch.request]
            self._end(watch.session, watch.request, error)
            return
        events: wire.WatchEvents | None = None
        count = 0
        size = 0
        while (
            watch.queue
            and watch.sent - watch.consumed < WINDOW
            and count < BATCH_EVENTS
            and size < BATCH_BYTES
        ):
            stamp, changes = watch.queue.popleft()
            if events is None:
                events = watch.session.out.rest().watch_events.add(request=watch.request)
            events.at.append(stamp)
            events.change_count.append(len(changes))
            for key, value in changes:
                events.key.append(key)
                events.value.append(value or b"")
                events.deleted.append(value is None)
                size += len(key) + len(value or b"")
            watch.sent += len(changes)
            watch.queued_events -= len(changes)
            watch.backlog_events = max(0, watch.backlog_events - len(changes))
            count += len(changes)
        mark = watch.cursor if watch.live and not watch.queue else 0
        if mark > watch.resolved:
            watch.resolved = mark
            if events is None:
                events = watch.session.out.rest().watch_events.add(request=watch.request)
            events.resolved = mark
        if events is not None:
            self.events += count
            watch.session.out.size += size
            engine.touch(watch.session)

    def _end(self, session: Session, request: int, error: K2Error) -> None:
        events = session.out.rest().watch_events.add(request=request)
        events.failure.CopyFrom(to_failure(error, request))
        self._engine.touch(session)


def _grouped(changes: list[tuple[int, bytes, bytes | None]]) -> list[Commit]:
    """Changes sorted by stamp, as one group a stamp: a stamp belongs to one transaction."""
    return [
        (stamp, [(key, value) for _, key, value in group])
        for stamp, group in groupby(changes, key=itemgetter(0))
    ]
