"""A client under observation: every transaction it runs goes into a history and the journal.

What the client library promises about failures is taken at its word, and so is put to the test: an
`OutcomeUnknown` may have taken, any other failure has certainly not.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

import k2store
from jepsen_like.history import Recorder
from jepsen_like.sim.journal import ANY_VERSION, Entry, Journal, Reading, Scanned

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def payload(value: bytes | None) -> object:
    """What a workload wrote, without the mark of the transaction that wrote it; None for nothing."""
    return None if value is None else _decode(value)[0]


class Seen:
    """A transaction's reads and writes as a workload makes them, noted in its entry."""

    def __init__(self, actor: Actor, entry: Entry, txn: k2store.Transaction) -> None:
        self._mark = actor.mark
        self._entry = entry
        self._txn = txn
        entry.txn = txn.id
        entry.at = 0
        entry.reads, entry.scans, entry.writes = [], [], {}

    async def get(self, key: bytes) -> object:
        """The payload of a key, None where there is none."""
        record = await self._txn.get_record(key)
        if key in self._entry.writes:
            return payload(None if record is None else record.value)
        self._entry.reads.append(_reading(key, record))
        return payload(None if record is None else record.value)

    def put(self, key: bytes, value: object) -> None:
        """Write a payload."""
        marked = _encode((value, self._mark()))
        self._entry.writes[key] = marked
        self._txn.put(key, marked)

    def delete(self, key: bytes) -> None:
        """Delete a key."""
        self._entry.writes[key] = None
        self._txn.delete(key)

    async def scan(
        self, where: k2store.KeyRange, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, object]]:
        """Keys and payloads of a range."""
        rows = await self._txn.scan(where, limit=limit, reverse=reverse).all()
        self._entry.scans.append(
            _scanned(where, rows, frozenset(self._entry.writes), limit=limit, reverse=reverse)
        )
        return [(row.key, payload(row.value)) for row in rows]


