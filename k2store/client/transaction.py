"""One attempt of an interactive transaction.

Reads go to the node at the transaction's stamp, which the node gives with the first of them.
Writes stay here until the commit, so one round trip carries both; many writes leave early, in the
background. The block's end commits, an error rolls back.

::

    open ──commit──▶ committed
      │ ├──failure──▶ failed        (the node refused something, or the deadline passed)
      │ └──rollback─▶ rolled back   (asked for, or another error left the block)
      └── after any of them every use is refused, with the end in the message

When the connection is lost under a commit, the outcome is read from the transaction's durable
record, with `decide`: a transaction that the node knows nothing of is aborted for good before
the answer. Only then may anything be retried.
"""

from __future__ import annotations

import asyncio
import enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from k2store.client.doubt import CommitLost
from k2store.client.outcome import resolve
from k2store.client.records import Record
from k2store.client.scan import Scan
from k2store.client.session import Session
from k2store.errors import Conflict, K2Error, OutcomeUnknown, Rejected
from k2store.v1 import session_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from k2store.client.attempts import Attempts
    from k2store.client.outbox import Future
    from k2store.client.ranges import KeyRange


class State(enum.IntEnum):
    """Where a transaction is in its life."""

    OPEN = 0
    COMMITTED = 1
    FAILED = 2
    ROLLED_BACK = 3


_OPEN: Final = 0
_COMMITTED: Final = 1
_FAILED: Final = 2
_ROLLED_BACK: Final = 3


