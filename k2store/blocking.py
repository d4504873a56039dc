"""The client for programs without an event loop: the same names, without `await`.

::

    with k2store.blocking.connect("k2://127.0.0.1:7400") as db:
        for txn in db.transactions():
            with txn:
                txn.put(b"alice", txn.get(b"bob") or b"0")

Each `Database` has one background thread with one event loop, on which the client of
`k2store.client` runs; a call here hands its work over and waits. Threads may share a `Database`;
a transaction belongs to one thread at a time. What a call costs more than there is the way to the
other thread and back, some tens of microseconds.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from k2store.client.connect import connect as connect_async
from k2store.client.transactional import refuse_generators
from k2store.errors import Rejected

if TYPE_CHECKING:
    from k2store.client import attempts, collection, database, lease, scan, snapshot, transaction
    from k2store.client import watch as watches
    from k2store.client.conditions import Condition, FieldOf
    from k2store.client.connect import Tls
    from k2store.client.ranges import KeyRange
    from k2store.client.records import Outcome, Record, Result, Version, Write
    from k2store.client.settings import ClientSettings, Span
    from k2store.errors import K2Error

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Bridge:
    """One event loop on a thread of its own; other threads hand it work and wait."""

    __slots__ = ("_loop", "_thread")

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="k2store client", daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the loop and give its result."""
        if threading.current_thread() is self._thread:
            work.close()
            raise Rejected("the blocking client was called from inside its own event loop")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Such as KeyboardInterrupt, here and not there.
            raise

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a plain function on the loop and give its result."""

        async def work() -> R:
            return function(*args, **kwargs)

        return self.wait(work())

    def close(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()


def connect(
    address: str,
    *,
    timeout: Span | None = None,
    token: str | None = None,
    tls: Tls | None = None,
    name: str | None = None,
    dial: Mapping[str, str] | None = None,
    settings: ClientSettings | None = None,
) -> Database:
    """A store at ``k2://host:port,...``, to be opened with ``with``; see `k2store.connect`."""
    return Database(
        lambda: connect_async(
            address, timeout=timeout, token=token, tls=tls, name=name, dial=dial, settings=settings
        )
    )


