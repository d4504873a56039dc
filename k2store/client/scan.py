"""Scans: rows of a range in key order, a page at a time, all at one stamp."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from k2store.client.ranges import KeyRange, range_of
from k2store.client.records import Record
from k2store.client.write_buffer import overlay
from k2store.errors import Corruption, Rejected
from k2store.v1 import session_pb2 as wire

if TYPE_CHECKING:
    from k2store.client.session import Session


class Reader(Protocol):
    """What a scan belongs to: a transaction, a snapshot, or a single strong scan."""

    async def page(self, message: wire.ScanCall) -> wire.RowsPage:
        """Ask for one page at the reader's stamp; true time has passed it when this returns."""

    def layers(self) -> tuple[dict[bytes, bytes | None], ...]:
        """Writes that lie over what the node shows, older first."""


class Scan:
    """Iterates over `Record`s: ``async for record in view.scan(...)``; once."""

    __slots__ = ("_left", "_reader", "_rest", "_reverse", "_rows")

    def __init__(
        self,
        reader: Reader,
        where: KeyRange | bytes,
        *,
        limit: int | None,
        reverse: bool,
    ) -> None:
        if limit is not None and not 0 <= limit < 2**32:
            raise Rejected(f"{limit} is not a number of rows", field="limit")
        self._reader = reader
        self._rest: KeyRange | None = range_of(where)
        self._left = limit
        self._reverse = reverse
        self._rows: deque[Record] = deque()

    def __aiter__(self) -> Scan:
        return self

    async def __anext__(self) -> Record:
        if self._left == 0:
            raise StopAsyncIteration
        while not self._rows:
            if self._rest is None:
                raise StopAsyncIteration
            await self._fetch(self._rest)
        row = self._rows.popleft()
        if self._left is not None:
            self._left -= 1
        return row

    async def all(self) -> list[Record]:
        """The rest of the rows, as a list."""
        return [record async for record in self]

    async def _fetch(self, rest: KeyRange) -> None:
        layers = self._reader.layers()
        # Own deletions hide rows, so with own writes a page may hold fewer rows than asked for.
        message = wire.ScanCall(
            start=rest.start, end=rest.end, limit=self._left or 0, reverse=self._reverse
        )
        page = await self._reader.page(message)
        if not page.HasField("resume"):
            covered, self._rest = rest, None
        elif page.resume <= rest.start or (rest.end and page.resume >= rest.end):
            raise Corruption(
                f"the node says that the scan from {rest.start!r} to {rest.end!r} goes on at "
                f"{page.resume!r}, where it has been already or never comes; nothing of this page was "
                "taken. Scan again, and report it: nodes never say so",
                what="answer",
            )
        elif self._reverse:
            covered = KeyRange(page.resume, rest.end)
            self._rest = KeyRange(rest.start, page.resume)
        else:
            covered = KeyRange(rest.start, page.resume)
            self._rest = KeyRange(page.resume, rest.end)
        rows = map(Record, page.key, page.value, page.version)
        if any(layers):
            self._rows.extend(overlay(rows, layers, covered, reverse=self._reverse))
        else:
            self._rows.extend(rows)


class StrongReader:
    """Reads outside any transaction: the first page takes a stamp, the others follow it."""

    __slots__ = ("_session", "_timeout_ms", "_timeout_s", "at")

    def __init__(self, session: Session, timeout_s: float, timeout_ms: int, at: int = 0) -> None:
        self._session = session
        self._timeout_s = timeout_s
        self._timeout_ms = timeout_ms
        self.at = at

    async def page(self, message: wire.ScanCall) -> wire.RowsPage:
        """One page, acknowledged when true time has passed its stamp."""
        session = self._session
        message.at = self.at
        message.timeout_ms = self._timeout_ms
        deadline = session.now_s() + self._timeout_s
        page: wire.RowsPage = await session.call("scans", message, deadline, self)
        self.at = page.at
        if not session.bounded_time.covers(page.at):
            await session.bounded_time.past(page.at)
        return page

    def layers(self) -> tuple[dict[bytes, bytes | None], ...]:
        """Nothing is written here."""
        return ()
