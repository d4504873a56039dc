"""Interactive transactions of unary callers: kept here between one call and the next.

A session's transactions end with its stream; a unary caller has none, so an open transaction is
found by its id and ends by itself after the longest life of a transaction. An id is a name and no
secret: every caller who may write could go on with it.

Other than the client library, which tells the node which outcomes it has received, nobody here
knows whether an answer has reached its caller. So the node keeps the outcomes of these
transactions for as long as it keeps any, and `Outcome` can be asked after a lost answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from k2store.client.doubt import CommitLost
from k2store.client.outcome import resolve
from k2store.client.session import Session
from k2store.errors import Conflict, Expired, K2Error, OutcomeUnknown, Overloaded
from k2store.v1 import session_pb2

OPEN_MAX: Final = 10_000
"""Interactive transactions of unary callers that are open at once."""

Mutations = Sequence[tuple[bytes, bytes | None]]


class Interactive:
    """One open transaction; also what its operations call their owner."""

    def __init__(self, session: Session, txn: bytes, deadline: float) -> None:
        self._session = session
        self._deadline = deadline
        self._not_before = session.bounded_time.not_before()
        self.id = txn
        self.at = 0

    async def get(self, key: bytes, timeout_ms: int) -> tuple[bytes | None, int]:
        """Value (None: there is none) and version of a key at the transaction's stamp."""
        future = self._session.read(self.id, self.at, key, self._deadline, timeout_ms, self)
        value, version, at = await future
        self._begun(at)
        return value, version

    async def page(self, call: session_pb2.ScanCall, timeout_ms: int) -> session_pb2.RowsPage:
        """One page of a scan at the transaction's stamp."""
        call.txn, call.at, call.timeout_ms = self.id, self.at, timeout_ms
        page: session_pb2.RowsPage = await self._session.call("scans", call, self._deadline, self)
        self._begun(page.at)
        return page

    async def commit(self, writes: Mutations, timeout_ms: int) -> int:
        """Commit with these writes; the stamp, once true time has passed it."""
        session = self._session
        if not writes:
            if self.at:
                await session.bounded_time.past(self.at)
            return self.at
        keys, values = [key for key, _ in writes], [value for _, value in writes]
        size = sum(len(key) + len(value or b"") for key, value in writes)
        try:
            at, _, _, _ = await session.commit(
                self.id, self.at, keys, values, size, self._deadline, timeout_ms
            )
        except CommitLost as lost:
            return await self._resolve(keys[0], lost)
        stamp: int = at
        return stamp

    def rollback(self) -> None:
        """End without effect."""
        self._session.rollback(self.id)

    async def _resolve(self, anchor: bytes, lost: CommitLost) -> int:
        outcome = await resolve(
            self._session, self.id, anchor, self.at, self._deadline, self._not_before
        )
        if outcome.state == "committed":
            return outcome.at
        failure: K2Error = Conflict(f"the commit did not take, as its record shows: {lost}")
        if outcome.state == "unknown":
            failure = OutcomeUnknown(
                f"the commit may or may not have taken ({lost}); ask Outcome",
                transaction=self.id.hex(),
            )
        raise failure from lost

    def _begun(self, at: int) -> None:
        if self.at and self.at != at:
            raise Conflict(
                "the node has forgotten this transaction and begun it anew; what was read before "
                "does not count any more"
            )
        self.at = at


class OpenTransactions:
    """The open transactions of all unary callers of a node."""

    def __init__(self, session: Session, *, lifetime_s: float) -> None:
        self._session = session
        self._lifetime_s = lifetime_s
        self._open: dict[bytes, tuple[Interactive, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._open)

    def begin(self) -> Interactive:
        """A new one; raises Overloaded when too many are open."""
        if len(self._open) >= OPEN_MAX:
            raise Overloaded(
                f"{OPEN_MAX} interactive transactions are open",
                limit="interactive",
                retry_after_s=self._lifetime_s / 2,
            )
        session = self._session
        number = session.next_number
        session.next_number = number + 1
        txn = session.client + (number << 16 | 1).to_bytes(8, "big")
        one = Interactive(session, txn, session.now_s() + self._lifetime_s)
        expiry = asyncio.get_running_loop().call_later(self._lifetime_s, self.rollback, txn)
        self._open[txn] = one, expiry
        return one

    def find(self, txn: bytes) -> Interactive:
        """The open one of that id; raises Expired."""
        found = self._open.get(txn)
        if found is None:
            raise Expired(
                "no interactive transaction of that id is open here: it has ended, or lived "
                f"longer than {self._lifetime_s:g} s",
                what="transaction",
            )
        return found[0]

    def take(self, txn: bytes) -> Interactive:
        """The same, and it is not found any more."""
        one = self.find(txn)
        self._open.pop(txn)[1].cancel()
        return one

    def rollback(self, txn: bytes) -> None:
        """End it without effect, if it is open."""
        if txn in self._open:
            self.take(txn).rollback()

    def close(self) -> None:
        """Forget all; the node rolls back what its session leaves open."""
        for _, expiry in self._open.values():
            expiry.cancel()
        self._open.clear()