class Transaction:
    """One attempt; made by `Database.transactions`, used as ``async with transaction:``."""

    __slots__ = (
        "_anchor",
        "_at",
        "_attempts",
        "_deadline",
        "_early",
        "_ended_s",
        "_failure",
        "_id",
        "_not_before",
        "_sent",
        "_sent_count",
        "_session",
        "_state",
        "_timeout_ms",
        "_touched",
        "_unsent_bytes",
        "_waited_ns",
        "_writes",
    )

    def __init__(
        self,
        session: Session,
        txn_id: bytes,
        deadline: float,
        timeout_ms: int,
        attempts: Attempts | None,
    ) -> None:
        self._session = session
        self._id = txn_id
        self._not_before = session.bounded_time.not_before()
        self._deadline = deadline
        self._timeout_ms = timeout_ms
        self._attempts = attempts
        self._at = 0
        self._state: int = _OPEN
        self._failure: K2Error | None = None
        self._touched = False
        self._writes: dict[bytes, bytes | None] = {}
        self._unsent_bytes = 0
        self._sent: dict[bytes, bytes | None] | None = None
        self._sent_count = 0
        self._early: list[Future] | None = None
        self._anchor = b""
        self._waited_ns = 0
        self._ended_s = 0.0

    def __repr__(self) -> str:
        stamp = f" at {self._at}" if self._at else ""
        return f"<Transaction {self._id.hex()} {State(self._state).name.lower()}{stamp}>"

    # --------------------------------------------------------------------------- what it is

    @property
    def id(self) -> bytes:
        """16 bytes that name this attempt."""
        return self._id

    @property
    def at(self) -> int:
        """The transaction's stamp; 0 until its first answer from the node."""
        return self._at

    @property
    def committed_at(self) -> int | None:
        """The stamp of the commit, None unless it has taken."""
        return self._at if self._state == _COMMITTED else None

    @property
    def waited_ns(self) -> int:
        """How long the node held the commit's answer for the clock, nanoseconds."""
        return self._waited_ns

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return State(self._state)

    @property
    def failure(self) -> K2Error | None:
        """What made it fail, if anything did."""
        return self._failure

    # ------------------------------------------------------------------------------- reading

    async def get(self, key: bytes) -> bytes | None:
        """The value of a key, own writes included; None when there is none."""
        if self._state:
            raise self._over()
        if key in self._writes:
            return self._writes[key]
        if self._sent is not None and key in self._sent:
            return self._sent[key]
        # `_read`, written out: this is what programs do most.
        session = self._session
        if type(key) is not bytes or len(key) > session.key_bytes_max:
            raise bad_key(key, session.key_bytes_max)
        self._touched = True
        value: bytes | None
        try:
            value, _, at = await session.read(
                self._id, self._at, key, self._deadline, self._timeout_ms, self
            )
        except K2Error as error:
            self._fail(error)
            raise
        if at != self._at:
            self._begun(at)
        return value

    async def get_record(self, key: bytes) -> Record | None:
        """The row of a key, with its version; own writes have version 0."""
        if self._state:
            raise self._over()
        for layer in (self._writes, self._sent):
            if layer is not None and key in layer:
                written = layer[key]
                return None if written is None else Record(key, written, 0)
        value, version, _ = await self._read(key)
        return None if value is None else Record(key, value, version)

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes | None]:
        """The values of several keys, asked for together."""
        if self._state:
            raise self._over()
        found: dict[bytes, bytes | None] = {}
        asked: dict[bytes, Future] = {}
        sent = self._sent or {}
        try:
            for key in keys:
                if key in self._writes:
                    found[key] = self._writes[key]
                elif key in sent:
                    found[key] = sent[key]
                elif key not in asked:
                    found[key] = None
                    asked[key] = self._ask(key)
            for key, future in asked.items():
                answer = await future
                found[key] = answer[0]
                if answer[2] != self._at:
                    self._begun(answer[2])
        except K2Error as error:
            self._fail(error)
            raise
        finally:
            for future in asked.values():
                future.cancel()
        return found

    def scan(
        self, where: KeyRange | bytes, *, limit: int | None = None, reverse: bool = False
    ) -> Scan:
        """The rows of a range or prefix in key order, own writes included."""
        if self._state:
            raise self._over()
        return Scan(self, where, limit=limit, reverse=reverse)

    async def page(self, message: wire.ScanCall) -> wire.RowsPage:
        """One page of a scan at the transaction's stamp; `Scan` asks for it."""
        if self._state:
            raise self._over()
        self._touched = True
        message.txn = self._id
        message.at = self._at
        message.timeout_ms = self._timeout_ms
        try:
            page: wire.RowsPage = await self._session.call("scans", message, self._deadline, self)
        except K2Error as error:
            self._fail(error)
            raise
        if page.at != self._at:
            self._begun(page.at)
        return page

    def layers(self) -> tuple[dict[bytes, bytes | None], ...]:
        """The transaction's own writes, older first; `Scan` lays them over its pages."""
        return (self._sent or {}, self._writes)

    def _ask(self, key: bytes) -> Future:
        session = self._session
        if type(key) is not bytes or len(key) > session.key_bytes_max:
            raise bad_key(key, session.key_bytes_max)
        self._touched = True
        return session.read(self._id, self._at, key, self._deadline, self._timeout_ms, self)

    async def _read(self, key: bytes) -> tuple[bytes | None, int, int]:
        try:
            answer: tuple[bytes | None, int, int] = await self._ask(key)
        except K2Error as error:
            self._fail(error)
            raise
        if answer[2] != self._at:
            self._begun(answer[2])
        return answer

    def _begun(self, at: int) -> None:
        """The node has told the stamp. Two stamps for one attempt are one too many."""
        if self._at:
            error = Conflict(
                "the node has forgotten this transaction and begun it anew; "
                "what was read before does not count any more"
            )
            self._fail(error)
            raise error
        self._at = at

    # ------------------------------------------------------------------------------- writing

    def put(self, key: bytes, value: bytes) -> None:
        """Write a value; it travels with the commit."""
        if self._state:
            raise self._over()
        session = self._session
        if type(key) is not bytes or len(key) > session.key_bytes_max:
            raise bad_key(key, session.key_bytes_max)
        if type(value) is not bytes or len(value) > session.value_bytes_max:
            raise bad_value(value, session.value_bytes_max)
        writes = self._writes
        writes[key] = value
        self._unsent_bytes += len(key) + len(value)
        if len(writes) >= session.early_write_count or (
            self._unsent_bytes >= session.early_write_bytes
        ):
            self._send_early()

    def delete(self, key: bytes) -> None:
        """Delete a key, whether it has a value or not; travels with the commit."""
        if self._state:
            raise self._over()
        session = self._session
        if type(key) is not bytes or len(key) > session.key_bytes_max:
            raise bad_key(key, session.key_bytes_max)
        self._writes[key] = None
        self._unsent_bytes += len(key)
        if len(self._writes) >= session.early_write_count:
            self._send_early()

    def _send_early(self) -> None:
        """Let what is buffered leave now; the commit waits for the answers."""
        writes, operations_max = self._writes, self._session.operations_max
        if self._sent_count + len(writes) > operations_max:
            refusal = Rejected(
                f"a transaction may write at most {operations_max} times", field="operations"
            )
            self._fail(refusal)
            raise refusal
        if not self._anchor:
            self._anchor = next(iter(writes))
        values = list(writes.values())
        message = wire.WriteCall(
            txn=self._id,
            at=self._at,
            key=list(writes),
            value=[value or b"" for value in values],
            deleted=[value is None for value in values] if None in values else (),
            timeout_ms=self._timeout_ms,
        )
        try:
            future = self._session.call("writes", message, self._deadline, self)
        except K2Error as error:
            self._fail(error)
            raise
        future.add_done_callback(self._early_done)
        self._touched = True
        self._early = [*(self._early or ()), future]
        self._sent = {**(self._sent or {}), **writes}
        self._sent_count += len(writes)
        self._writes = {}
        self._unsent_bytes = 0

    def _early_done(self, future: Future) -> None:
        """A refusal of an early write ends the transaction, whoever looks next."""
        if not future.cancelled():
            error = future.exception()
            if isinstance(error, K2Error):
                self._fail(error)

    # -------------------------------------------------------------------------------- ending

    async def rollback(self) -> None:
        """End without effect; the rest of the block may not use the transaction any more."""
        if self._state:
            raise self._over()
        self._abandon(_ROLLED_BACK)

    async def __aenter__(self) -> Transaction:
        if self._state:
            raise self._over()
        self._session.blocks_open += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._session.blocks_open -= 1
        # The link is dropped whatever happens: no cycle is left for the collector.
        attempts, self._attempts = self._attempts, None
        if error is None:
            if self._state == _OPEN:
                try:
                    await self._commit()
                except K2Error as failure:
                    follows = attempts is not None and attempts.failed(failure)
                    attempts = None
                    if not follows:
                        raise
            elif self._failure is not None and (
                attempts is None or not attempts.failed(self._failure)
            ):
                # The block has swallowed the failure; it must not look like a commit.
                raise self._failure
            return False
        if self._state == _OPEN:
            self._abandon(_ROLLED_BACK)
        cause = self._failure
        return (
            cause is not None
            and attempts is not None
            and _is_only(error, cause)
            and attempts.failed(cause)
        )

    async def _commit(self) -> None:
        writes, session = self._writes, self._session
        if not writes and self._sent is None:
            await self._end_reading()
            return
        keys = list(writes)
        if not self._anchor:
            self._anchor = keys[0]
        try:
            for early in self._early or ():
                await self._arrival(early)
            future = session.commit(
                self._id,
                self._at,
                keys,
                list(writes.values()),
                self._unsent_bytes,
                self._deadline,
                self._timeout_ms,
                self._sent_count,
            )
        except K2Error as error:
            self._fail(error)
            raise
        self._touched = False  # From here on its record ends it, not a rollback.
        try:
            self._at, self._waited_ns, _, _ = await future
        except CommitLost as lost:
            await self._resolve(lost)
        except K2Error as error:
            self._touched = True
            self._fail(error)
            raise
        self._state = _COMMITTED
        self._ended_s = session.now_s()
        session.finished(self._id)

    async def _arrival(self, early: Future) -> None:
        """Wait for the answer to writes that left early."""
        try:
            await early
        except asyncio.CancelledError:
            # The refusal of other writes has taken these back, too. Who is cancelled himself has
            # not failed.
            if self._failure is None or not early.cancelled():
                raise
            raise self._failure from None

    async def _end_reading(self) -> None:
        """Without writes there is nothing to say; only true time must pass what was read at."""
        session = self._session
        if self._at:
            bounded_time = session.bounded_time
            if not bounded_time.covers(self._at):
                await bounded_time.past(self._at)
            session.finished(self._id)
        self._state = _COMMITTED
        self._ended_s = session.now_s()

    async def _resolve(self, lost: CommitLost) -> None:
        """Learn from the durable record what became of the commit; raise unless it took."""
        session = self._session
        outcome = await resolve(
            session, self._id, self._anchor, self._at, self._deadline, self._not_before
        )
        if outcome.state == "committed":
            self._at = outcome.at
            return
        failure: K2Error
        if outcome.state == "aborted":
            failure = Conflict(f"the commit did not take, as its record shows: {lost}")
            session.finished(self._id)
        else:
            failure = OutcomeUnknown(
                f"the commit of {self._id.hex()} may or may not have taken, and its record could "
                f"not be read before the deadline ({lost}); ask db.outcome() before doing it again",
                transaction=self._id.hex(),
            )
        self._fail(failure)
        raise failure from lost

    def _fail(self, error: K2Error) -> None:
        if self._state == _OPEN:
            self._failure = error
            self._abandon(_FAILED)

    def _abandon(self, state: int) -> None:
        self._state = state
        self._ended_s = self._session.now_s()
        self._writes = {}
        self._sent = None
        if self._early is not None:
            for early in self._early:
                early.cancel()
        if self._touched:
            self._session.rollback(self._id)

    def _over(self) -> K2Error:
        """Why the transaction can no longer be used."""
        ago_s = self._session.now_s() - self._ended_s
        if self._state == _COMMITTED:
            how = f"committed at {self._at}"
        elif self._state == _ROLLED_BACK:
            how = "was rolled back"
        else:
            assert self._failure is not None
            # Asking again must not turn a conflict into something that cannot be retried.
            return self._failure
        return Rejected(
            f"transaction {self._id.hex()} {how} {ago_s:.3f} s ago; "
            "use it only inside its `async with` block",
            field="transaction",
        )


def _is_only(error: BaseException, failure: K2Error) -> bool:
    """Whether a block ended with this failure and nothing else, alone or out of a task group."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(lambda one: one is failure)[1] is None
    return error is failure


def bad_key(key: Any, longest: int) -> Rejected:
    """What is wrong with a key."""
    if type(key) is not bytes:
        return Rejected(f"a key is bytes, not {type(key).__name__}", field="key")
    return Rejected(f"a key of {len(key)} bytes is longer than {longest}", field="key")


def bad_value(value: Any, longest: int) -> Rejected:
    """What is wrong with a value."""
    if type(value) is not bytes:
        return Rejected(f"a value is bytes, not {type(value).__name__}", field="value")
    return Rejected(f"a value of {len(value)} bytes is longer than {longest}", field="value")
