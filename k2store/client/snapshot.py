"""Reads at one past stamp: no locks, no waiting, no transaction on the node.

The node says with every frame up to which stamp its answers can no longer change. A view at or
below that stamp is served at once and disturbs no writer. A `strong` view takes its stamp with
its first read, so it shows everything that was acknowledged before. A `local` one takes a fresh
stamp as well, and then waits until that is final on the node it is connected to, which asks nobody:
in a region far from the leader that is sooner than a round trip, and just as true.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from k2store.client.records import Record
from k2store.client.scan import Scan
from k2store.client.transaction import bad_key
from k2store.errors import Rejected
from k2store.v1 import session_pb2 as wire
from truetime.timestamp import time_ns

if TYPE_CHECKING:
    from k2store.client.outbox import Future
    from k2store.client.ranges import KeyRange
    from k2store.client.session import Session

_MILLISECOND_NS = 1_000_000


class View:
    """A consistent view of the whole store; made by `Database.snapshot`."""

    __slots__ = (
        "_begun",
        "_local",
        "_open",
        "_session",
        "_since",
        "_staleness_ns",
        "_timeout_ms",
        "_timeout_s",
        "at",
    )

    def __init__(
        self,
        session: Session,
        at: int,
        *,
        staleness_ns: int | None,
        timeout_s: float,
        timeout_ms: int,
        since: int = 0,
        local: bool = False,
    ) -> None:
        """`at`: the stamp, or 0 for the newest safe one that is not staler than `staleness_ns`.

        `staleness_ns` None takes a fresh stamp. `since`: the stamp is not below this one. `local`:
        what is not final on the node yet is waited for there.
        """
        self._session = session
        self.at = at
        self._staleness_ns = staleness_ns
        self._since = since
        self._local = local
        self._timeout_s = timeout_s
        self._timeout_ms = timeout_ms
        self._open = False
        self._begun: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<View at {self.at or 'a fresh stamp'}>"

    async def __aenter__(self) -> View:
        session, bounded_time = self._session, self._session.bounded_time
        if self.at:
            if not bounded_time.covers(self.at):
                await bounded_time.past(self.at)
        elif self._staleness_ns is not None and session.safe:
            # How late it may be counts, not how late it is at least: frames take their time.
            fresh = bounded_time.upper_ns() - time_ns(session.safe) <= self._staleness_ns
            if fresh and session.safe >= self._since:
                self.at = session.safe
        self._open = True
        if not self.at and (self._local or self._since):
            await self._wait_until_safe()
        return self

    @property
    def staleness_s(self) -> float:
        """How old the view may be at this moment, at most, in seconds; 0 while it has no stamp."""
        if not self.at:
            return 0.0
        session = self._session
        latest_ns = session.bounded_time.upper_ns()
        return max(0, latest_ns - time_ns(self.at)) / 1e9

    async def _wait_until_safe(self) -> None:
        """Have the node wait for the stamp: `since`, or with `local` and nothing else a fresh one."""
        session = self._session
        fresh = self._local and self._staleness_ns is None
        call = wire.SafeCall(at=0 if fresh else self._since, timeout_ms=self._timeout_ms)
        deadline = session.now_s() + self._timeout_s
        answer: wire.SafeAnswer = await session.call("safe_calls", call, deadline, self)
        # What has become safe meanwhile is as good, and newer.
        await self._take_stamp(max(answer.at, session.safe) if not fresh else answer.at)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False

    async def get(self, key: bytes) -> bytes | None:
        """The value of a key at the view's stamp; None when there is none."""
        value: bytes | None
        session, at = self._session, self.at
        if not at or not self._open or type(key) is not bytes or len(key) > session.key_bytes_max:
            self._check(key)
            value, _, _ = await self._first(key)
            return value
        deadline = session.now_s() + self._timeout_s
        value, _, _ = await session.read(b"", at, key, deadline, self._timeout_ms, self)
        return value

    async def get_record(self, key: bytes) -> Record | None:
        """The row of a key at the view's stamp, with its version."""
        value, version, _ = await (self._ask(key) if self.at else self._first(key))
        return None if value is None else Record(key, value, version)

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes | None]:
        """The values of several keys, asked for together."""
        found: dict[bytes, bytes | None] = dict.fromkeys(keys)
        for key in found:
            self._check(key)
        rest = list(found)
        if rest and not self.at:
            found[rest[0]] = (await self._first(rest[0]))[0]
            del rest[0]
        asked: dict[bytes, Future] = {}
        try:
            for key in rest:
                asked[key] = self._ask(key)
            for key, future in asked.items():
                found[key] = (await future)[0]
        finally:
            for future in asked.values():
                future.cancel()
        return found

    def scan(
        self, where: KeyRange | bytes, *, limit: int | None = None, reverse: bool = False
    ) -> Scan:
        """The rows of a range or prefix, in key order."""
        return Scan(self, where, limit=limit, reverse=reverse)

    async def page(self, message: wire.ScanCall) -> wire.RowsPage:
        """One page of a scan at the view's stamp; `Scan` asks for it."""
        if not self._open:
            raise _closed()
        leader = not self.at and await self._begin()
        session = self._session
        message.at = self.at
        message.timeout_ms = self._timeout_ms
        try:
            page: wire.RowsPage = await session.call(
                "scans", message, session.now_s() + self._timeout_s, self
            )
            if leader:
                await self._take_stamp(page.at)
        finally:
            if leader:
                self._release()
        return page

    def layers(self) -> tuple[dict[bytes, bytes | None], ...]:
        """Nothing is written in a view."""
        return ()

    def _ask(self, key: bytes) -> Future:
        self._check(key)
        session = self._session
        deadline = session.now_s() + self._timeout_s
        return session.read(b"", self.at, key, deadline, self._timeout_ms, self)

    def _check(self, key: bytes) -> None:
        if not self._open:
            raise _closed()
        if type(key) is not bytes or len(key) > self._session.key_bytes_max:
            raise bad_key(key, self._session.key_bytes_max)

    async def _first(self, key: bytes) -> tuple[bytes | None, int, int]:
        """A read of a strong view that may have to take the stamp."""
        if not await self._begin():
            again: tuple[bytes | None, int, int] = await self._ask(key)
            return again
        try:
            answer: tuple[bytes | None, int, int] = await self._ask(key)
            await self._take_stamp(answer[2])
        finally:
            self._release()
        return answer

    async def _begin(self) -> bool:
        """Whether the caller is to take the stamp; else it is there when this returns."""
        while not self.at:
            if self._begun is None:
                self._begun = asyncio.get_running_loop().create_future()
                return True
            await asyncio.shield(self._begun)
        return False

    async def _take_stamp(self, at: int) -> None:
        await self._session.bounded_time.past(at)
        self.at = at

    def _release(self) -> None:
        """Whoever takes the stamp is done, with it or without."""
        begun, self._begun = self._begun, None
        if begun is not None and not begun.done():
            begun.set_result(None)


def _closed() -> Rejected:
    return Rejected("the view is used outside its `async with` block", field="view")