def transactional(
    function: Callable[Concatenate[Transaction, P], R],
) -> Callable[Concatenate[Database | Transaction, P], R]:
    """Make ``function(transaction, ...)`` callable with a database, too; generators are refused."""
    refuse_generators(function)

    @functools.wraps(function)
    def call(where: Database | Transaction, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if isinstance(where, Database):
            return where.run(function, *args, **kwargs)
        return function(where, *args, **kwargs)

    return call


class Database:
    """See `k2store.Database`."""

    __slots__ = ("_bridge", "_db", "_make", "_opened")

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[database.Database]]) -> None:
        self._make = make
        self._bridge: Bridge | None = None
        self._opened: AbstractAsyncContextManager[database.Database] | None = None
        self._db: database.Database | None = None

    def __repr__(self) -> str:
        return f"<blocking {self._db!r}>"

    def __enter__(self) -> Self:
        if self._bridge is not None:
            raise Rejected("this database object has been opened before", field="database")
        bridge = self._bridge = Bridge()
        try:
            self._opened = self._make()
            self._db = bridge.wait(_enter(self._opened))
        except BaseException:
            bridge.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        bridge, db = self._parts()
        assert self._opened is not None
        self._db = None
        try:
            bridge.wait(_exit(self._opened, kind, error, trace))
        finally:
            bridge.close()
        del db

    def _parts(self) -> tuple[Bridge, database.Database]:
        if self._bridge is None or self._db is None:
            raise Rejected("use the database inside its block: with k2store.blocking.connect(...)")
        return self._bridge, self._db

    def transactions(self, *, attempts: int | None = None, timeout: Span | None = None) -> Attempts:
        """Attempts of one transaction, until one commits."""
        bridge, db = self._parts()
        return Attempts(bridge, bridge.call(db.transactions, attempts=attempts, timeout=timeout))

    def run(
        self,
        function: Callable[Concatenate[Transaction, P], R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Call ``function(transaction, ...)`` until its transaction commits; give its result."""
        refuse_generators(function)
        for txn in self.transactions():
            with txn:
                result = function(txn, *args, **kwargs)
        return result

    def transact(
        self,
        *,
        conditions: Iterable[Condition] = (),
        reads: Iterable[bytes] = (),
        writes: Iterable[Write | tuple[bytes, bytes | None]] = (),
        timeout: Span | None = None,
    ) -> Result:
        """Check, read and write in one message and one step."""
        bridge, db = self._parts()
        return bridge.wait(
            db.transact(conditions=conditions, reads=reads, writes=writes, timeout=timeout)
        )

    def put(
        self,
        key: bytes,
        value: bytes,
        *,
        conditions: Iterable[Condition] = (),
        timeout: Span | None = None,
    ) -> int:
        """Write a value; gives the stamp of its commit."""
        bridge, db = self._parts()
        return bridge.wait(db.put(key, value, conditions=conditions, timeout=timeout))

    def delete(
        self,
        key: bytes,
        *,
        conditions: Iterable[Condition] = (),
        timeout: Span | None = None,
    ) -> int:
        """Delete a key; gives the stamp of the commit."""
        bridge, db = self._parts()
        return bridge.wait(db.delete(key, conditions=conditions, timeout=timeout))

    def compare_and_put(
        self,
        key: bytes,
        value: bytes | None,
        *,
        expected: bytes | None = None,
        version: int | None = None,
        missing: bool = False,
        timeout: Span | None = None,
    ) -> int:
        """Write if the key has the expected value, version, or no value."""
        bridge, db = self._parts()
        return bridge.wait(
            db.compare_and_put(
                key, value, expected=expected, version=version, missing=missing, timeout=timeout
            )
        )

    def get(self, key: bytes, *, timeout: Span | None = None) -> bytes | None:
        """The newest value of a key."""
        bridge, db = self._parts()
        return bridge.wait(db.get(key, timeout=timeout))

    def get_record(self, key: bytes, *, timeout: Span | None = None) -> Record | None:
        """The newest row of a key, with its version."""
        bridge, db = self._parts()
        return bridge.wait(db.get_record(key, timeout=timeout))

    def get_many(
        self, keys: Iterable[bytes], *, timeout: Span | None = None
    ) -> dict[bytes, bytes | None]:
        """The newest values of several keys, all at one stamp."""
        bridge, db = self._parts()
        return bridge.wait(db.get_many(keys, timeout=timeout))

    def scan(
        self,
        where: KeyRange | bytes,
        *,
        limit: int | None = None,
        reverse: bool = False,
        timeout: Span | None = None,
    ) -> Scan:
        """The newest rows of a range or prefix, all at one stamp."""
        bridge, db = self._parts()
        return Scan(
            bridge, bridge.call(db.scan, where, limit=limit, reverse=reverse, timeout=timeout)
        )

    def snapshot(
        self,
        *,
        at: int | None = None,
        max_staleness: Span = "5s",
        strong: bool = False,
        since: int | None = None,
        local: bool = False,
        timeout: Span | None = None,
    ) -> View:
        """A view of the whole store at one stamp."""
        bridge, db = self._parts()
        view = bridge.call(
            db.snapshot,
            at=at,
            max_staleness=max_staleness,
            strong=strong,
            since=since,
            local=local,
            timeout=timeout,
        )
        return View(bridge, view)

    def history(
        self, key: bytes, *, at: int | None = None, limit: int | None = None
    ) -> list[Version]:
        """The versions of a key that are kept, newest first."""
        bridge, db = self._parts()
        return bridge.wait(db.history(key, at=at, limit=limit))

    def outcome(
        self,
        transaction: bytes | str,
        *,
        anchor: bytes | None = None,
        at: int = 0,
        timeout: Span | None = None,
    ) -> Outcome:
        """What became of a transaction."""
        bridge, db = self._parts()
        return bridge.wait(db.outcome(transaction, anchor=anchor, at=at, timeout=timeout))

    def watch(self, where: KeyRange | bytes, *, since: int | None = None) -> Watch:
        """The commits of a range or prefix, in stamp order."""
        bridge, db = self._parts()
        return Watch(bridge, bridge.call(db.watch, where, since=since))

    def lease(
        self,
        key: bytes,
        ttl: Span = "10s",
        *,
        holder: bytes = b"",
        wait: Span | None = None,
    ) -> Lease:
        """A lease on a key, renewed while its block runs."""
        bridge, db = self._parts()
        return Lease(bridge, bridge.call(db.lease, key, ttl, holder=holder, wait=wait))

    def collection(self, name: str, record: type[T]) -> Collection[T]:
        """Typed records under a name."""
        bridge, db = self._parts()
        return Collection(bridge, bridge.call(db.collection, name, record))


class Attempts:
    """See `k2store.Attempts`."""

    __slots__ = ("_attempts", "_bridge")

    def __init__(self, bridge: Bridge, attempts: attempts.Attempts) -> None:
        self._bridge = bridge
        self._attempts = attempts

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Transaction:
        try:
            txn = self._bridge.wait(self._attempts.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None
        return Transaction(self._bridge, txn)


class Transaction:
    """See `k2store.Transaction`."""

    __slots__ = ("_bridge", "_txn")

    def __init__(self, bridge: Bridge, txn: transaction.Transaction) -> None:
        self._bridge = bridge
        self._txn = txn

    def __repr__(self) -> str:
        return f"<blocking {self._txn!r}>"

    def __enter__(self) -> Self:
        self._bridge.wait(self._txn.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        return self._bridge.wait(self._txn.__aexit__(kind, error, trace))

    @property
    def id(self) -> bytes:
        """16 bytes that name this attempt."""
        return self._txn.id

    @property
    def at(self) -> int:
        """The transaction's stamp; 0 until its first answer from the node."""
        return self._txn.at

    @property
    def committed_at(self) -> int | None:
        """The stamp of the commit, None unless it has taken."""
        return self._txn.committed_at

    @property
    def waited_ns(self) -> int:
        """How long the node held the commit's answer for the clock, nanoseconds."""
        return self._txn.waited_ns

    @property
    def state(self) -> transaction.State:
        """Where it is in its life."""
        return self._txn.state

    @property
    def failure(self) -> K2Error | None:
        """What made it fail, if anything did."""
        return self._txn.failure

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, own writes included."""
        return self._bridge.wait(self._txn.get(key))

    def get_record(self, key: bytes) -> Record | None:
        """The row of a key, with its version."""
        return self._bridge.wait(self._txn.get_record(key))

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes | None]:
        """The values of several keys, asked for together."""
        return self._bridge.wait(self._txn.get_many(keys))

    def scan(
        self, where: KeyRange | bytes, *, limit: int | None = None, reverse: bool = False
    ) -> Scan:
        """The rows of a range or prefix, own writes included."""
        scan = self._bridge.call(self._txn.scan, where, limit=limit, reverse=reverse)
        return Scan(self._bridge, scan)

    def put(self, key: bytes, value: bytes) -> None:
        """Write a value; it travels with the commit."""
        self._bridge.call(self._txn.put, key, value)

    def delete(self, key: bytes) -> None:
        """Delete a key; travels with the commit."""
        self._bridge.call(self._txn.delete, key)

    def rollback(self) -> None:
        """End without effect."""
        self._bridge.wait(self._txn.rollback())


class View:
    """See `k2store.View`."""

    __slots__ = ("_bridge", "_view")

    def __init__(self, bridge: Bridge, view: snapshot.View) -> None:
        self._bridge = bridge
        self._view = view

    def __enter__(self) -> Self:
        self._bridge.wait(self._view.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bridge.wait(self._view.__aexit__(kind, error, trace))

    @property
    def at(self) -> int:
        """The stamp of the view; 0 until a strong one has taken it."""
        return self._view.at

    @property
    def staleness_s(self) -> float:
        """How old the view may be at this moment, at most, in seconds."""
        return self._view.staleness_s

    def get(self, key: bytes) -> bytes | None:
        """The value of a key at the view's stamp."""
        return self._bridge.wait(self._view.get(key))

    def get_record(self, key: bytes) -> Record | None:
        """The row of a key at the view's stamp."""
        return self._bridge.wait(self._view.get_record(key))

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes | None]:
        """The values of several keys, asked for together."""
        return self._bridge.wait(self._view.get_many(keys))

    def scan(
        self, where: KeyRange | bytes, *, limit: int | None = None, reverse: bool = False
    ) -> Scan:
        """The rows of a range or prefix, in key order."""
        scan = self._bridge.call(self._view.scan, where, limit=limit, reverse=reverse)
        return Scan(self._bridge, scan)


class Scan:
    """Iterates over `k2store.Record`s."""

    __slots__ = ("_bridge", "_scan")

    def __init__(self, bridge: Bridge, scan: scan.Scan) -> None:
        self._bridge = bridge
        self._scan = scan

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        try:
            return self._bridge.wait(self._scan.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def all(self) -> list[Record]:
        """The rest of the rows, as a list."""
        return self._bridge.wait(self._scan.all())


class Watch:
    """See `k2store.Watch`."""

    __slots__ = ("_bridge", "_watch")

    def __init__(self, bridge: Bridge, watch: watches.Watch) -> None:
        self._bridge = bridge
        self._watch = watch

    def __enter__(self) -> Self:
        self._bridge.wait(self._watch.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bridge.wait(self._watch.__aexit__(kind, error, trace))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> watches.Event:
        try:
            return self._bridge.wait(self._watch.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    @property
    def cursor(self) -> int:
        """Everything at or below this stamp has been handed out."""
        return self._watch.cursor

    def close(self) -> None:
        """End the watch."""
        self._bridge.call(self._watch.close)


class Lease:
    """See `k2store.Lease`; a lost lease shows in `check` and at the end of the block."""

    __slots__ = ("_bridge", "_lease")

    def __init__(self, bridge: Bridge, lease: lease.Lease) -> None:
        self._bridge = bridge
        self._lease = lease

    def __enter__(self) -> Self:
        self._bridge.wait(self._enter())
        return self

    async def _enter(self) -> None:
        await self._lease.__aenter__()
        # The task that has entered is over in a moment: there is nobody to cancel.
        self._lease.disown()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bridge.wait(self._lease.__aexit__(kind, error, trace))

    @property
    def key(self) -> bytes:
        """What is leased."""
        return self._lease.key

    @property
    def token(self) -> int:
        """The fencing token."""
        return self._lease.token

    @property
    def left_s(self) -> float:
        """How long it is certainly still held if nothing renews it, seconds."""
        return self._lease.left_s

    @property
    def held(self) -> bool:
        """Whether it is certainly held now."""
        return self._lease.held

    def check(self) -> None:
        """Raise `Expired` unless it is certainly held now."""
        self._bridge.call(self._lease.check)


class Entries(Generic[T]):
    """Iterates over the `k2store.Entry`s of a scan."""

    __slots__ = ("_bridge", "_entries")

    def __init__(self, bridge: Bridge, entries: collection.Entries[T]) -> None:
        self._bridge = bridge
        self._entries = entries

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> collection.Entry[T]:
        try:
            return self._bridge.wait(self._entries.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def all(self) -> list[collection.Entry[T]]:
        """The rest, as a list."""
        return self._bridge.wait(self._entries.all())


class Reading(Generic[T]):
    """A collection as a database, a view or a transaction shows it."""

    __slots__ = ("_bridge", "_reading")

    def __init__(self, bridge: Bridge, reading: collection.Reading[T]) -> None:
        self._bridge = bridge
        self._reading = reading

    def get(self, key: bytes) -> T | None:
        """The record at a key."""
        return self._bridge.wait(self._reading.get(key))

    def get_entry(self, key: bytes) -> collection.Entry[T] | None:
        """The record at a key with its version."""
        return self._bridge.wait(self._reading.get_entry(key))

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, T | None]:
        """The records at several keys, asked for together."""
        return self._bridge.wait(self._reading.get_many(keys))

    def scan(
        self, start: bytes = b"", *, limit: int | None = None, reverse: bool = False
    ) -> Entries[T]:
        """The entries whose keys begin with `start`, in key order."""
        entries = self._bridge.call(self._reading.scan, start, limit=limit, reverse=reverse)
        return Entries(self._bridge, entries)


class Writing(Reading[T]):
    """A collection inside a transaction."""

    __slots__ = ("_writing",)

    def __init__(self, bridge: Bridge, writing: collection.Writing[T]) -> None:
        super().__init__(bridge, writing)
        self._writing = writing

    def put(self, key: bytes, record: T) -> None:
        """Write a record."""
        self._bridge.call(self._writing.put, key, record)

    def delete(self, key: bytes) -> None:
        """Delete a record."""
        self._bridge.call(self._writing.delete, key)


class Collection(Reading[T]):
    """See `k2store.Collection`."""

    __slots__ = ("_collection",)

    def __init__(self, bridge: Bridge, collection: collection.Collection[T]) -> None:
        super().__init__(bridge, collection)
        self._collection = collection

    @property
    def range(self) -> KeyRange:
        """All keys of the collection, for watches."""
        return self._collection.range

    def within(self, txn: Transaction) -> Writing[T]:
        """The collection as part of a transaction."""
        return Writing(self._bridge, self._collection.within(txn._txn))

    def at(self, view: View) -> Reading[T]:
        """The collection as a snapshot shows it."""
        return Reading(self._bridge, self._collection.at(view._view))

    def put(
        self,
        key: bytes,
        record: T,
        *,
        conditions: Iterable[Condition] = (),
        timeout: Span | None = None,
    ) -> int:
        """Write a record; gives the stamp of its commit."""
        return self._bridge.wait(
            self._collection.put(key, record, conditions=conditions, timeout=timeout)
        )

    def delete(
        self, key: bytes, *, conditions: Iterable[Condition] = (), timeout: Span | None = None
    ) -> int:
        """Delete a record; gives the stamp of the commit."""
        return self._bridge.wait(
            self._collection.delete(key, conditions=conditions, timeout=timeout)
        )

    def compare_and_put(
        self,
        key: bytes,
        record: T,
        *,
        expected: T | None = None,
        version: int | None = None,
        missing: bool = False,
        timeout: Span | None = None,
    ) -> int:
        """Write if the key has the expected record, version, or none."""
        return self._bridge.wait(
            self._collection.compare_and_put(
                key, record, expected=expected, version=version, missing=missing, timeout=timeout
            )
        )

    def missing(self, key: bytes) -> Condition:
        """The condition that there is no record at a key."""
        return self._collection.missing(key)

    def version_is(self, key: bytes, stamp: int) -> Condition:
        """The condition that the record was written by the commit with this stamp."""
        return self._collection.version_is(key, stamp)

    def field(self, key: bytes, name: str | int) -> FieldOf:
        """A field of the record at a key, to be compared in a condition."""
        return self._collection.field(key, name)

    def no_entry(self, name: str | int, *, start: bytes = b"") -> FieldOf:
        """That no record whose key begins with `start` has a field that compares as said."""
        return self._collection.no_entry(name, start=start)


async def _enter(
    opened: AbstractAsyncContextManager[database.Database],
) -> database.Database:
    return await opened.__aenter__()


async def _exit(
    opened: AbstractAsyncContextManager[database.Database],
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    await opened.__aexit__(kind, error, trace)