class Actor:
    """One client task of a workload."""

    def __init__(
        self,
        database: k2store.Database,
        journal: Journal,
        recorder: Recorder,
        rng: random.Random,
        what: str,
    ) -> None:
        self.database = database
        self.journal = journal
        self.recorder = recorder
        self.random = rng
        self.what = what
        self.process = journal.process()
        self.answered = 0
        """Transactions, reads and views that were answered, whatever the answer."""
        self._marks = 0

    def mark(self) -> str:
        """Makes a written value unlike every other one of the run."""
        self._marks += 1
        return f"{self.process}.{self._marks}"

    async def transaction(
        self,
        f: str,
        argument: object,
        body: Callable[[Seen], Awaitable[T]],
        *,
        key: object = None,
        result: Callable[[T], object] = lambda value: value,
    ) -> T | None:
        """Run a transaction with retries; gives what its body gave, None unless it committed."""
        entry = self._begin(f, argument, key)
        try:
            async for txn in self.database.transactions():
                async with txn:
                    value = await body(Seen(self, entry, txn))
        except k2store.K2Error as error:
            self._failed(entry, error)
            return None
        self._ok(entry, txn.at, result(value))
        return value

    async def one_shot(
        self,
        f: str,
        argument: object,
        *,
        key: object = None,
        reads: tuple[bytes, ...] = (),
        writes: dict[bytes, object] | None = None,
        expected: Reading | None = None,
        result: object = None,
        refused: object = False,
    ) -> bool | None:
        """Run a one-shot; None unless it was answered, False if `expected` did not hold.

        `refused` is what the history then has as its result; None: that it failed.
        """
        entry = self._begin(f, argument, key)
        entry.writes = {
            written: None if value is None else _encode((value, self.mark()))
            for written, value in (writes or {}).items()
        }
        try:
            done = await self.database.transact(
                conditions=() if expected is None else (_condition(expected),),
                reads=reads,
                writes=list(entry.writes.items()),
            )
        except k2store.ConditionFailed as failure:
            assert expected is not None
            entry.writes = {}
            entry.refuted = [expected]
            if refused is not None:
                self._ok(entry, failure.at or 0, refused)
                return False
            self.answered += 1
            self.journal.end(entry, "ok", failure.at or 0)
            self.recorder.fail(self.process, type(failure).__name__)
            return False
        except k2store.K2Error as error:
            self._failed(entry, error)
            return None
        if expected is not None:
            entry.reads.append(Reading(expected.key, expected.version, expected.value))
        for read, version, value in zip(reads, done.versions, done.values, strict=True):
            entry.reads.append(Reading(read, version, value))
        self._ok(entry, done.at, result)
        return True

    async def look(self, f: str, key: bytes, *, name: object) -> Reading | None:
        """Read one key as its own transaction (a strong view); None if that failed."""
        entry = self._begin(f, None, name)
        try:
            async with self.database.snapshot(strong=True) as view:
                record = await view.get_record(key)
        except k2store.K2Error as error:
            self._failed(entry, error)
            return None
        reading = _reading(key, record)
        entry.reads.append(reading)
        self._ok(entry, view.at, payload(reading.value))
        return reading

    async def get(self, f: str, key: bytes, *, name: object) -> None:
        """Read one key by itself. Its stamp is not told, so only the history has it."""
        entry = self._begin(f, None, name)
        try:
            record = await self.database.get_record(key)
        except k2store.K2Error as error:
            self._failed(entry, error)
            return
        self._ok(entry, 0, payload(None if record is None else record.value))

    @asynccontextmanager
    async def past(self, staleness_s: float = 10.0, at: int | None = None) -> AsyncIterator[Past]:
        """A view of the recent past, or at a stamp; it goes into the journal only."""
        entry = self.journal.begin(self.process, self.what)
        entry.stale = True
        entry.staleness_ns = round(staleness_s * 1e9)
        try:
            async with self.database.snapshot(at=at, max_staleness=staleness_s) as view:
                yield Past(entry, view)
        except k2store.K2Error as error:
            self._refused(error)
            self.journal.end(entry, "fail", error=type(error).__name__)
        else:
            self.answered += 1
            self.journal.end(entry, "ok", view.at)

    # ------------------------------------------------------------------------- book-keeping

    def _begin(self, f: str, argument: object, key: object) -> Entry:
        self.recorder.invoke(self.process, f, argument, key=key)
        return self.journal.begin(self.process, self.what)

    def _ok(self, entry: Entry, at: int, value: object) -> None:
        self.answered += 1
        self.journal.end(entry, "ok", at)
        self.recorder.ok(self.process, value, stamp=at or None)

    def _failed(self, entry: Entry, error: k2store.K2Error) -> None:
        name = type(error).__name__
        if isinstance(error, k2store.OutcomeUnknown):
            entry.txn = bytes.fromhex(error.transaction or "")
            self.journal.end(entry, "unknown", error=name)
            self.recorder.info(self.process, name)
            self.process = self.journal.process()
            return
        self._refused(error)
        self.journal.end(entry, "fail", error=name)
        self.recorder.fail(self.process, name)

    def _refused(self, error: k2store.K2Error) -> None:
        """That history is gone is an answer as well."""
        self.answered += isinstance(error, k2store.TooOld)


class Past:
    """Reads of the recent past, noted in an entry."""

    def __init__(self, entry: Entry, view: k2store.View) -> None:
        self._entry = entry
        self._view = view

    async def get(self, key: bytes) -> object:
        """The payload of a key at the view's stamp."""
        record = await self._view.get_record(key)
        self._entry.reads.append(_reading(key, record))
        return payload(None if record is None else record.value)

    async def scan(
        self, where: k2store.KeyRange, *, limit: int | None = None, reverse: bool = False
    ) -> list[tuple[bytes, object]]:
        """Keys and payloads of a range at the view's stamp."""
        rows = await self._view.scan(where, limit=limit, reverse=reverse).all()
        self._entry.scans.append(_scanned(where, rows, frozenset(), limit=limit, reverse=reverse))
        return [(row.key, payload(row.value)) for row in rows]


def _condition(expected: Reading) -> k2store.Condition:
    if expected.value is None:
        return k2store.absent(expected.key)
    if expected.version == ANY_VERSION:
        return k2store.value_is(expected.key, expected.value)
    return k2store.version_is(expected.key, expected.version)


def _reading(key: bytes, record: k2store.Record | None) -> Reading:
    return Reading(key, 0, None) if record is None else Reading(key, record.version, record.value)


def _scanned(
    where: k2store.KeyRange,
    rows: list[k2store.Record],
    hidden: frozenset[bytes],
    *,
    limit: int | None,
    reverse: bool,
) -> Scanned:
    return Scanned(
        where.start,
        where.end,
        tuple(Reading(row.key, row.version, row.value) for row in rows if row.key not in hidden),
        hidden,
        limit is None or len(rows) < limit,
        reverse,
    )
