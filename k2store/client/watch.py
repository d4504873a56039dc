"""Watches: the commits of a range, whole and in stamp order, without gap or repetition.

::

    async for event in db.watch(k2store.prefix(b"model/"), since=cursor):
        match event:
            case k2store.Changes(at=at, records=records): ...   one commit
            case k2store.Resolved(at=at): ...                   nothing at or below `at` will come

`Watch.cursor` is the stamp up to which everything has been handed out. A watch that begins there
goes on with the next commit, so an effect that is written together with its cursor in one
transaction happens exactly once.

The node sends a bounded number of changes ahead of what the reader reports as consumed. When a
connection ends the watch goes on, on the next one, behind the last commit that has *arrived*.
A reader that falls so far behind that the node gives up gets `Overloaded`; a cursor behind the
history horizon gets `TooOld`, with the stamp from which to start again with a snapshot.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

from msgspec import Struct

from k2store.client.ranges import KeyRange, range_of
from k2store.errors import K2Error, Overloaded, Rejected, Unavailable
from k2store.rpc.failures import from_failure
from k2store.v1 import session_pb2 as wire

if TYPE_CHECKING:
    from k2store.client.session import Session

_REPORT_CHANGES = 1_024
"""How many changes are consumed before the node is told; a quarter of what it sends ahead."""


class Change(Struct, frozen=True, gc=False):
    """One key of a commit: its new value, None if it was deleted."""

    key: bytes
    value: bytes | None


class Changes(Struct, frozen=True):
    """One commit: everything it changed in the watched range, in order of key."""

    at: int
    records: tuple[Change, ...]


class Resolved(Struct, frozen=True):
    """A mark: no commit at or below this stamp will come any more."""

    at: int


Event = Changes | Resolved


class Watch:
    """Iterates over `Changes` and `Resolved`; made by `Database.watch`.

    It begins with the first use. Use it as a context manager, or call `close`, to end it before
    the database is closed.
    """

    __slots__ = (
        "_consumed",
        "_cursor",
        "_events",
        "_failure",
        "_fallback",
        "_held_bytes",
        "_held_changes",
        "_mark",
        "_range",
        "_received",
        "_reported",
        "_request",
        "_resolved",
        "_session",
        "_waiter",
    )

    def __init__(self, session: Session, where: KeyRange | bytes, *, since: int | None) -> None:
        if since is not None and not 0 <= since < 2**64:
            raise Rejected(f"{since} is not a stamp", field="since")
        self._session = session
        self._range = range_of(where)
        self._cursor = since or 0
        self._received = self._cursor
        self._fallback = 0
        self._events: deque[Changes] = deque()
        self._held_changes = 0
        self._held_bytes = 0
        self._mark = 0
        self._resolved = self._cursor
        self._consumed = 0
        self._reported = 0
        self._request = 0
        self._failure: K2Error | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Watch {self._range.start!r}..{self._range.end!r} cursor {self._cursor}>"

    @property
    def cursor(self) -> int:
        """Everything at or below this stamp has been handed out; where another watch goes on.

        0 until the first event of a watch that began "now".
        """
        return self._cursor

    async def __aenter__(self) -> Watch:
        self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Event:
        self._begin()
        while True:
            if self._events:
                return self._next_changes()
            if self._mark > self._resolved and self._mark >= self._cursor:
                self._cursor = self._resolved = self._mark
                return Resolved(self._mark)
            if self._failure is not None:
                raise self._failure
            if self._request < 0:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise Rejected("a watch has one reader at a time", field="watch")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def close(self) -> None:
        """End the watch; what has not been handed out yet is dropped."""
        if self._request > 0:
            self._session.watch_progress(self._request, max(self._consumed, 0), cancel=True)
        self._request = -1
        self._events.clear()
        self._mark = 0
        self._wake()

    def _begin(self) -> None:
        if self._request == 0:
            # Should the connection end before the node has told where "now" was, the watch goes
            # on from here: a little earlier, so that nothing can be missed.
            self._fallback = self._session.safe
            self._request = self._session.add_watch(self)

    def _next_changes(self) -> Changes:
        changes = self._events.popleft()
        count = len(changes.records)
        self._cursor = changes.at
        self._consumed += count
        self._held_changes -= count
        self._held_bytes -= _size(changes)
        if self._consumed - self._reported >= _REPORT_CHANGES and self._request > 0:
            self._reported = self._consumed
            self._session.watch_progress(self._request, self._consumed)
        return changes

    # ------------------------------------------------------------------- the session's side

    def message(self, request: int) -> wire.WatchCall:
        """The call that begins the watch, or goes on with it, on a new connection."""
        return wire.WatchCall(
            request=request,
            start=self._range.start,
            end=self._range.end,
            since=self._received,
        )

    def restarted(self, request: int) -> None:
        """The watch goes on under another number; the node counts from 0 again."""
        # What is held here has arrived and will not come again: it counts as consumed there.
        self._consumed = -self._held_changes
        self._reported = 0
        self._received = self._received or self._fallback
        self._request = request

    def take(self, events: wire.WatchEvents) -> None:
        """Events have arrived."""
        start = 0
        keys, values = events.key, events.value
        deleted = events.deleted or (False,) * len(keys)
        for at, count in zip(events.at, events.change_count, strict=True):
            end = start + count
            changes = Changes(
                at,
                tuple(
                    [
                        Change(key, None if gone else value)
                        for key, value, gone in zip(
                            keys[start:end], values[start:end], deleted[start:end], strict=True
                        )
                    ]
                ),
            )
            start = end
            if at <= self._received:
                continue  # Delivered before the connection was lost.
            self._received = at
            self._events.append(changes)
            self._held_changes += count
            self._held_bytes += _size(changes)
        if events.resolved:
            self._mark = max(self._mark, events.resolved)
            self._received = max(self._received, events.resolved)
        if events.HasField("failure"):
            self._session.forget_watch(self._request)
            self._ended(from_failure(events.failure))
        else:
            self._check_limits()
        self._wake()

    def _ended(self, error: K2Error) -> None:
        """The node has ended the watch; where that says nothing about the reader, it goes on."""
        if isinstance(error, Unavailable) and self._request > 0:
            self._received = self._received or self._fallback
            self.restarted(self._session.add_watch(self))
        else:
            self.fail(error)

    def fail(self, error: K2Error) -> None:
        """The watch is over; what has arrived is still handed out before the error."""
        if self._failure is None and self._request >= 0:
            self._failure = error
        self._wake()

    def _check_limits(self) -> None:
        settings = self._session.settings
        if (
            self._held_changes > settings.watch_events_max
            or self._held_bytes > settings.watch_bytes_max
        ):
            self._session.watch_progress(self._request, max(self._consumed, 0), cancel=True)
            self.fail(
                Overloaded(
                    f"the reader is {self._held_changes} changes ({self._held_bytes} bytes) "
                    "behind; go on from the cursor with another watch",
                    limit="watch_events_max",
                    retry_after_s=0.0,
                )
            )

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _size(changes: Changes) -> int:
    return sum([len(change.key) + len(change.value or b"") for change in changes.records])
