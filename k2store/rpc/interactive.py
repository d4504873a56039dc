"""Interactive transactions of unary callers: kept here between one call and the next.

A session's transactions end with its stream; a unary caller has none, so an open transaction is
found by its id and ends by itself after the longest life of a transaction. An id is a name and no
secret: every caller who may write could go on with it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import Struct

from k2store.client.attempts import Attempts
from k2store.client.database import Database
from k2store.client.transaction import State, Transaction
from k2store.errors import Expired, Overloaded

OPEN_MAX: Final = 10_000
"""Interactive transactions of unary callers that are open at once."""


class _Open(Struct):
    """An open transaction, the loop it is the only attempt of, and its end."""

    txn: Transaction
    attempts: Attempts
    expiry: asyncio.TimerHandle


class Interactive:
    """The open transactions of unary callers."""

    def __init__(self, database: Database, *, lifetime_s: float) -> None:
        self._database = database
        self._lifetime_s = lifetime_s
        self._open: dict[bytes, _Open] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    async def begin(self) -> Transaction:
        """A new one; raises Overloaded when too many are open."""
        if len(self._open) >= OPEN_MAX:
            raise Overloaded(
                f"{OPEN_MAX} interactive transactions are open",
                limit="interactive",
                retry_after_s=self._lifetime_s / 2,
            )
        # One attempt: its caller is told of a conflict and begins another one.
        attempts = self._database.transactions(attempts=1, timeout=self._lifetime_s)
        txn = await anext(attempts)
        loop = asyncio.get_running_loop()
        expiry = loop.call_later(self._lifetime_s, self._expire, txn.id)
        self._open[txn.id] = _Open(txn, attempts, expiry)
        return txn

    def find(self, txn_id: bytes) -> Transaction:
        """The open one of that id; raises Expired."""
        found = self._open.get(txn_id)
        if found is None:
            raise Expired(
                "no interactive transaction of that id is open here: it has ended, or lived "
                f"longer than {self._lifetime_s:g} s",
                what="transaction",
            )
        return found.txn

    def take(self, txn_id: bytes) -> Transaction:
        """The same, and it is not found any more."""
        txn = self.find(txn_id)
        self._open.pop(txn_id).expiry.cancel()
        return txn

    async def rollback(self, txn_id: bytes) -> None:
        """End it without effect, if it is open."""
        if txn_id in self._open:
            txn = self.take(txn_id)
            if txn.state is State.OPEN:
                await txn.rollback()

    def close(self) -> None:
        """Forget all; the node rolls back what its session leaves open."""
        for one in self._open.values():
            one.expiry.cancel()
        self._open.clear()

    def _expire(self, txn_id: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self.rollback(txn_id))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
