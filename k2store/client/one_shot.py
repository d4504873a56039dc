"""One-shot transactions: conditions, reads and writes in one message.

A one-shot keeps its id through every repetition, so the node applies it once whatever the network
does. Failures are told apart by what they permit: nobody could serve it yet, or nobody knows
whether it took, and it is sent again under the same id; it lost to another transaction, and a
new attempt takes a new id, unless a copy under the old one may still be on its way; its deadline
passed while it was under way, and nobody knows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from k2store.client.outcome import resolve
from k2store.client.records import Result
from k2store.client.retry import Failed, RetryPolicy, Rng, retries
from k2store.client.transaction import bad_key, bad_value
from k2store.errors import (
    ConditionFailed,
    K2Error,
    OutcomeUnknown,
    Rejected,
    Retry,
    Unavailable,
)
from k2store.rpc.transport import FRAME_BYTES_MAX

if TYPE_CHECKING:
    from k2store.client.conditions import Condition
    from k2store.client.session import Session

Answer: TypeAlias = "tuple[int, int, list[int], list[bytes]]"
"""Stamp, wait for the clock in ns, versions and values of the reads."""

_BYTES_MAX = FRAME_BYTES_MAX // 2


class OneShots:
    """Runs the one-shots of one `Database`."""

    __slots__ = ("_policy", "_prefix", "_rng", "_session", "_timeout_s")

    def __init__(self, session: Session, timeout_s: float, policy: RetryPolicy, rng: Rng) -> None:
        self._session = session
        self._prefix = session.client
        self._timeout_s = timeout_s
        self._policy = policy
        self._rng = rng

    async def write(
        self,
        key: bytes,
        value: bytes | None,
        conditions: tuple[Condition, ...],
        timeout_s: float | None,
    ) -> int:
        """One write under conditions; gives its stamp."""
        session = self._session
        if type(key) is not bytes or len(key) > session.key_bytes_max:
            raise bad_key(key, session.key_bytes_max)
        size = len(key)
        if value is not None:
            if type(value) is not bytes or len(value) > session.value_bytes_max:
                raise bad_value(value, session.value_bytes_max)
            size += len(value)
        if conditions:
            size += _condition_bytes(conditions)
        answer = await self._run(conditions, (), (key,), (value,), size, timeout_s)
        return answer[0]

    async def run(
        self,
        conditions: tuple[Condition, ...],
        reads: tuple[bytes, ...],
        keys: tuple[bytes, ...],
        values: tuple[bytes | None, ...],
        timeout_s: float | None,
    ) -> Result:
        """The general form."""
        session = self._session
        size = 0
        for key in (*reads, *keys):
            if type(key) is not bytes or len(key) > session.key_bytes_max:
                raise bad_key(key, session.key_bytes_max)
            size += len(key)
        for value in values:
            if value is not None:
                if type(value) is not bytes or len(value) > session.value_bytes_max:
                    raise bad_value(value, session.value_bytes_max)
                size += len(value)
        if conditions:
            size += _condition_bytes(conditions)
        operations = len(conditions) + len(reads) + len(keys)
        if size > _BYTES_MAX:
            raise Rejected(
                f"a one-shot of {size} bytes exceeds {_BYTES_MAX}; use a transaction",
                field="size",
            )
        if operations > session.operations_max:
            raise Rejected(
                f"{operations} operations exceed {session.operations_max}", field="operations"
            )
        answer = await self._run(conditions, reads, keys, values, size, timeout_s)
        at, waited_ns, versions, found = answer
        if not reads:
            return Result(at, waited_ns=waited_ns)
        return Result(
            at,
            tuple(
                [value if version else None for value, version in zip(found, versions, strict=True)]
            ),
            tuple(versions),
            waited_ns,
        )

    async def _run(
        self,
        conditions: tuple[Condition, ...],
        reads: tuple[bytes, ...],
        keys: tuple[bytes, ...],
        values: tuple[bytes | None, ...],
        size: int,
        timeout_s: float | None,
    ) -> Answer:
        session = self._session
        number = session.next_number
        session.next_number = number + 1
        txn = self._prefix + (number << 16 | 1).to_bytes(8, "big")
        not_before = session.bounded_time.not_before()
        if timeout_s is None:
            deadline, timeout_ms = session.now_s() + self._timeout_s, 0
        else:
            deadline = session.now_s() + timeout_s
            timeout_ms = max(1, int(timeout_s * 1000))
        try:
            answer: Answer = await session.one_shot(
                txn, conditions, reads, keys, values, size, deadline, timeout_ms
            )
        except K2Error as error:
            answer = await self._again(
                number, conditions, reads, keys, values, size, deadline, error, not_before
            )
        else:
            session.finished(txn)
        return answer

    async def _again(
        self,
        number: int,
        conditions: tuple[Condition, ...],
        reads: tuple[bytes, ...],
        keys: tuple[bytes, ...],
        values: tuple[bytes | None, ...],
        size: int,
        deadline: float,
        error: K2Error,
        not_before: int,
    ) -> Answer:
        """What follows a first failure."""
        session = self._session
        attempt = 1
        doubt = False  # Whether a copy under the present id may have taken.
        plan = retries(self._policy, deadline, self._rng)
        next(plan)
        while True:
            txn = self._prefix + (number << 16 | attempt).to_bytes(8, "big")
            if error.retry is Retry.RESOLVE:
                doubt = True
                # To the plan this is a node that cannot answer yet.
                asked: K2Error = Unavailable(error.message)
            else:
                asked = error
            try:
                pause_s = plan.send(Failed(asked, session.now_s()))
            except StopIteration:
                await self._give_up(txn, keys, error, not_before, deadline, doubt=doubt)
                raise error from None
            if error.retry is Retry.NOW and not doubt:
                attempt += 1
                txn = self._prefix + (number << 16 | attempt).to_bytes(8, "big")
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            left_ms = max(1, int((deadline - session.now_s()) * 1000))
            try:
                answer: Answer = await session.one_shot(
                    txn, conditions, reads, keys, values, size, deadline, left_ms
                )
            except K2Error as latest:
                error = latest
            else:
                session.finished(txn, doubt=doubt)
                return answer

    async def _give_up(
        self,
        txn: bytes,
        keys: tuple[bytes, ...],
        error: K2Error,
        not_before: int,
        deadline: float,
        *,
        doubt: bool,
    ) -> None:
        """Raise what the caller must know beyond the failure itself."""
        session = self._session
        if isinstance(error, ConditionFailed) and keys and (doubt or session.sent_twice(txn)):
            # Another copy may meet a leader to whom nobody has told this: it must find it refused.
            found = await resolve(session, txn, keys[0], 0, deadline, not_before)
            doubt = found.state != "aborted"
        if isinstance(error, ConditionFailed) and not doubt:
            if error.at is not None:
                # The answer is a read: it may be told when true time has passed its stamp.
                await session.bounded_time.past(error.at)
            session.finished(txn)
            return
        if doubt or isinstance(error, OutcomeUnknown):
            session.remember_unresolved(txn, keys[0] if keys else b"", 0, not_before)
            raise OutcomeUnknown(
                f"the one-shot {txn.hex()} may or may not have taken ({error.message}); "
                "ask db.outcome() before doing it again",
                transaction=txn.hex(),
            ) from error


def _condition_bytes(conditions: tuple[Condition, ...]) -> int:
    return sum([len(condition.key) + len(condition.value) for condition in conditions])
