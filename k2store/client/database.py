"""The client's front door: one object for one store, safe to share between tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

from k2store.client import outcome as outcomes
from k2store.client.attempts import Attempts
from k2store.client.bounded_time import BoundedTime
from k2store.client.conditions import Condition, absent, value_is, version_is
from k2store.client.one_shot import OneShots
from k2store.client.ranges import KeyRange
from k2store.client.records import Outcome, Record, Result, Version, Write
from k2store.client.retry import RetryPolicy, Rng
from k2store.client.scan import Scan, StrongReader
from k2store.client.session import PROTOCOL, Session
from k2store.client.settings import SPIN_NS, ClientSettings, Span, seconds
from k2store.client.snapshot import View
from k2store.client.transaction import Transaction, bad_key
from k2store.client.transactional import refuse_generators
from k2store.errors import Rejected
from k2store.v1 import session_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k2store.client.collection import Collection
    from k2store.client.lease import Lease
    from k2store.client.watch import Watch
    from k2store.rpc.transport import Dialer

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_BILLION: Final = 1_000_000_000


class Database:
    """A store, as one client sees it; made by `k2store.connect`, used as a context manager.

    One connection carries everything. After a loss it is made anew and what was under way goes
    on; nothing of that is visible but the delay.
    """

    __slots__ = (
        "_addresses",
        "_close_dialer",
        "_dialer",
        "_metadata",
        "_monotonic_ns",
        "_name",
        "_one_shots",
        "_policy",
        "_rng",
        "_session",
        "_settings",
        "_timeout_s",
    )

    def __init__(
        self,
        addresses: tuple[str, ...],
        dialer: Callable[[], tuple[Dialer, Callable[[], Awaitable[None]] | None]],
        *,
        metadata: Mapping[str, str],
        name: str,
        settings: ClientSettings,
        monotonic_ns: Callable[[], int],
        rng: Rng,
    ) -> None:
        self._addresses = addresses
        self._dialer = dialer
        self._metadata = metadata
        self._name = name
        self._settings = settings
        self._timeout_s = settings.timeout_s
        self._policy = RetryPolicy(attempts_max=settings.attempts_max)
        self._monotonic_ns = monotonic_ns
        self._rng = rng
        self._close_dialer: Callable[[], Awaitable[None]] | None = None
        self._session: Session | None = None
        self._one_shots: OneShots | None = None

    def __repr__(self) -> str:
        session = self._session
        if session is None:
            return f"<Database {','.join(self._addresses)} not open>"
        node = session.welcome.node or session.address
        return f"<Database {node} {session.in_flight} in flight>"

    # ------------------------------------------------------------------------------ life

    async def __aenter__(self) -> Database:
        if self._session is not None:
            raise Rejected("this database object has been opened before", field="database")
        from k2store.clock.boottime import boottime_ns

        loop = asyncio.get_running_loop()
        spin_ns = SPIN_NS if self._monotonic_ns is boottime_ns else 0
        hello = wire.SessionHello(
            client=self._rng.getrandbits(64).to_bytes(8, "big"),
            protocol=PROTOCOL,
            name=self._name,
            timeout_ms=_milliseconds(self._timeout_s),
        )
        dialer, self._close_dialer = self._dialer()
        session = Session(
            self._addresses,
            dialer,
            hello,
            self._metadata,
            self._settings,
            BoundedTime(self._monotonic_ns, loop, spin_ns=spin_ns),
            self._rng,
            loop,
        )
        try:
            await session.open(self._timeout_s)
        except BaseException:
            session.close()
            if self._close_dialer is not None:
                await self._close_dialer()
            raise
        self._session = session
        self._one_shots = OneShots(session, self._timeout_s, self._policy, self._rng)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            self._session.close()
        if self._close_dialer is not None:
            await self._close_dialer()

    @property
    def session(self) -> Session:
        """The session, for the client's own parts; `Rejected` outside the `async with` block."""
        if self._session is None:
            raise _not_open()
        return self._session

    @property
    def welcome(self) -> wire.SessionWelcome:
        """What the node has said about itself and its limits."""
        return self.session.welcome

    @property
    def rng(self) -> Rng:
        """Where jitter and names come from."""
        return self._rng

    @property
    def timeout_s(self) -> float:
        """Deadline of a call that states none, seconds."""
        return self._timeout_s

    # ---------------------------------------------------------------------- transactions

    def transactions(self, *, attempts: int | None = None, timeout: Span | None = None) -> Attempts:
        """Attempts of one transaction, until one commits; see `k2store.client.attempts`.

        `timeout` is the deadline of all attempts together.
        """
        session = self._session
        if session is None:
            raise _not_open()
        number = session.next_number
        session.next_number = number + 1
        policy = self._policy
        if attempts is not None:
            policy = RetryPolicy(attempts_max=attempts)
        if timeout is None:
            timeout_s, timeout_ms = self._timeout_s, 0
        else:
            timeout_s = seconds(timeout)
            timeout_ms = _milliseconds(timeout_s)
        return Attempts(
            session,
            number,
            session.now_s() + timeout_s,
            timeout_ms,
            policy,
            self._rng,
        )

    async def run(
        self,
        function: Callable[Concatenate[Transaction, P], Awaitable[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Call ``function(transaction, ...)`` until its transaction commits; give its result."""
        refuse_generators(function)
        async for txn in self.transactions():
            async with txn:
                result = await function(txn, *args, **kwargs)
        return result

    # -------------------------------------------------------------------------- one-shots

    async def transact(
        self,
        *,
        conditions: Iterable[Condition] = (),
        reads: Iterable[bytes] = (),
        writes: Iterable[Write | tuple[bytes, bytes | None]] = (),
        timeout: Span | None = None,
    ) -> Result:
        """Check, read and write in one message and one step; None as a value deletes.

        Raises `ConditionFailed` with the place of the condition that does not hold.
        """
        pairs = [(one.key, one.value) if isinstance(one, Write) else one for one in writes]
        keys = tuple([pair[0] for pair in pairs])
        values = tuple([pair[1] for pair in pairs])
        timeout_s = None if timeout is None else seconds(timeout)
        return await self._shots().run(tuple(conditions), tuple(reads), keys, values, timeout_s)

    async def put(
        self,
        key: bytes,
        value: bytes,
        *,
        conditions: Iterable[Condition] = (),
        timeout: Span | None = None,
    ) -> int:
        """Write a value; gives the stamp of its commit."""
        if value is None:
            raise Rejected("a value is bytes, not None; use delete()", field="value")
        return await self._write(key, value, tuple(conditions), timeout)

    async def delete(
        self,
        key: bytes,
        *,
        conditions: Iterable[Condition] = (),
        timeout: Span | None = None,
    ) -> int:
        """Delete a key, whether it has a value or not; gives the stamp of the commit."""
        return await self._write(key, None, tuple(conditions), timeout)

    async def compare_and_put(
        self,
        key: bytes,
        value: bytes | None,
        *,
        expected: bytes | None = None,
        version: int | None = None,
        missing: bool = False,
        timeout: Span | None = None,
    ) -> int:
        """Write (None: delete) if the key has the expected value, version, or no value.

        Exactly one of `expected`, `version` and `missing` is given. Gives the stamp of the
        commit; raises `ConditionFailed` otherwise.
        """
        if (expected is not None) + (version is not None) + missing != 1:
            raise Rejected("state one of expected, version and missing", field="expected")
        if expected is not None:
            condition = value_is(key, expected)
        elif version is not None:
            condition = version_is(key, version)
        else:
            condition = absent(key)
        return await self._write(key, value, (condition,), timeout)

    def _write(
        self,
        key: bytes,
        value: bytes | None,
        conditions: tuple[Condition, ...],
        timeout: Span | None,
    ) -> Coroutine[Any, Any, int]:
        timeout_s = None if timeout is None else seconds(timeout)
        return self._shots().write(key, value, conditions, timeout_s)

    def _shots(self) -> OneShots:
        if self._one_shots is None:
            raise _not_open()
        return self._one_shots

    # ------------------------------------------------------------------------------ reads

    async def get(self, key: bytes, *, timeout: Span | None = None) -> bytes | None:
        """The newest value of a key; None when there is none."""
        record = await self.get_record(key, timeout=timeout)
        return None if record is None else record.value

    async def get_record(self, key: bytes, *, timeout: Span | None = None) -> Record | None:
        """The newest row of a key, with its version."""
        session = self.session
        if type(key) is not bytes or len(key) > session.key_bytes_max:
            raise bad_key(key, session.key_bytes_max)
        timeout_s, timeout_ms = self._times(timeout)
        deadline = session.now_s() + timeout_s
        value, version, at = await session.read(b"", 0, key, deadline, timeout_ms, None)
        # A single read is a transaction, too: it may be acknowledged when true time has passed.
        if not session.bounded_time.covers(at):
            await session.bounded_time.past(at)
        return None if value is None else Record(key, value, version)

    async def get_many(
        self, keys: Iterable[bytes], *, timeout: Span | None = None
    ) -> dict[bytes, bytes | None]:
        """The newest values of several keys, all at one stamp."""
        async with self.snapshot(strong=True, timeout=timeout) as view:
            return await view.get_many(keys)

    def scan(
        self,
        where: KeyRange | bytes,
        *,
        limit: int | None = None,
        reverse: bool = False,
        timeout: Span | None = None,
    ) -> Scan:
        """The newest rows of a range or prefix in key order, all at one stamp.

        `timeout` is that of each page.
        """
        reader = StrongReader(self.session, *self._times(timeout))
        return Scan(reader, where, limit=limit, reverse=reverse)

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
        """A view of the whole store at one stamp, for reads that disturb nobody.

        `at` is a past stamp; else it is the newest that the node serves at once, or a fresh one
        where that is staler than `max_staleness` or `strong` asks for it. `since` is a stamp that
        the view must not lie before, such as that of one's own last commit. With `local` the node
        asks nobody: a fresh stamp, or `since`, is waited for until it is final there, which takes
        the visibility delay in place of a round trip to the leader; `View.staleness_s` says how
        old the view may be.
        """
        for name, stamp in (("at", at), ("since", since)):
            if stamp is not None and not 0 < stamp < 2**64:
                raise Rejected(f"{stamp} is not a stamp", field=name)
        if at is not None and (since is not None or local):
            raise Rejected("a view at a given stamp waits for nothing else", field="at")
        timeout_s, timeout_ms = self._times(timeout)
        staleness_ns = None if strong else int(seconds(max_staleness) * _BILLION)
        return View(
            self.session,
            at or 0,
            staleness_ns=staleness_ns,
            since=since or 0,
            local=local,
            timeout_s=timeout_s,
            timeout_ms=timeout_ms,
        )

    async def history(
        self, key: bytes, *, at: int | None = None, limit: int | None = None
    ) -> list[Version]:
        """The versions of a key that are kept, newest first, from the stamp `at`.

        Without one they are all that the node which is asked has: in a cluster its copy may lag
        behind the leader's. With one it raises `Unavailable` as long as its copy lags so far.
        """
        session = self.session
        if type(key) is not bytes or len(key) > session.key_bytes_max:
            raise bad_key(key, session.key_bytes_max)
        found: list[Version] = []
        newest, more = at or 0, True
        while more and (limit is None or len(found) < limit):
            left = 0 if limit is None else limit - len(found)
            message = wire.HistoryCall(key=key, at=newest, limit=left)
            deadline = session.now_s() + self._timeout_s
            page: wire.HistoryAnswer = await session.call("histories", message, deadline, None)
            for stamp, value, deleted in zip(page.at, page.value, page.deleted, strict=True):
                found.append(Version(stamp, None if deleted else value))
            more = page.more and bool(page.at)
            if page.at:
                newest = page.at[-1] - 1
        if found:
            await session.bounded_time.past(found[0].at)
        return found[:limit]

    async def outcome(
        self,
        transaction: bytes | str,
        *,
        anchor: bytes | None = None,
        at: int = 0,
        timeout: Span | None = None,
    ) -> Outcome:
        """What became of a transaction, by its id (bytes, or hex as in `OutcomeUnknown`).

        `anchor` is the first key it wrote. For a transaction of this client whose outcome could
        not be learned it is known, and one that the node knows nothing of is aborted for good.
        """
        session = self.session
        try:
            txn = bytes.fromhex(transaction) if isinstance(transaction, str) else transaction
        except ValueError:
            txn = b""
        if len(txn) != 16:
            raise Rejected("a transaction id is 16 bytes, or their hex", field="transaction")
        timeout_s, _ = self._times(timeout)
        deadline = session.now_s() + timeout_s
        not_before = 0
        unresolved = session.unresolved.get(txn)
        if unresolved is not None:
            anchor, at, not_before = anchor or unresolved[0], at or unresolved[1], unresolved[2]
        if anchor is None:
            raise Rejected(
                "the outcome of a transaction of somebody else needs its anchor, "
                "the first key it wrote",
                field="anchor",
            )
        decide = unresolved is not None
        found = await outcomes.ask(
            session, txn, anchor, at, deadline, decide=decide, not_before=not_before
        )
        if found.state != "unknown":
            session.unresolved.pop(txn, None)
        return found

    # --------------------------------------------------------------- watches, leases, types

    def watch(self, where: KeyRange | bytes, *, since: int | None = None) -> Watch:
        """The commits of a range or prefix, in stamp order; see `k2store.client.watch`."""
        from k2store.client.watch import Watch

        return Watch(self.session, where, since=since)

    def lease(
        self,
        key: bytes,
        ttl: Span = "10s",
        *,
        holder: bytes = b"",
        wait: Span | None = None,
    ) -> Lease:
        """A lease on a key, renewed while its block runs; see `k2store.client.lease`."""
        from k2store.client.lease import Lease

        wait_s = self._timeout_s if wait is None else seconds(wait)
        return Lease(self, key, ttl_s=seconds(ttl), holder=holder, wait_s=wait_s)

    def collection(self, name: str, record: type[T]) -> Collection[T]:
        """Typed records under a name; see `k2store.client.collection`."""
        from k2store.client.collection import Collection

        return Collection(self, name, record)

    def _times(self, timeout: Span | None) -> tuple[float, int]:
        """A timeout in seconds, and as it travels: 0 ms for the session's own."""
        if timeout is None:
            return self._timeout_s, 0
        timeout_s = seconds(timeout)
        return timeout_s, _milliseconds(timeout_s)


def _not_open() -> Rejected:
    return Rejected("open the database first: async with k2store.connect(...) as db")


def _milliseconds(span_s: float) -> int:
    return min(max(1, round(span_s * 1000)), 2**32 - 1)
