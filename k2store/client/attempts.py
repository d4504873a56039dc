"""The loop around a transaction: one attempt after the other, until one commits or none is left.

::

    async for txn in db.transactions():
        async with txn:
            ...

The inner block swallows a failure only if another attempt follows, so the loop ends in one of two
ways: the last attempt has committed, or its failure comes out of the block. An attempt follows
only when the outcome of the one before is certain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING

from k2store.client.retry import Failed, RetryPolicy, Rng, retries
from k2store.client.transaction import State, Transaction
from k2store.errors import K2Error, Rejected

if TYPE_CHECKING:
    from k2store.client.session import Session

_PLAIN_ATTEMPTS = 8
"""So many attempts take their stamp where they are; later ones are placed in the future."""


_ATTEMPTS_PER_NUMBER = 255


def _suffix(number: int, attempt: int) -> bytes:
    """The half of a transaction's id behind the client's: its number, attempt and placement.

    The last byte tells the node how far into the future to place the stamp: 1 for not at all. The
    writes of a placed attempt land ahead of present readers, which rescues a transaction that is
    always overtaken; but until then everybody else's reads and writes of these keys collide with
    it. So contenders first move apart by pausing, which is cheaper where a round trip is short.
    """
    placement = max(1, attempt - _PLAIN_ATTEMPTS + 1)
    return (number << 16 | (attempt - 1) << 8 | placement).to_bytes(8, "big")


class Attempts:
    """What `Database.transactions` returns; iterate over it once, to the end."""

    __slots__ = (
        "_attempt",
        "_deadline",
        "_number",
        "_pause_s",
        "_plan",
        "_policy",
        "_rng",
        "_session",
        "_timeout_ms",
        "_txn",
    )

    def __init__(
        self,
        session: Session,
        number: int,
        deadline: float,
        timeout_ms: int,
        policy: RetryPolicy,
        rng: Rng,
    ) -> None:
        self._session = session
        self._number = number
        self._deadline = deadline
        self._timeout_ms = timeout_ms
        self._policy = policy
        self._rng = rng
        self._attempt = 0
        self._txn: Transaction | None = None
        self._plan: Generator[float, Failed, None] | None = None
        self._pause_s: float | None = None

    def __aiter__(self) -> Attempts:
        return self

    async def __anext__(self) -> Transaction:
        txn = self._txn
        if txn is not None:
            pause_s, self._pause_s = self._pause_s, None
            if pause_s is None:
                if txn._state == State.OPEN:
                    txn._abandon(State.ROLLED_BACK)
                    raise Rejected(
                        "the transaction was not used: write `async with transaction:` "
                        "inside the loop",
                        field="transaction",
                    )
                raise StopAsyncIteration
            if pause_s > 0:
                await asyncio.sleep(pause_s)
        self._attempt = attempt = self._attempt + 1
        name = self._session.client + _suffix(self._number, attempt)
        txn = self._txn = Transaction(self._session, name, self._deadline, self._timeout_ms, self)
        if attempt == _ATTEMPTS_PER_NUMBER:
            self._number = self._session.next_number
            self._session.next_number += 1
            self._attempt = 0
        return txn

    def failed(self, error: K2Error) -> bool:
        """The attempt has failed for certain; whether another one follows."""
        if self._plan is None:
            self._plan = retries(self._policy, self._deadline, self._rng)
            next(self._plan)
        try:
            self._pause_s = self._plan.send(Failed(error, self._session.now_s()))
        except StopIteration:
            return False
        # The failure ends here; its traceback would keep the frames of the attempt alive.
        error.__traceback__ = None
        return True

    def __del__(self) -> None:
        # The block has swallowed a failure because an attempt was to follow, and the loop was
        # left with `return` or `break` instead. No exception can be raised any more.
        if self._pause_s is not None:
            self._session.report(
                "a transaction did not commit, and its loop was left with `return` or `break` "
                "from inside the block before the next attempt; leave the loop after the block, "
                "or use db.run()",
                self._txn.failure if self._txn is not None else None,
            )
