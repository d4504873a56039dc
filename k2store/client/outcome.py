"""What became of a transaction: asked of its durable record, for as long as the deadline allows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from k2store.client.records import Outcome
from k2store.errors import K2Error, Retry
from k2store.v1 import session_pb2 as wire

if TYPE_CHECKING:
    from k2store.client.session import Session

_PAUSE_S: Final = 0.02
_PAUSE_MAX_S: Final = 0.5


async def ask(
    session: Session,
    txn: bytes,
    anchor: bytes,
    at: int,
    deadline: float,
    *,
    decide: bool,
    not_before: int = 0,
) -> Outcome:
    """The outcome of a transaction, `unknown` where its record is not there (any more).

    `not_before` is a lower bound of its stamp, for who never learned it (`at` 0).
    Raises what the node answers last when the deadline comes first.
    """
    pause_s = _PAUSE_S
    while True:
        message = wire.OutcomeCall(
            txn=txn, at=at, anchor=anchor, decide=decide, not_before=not_before
        )
        try:
            answer: wire.OutcomeAnswer = await session.call("outcomes", message, deadline, None)
        except K2Error as error:
            if error.retry in {Retry.NEVER, Retry.CALLER} or (
                session.now_s() + pause_s >= deadline
            ):
                raise
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)
            continue
        if answer.state == wire.OUTCOME_STATE_COMMITTED:
            await session.bounded_time.past(answer.at)
            return Outcome("committed", answer.at)
        return Outcome("aborted" if answer.state == wire.OUTCOME_STATE_ABORTED else "unknown")


async def resolve(
    session: Session, txn: bytes, anchor: bytes, at: int, deadline: float, not_before: int
) -> Outcome:
    """The outcome of a transaction of our own that was never told; unknown if nobody answers.

    A transaction that the node knows nothing of is aborted for good. What stays unknown is
    remembered, so that `Database.outcome` can ask again without being told where.
    """
    outcome = Outcome("unknown")
    try:
        outcome = await ask(session, txn, anchor, at, deadline, decide=True, not_before=not_before)
    except K2Error:
        pass
    finally:
        if outcome.state == "unknown":
            session.remember_unresolved(txn, anchor, at, not_before)
    return outcome
