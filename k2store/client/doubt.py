"""What a failure says of an operation, and whether it may simply be asked again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from k2store.client.outbox import CALL, COMMIT, DEADLINE, KIND, ONE_SHOT, READ, Entry, OneShot
from k2store.errors import (
    ClockUncertain,
    ConditionFailed,
    Deadline,
    K2Error,
    OutcomeUnknown,
    Rejected,
    Unavailable,
)

if TYPE_CHECKING:
    from k2store.client.retry import Rng

READ_PAUSE_S: Final = 0.04
"""Before a read is asked again that nobody could serve; half as much, or half as much more."""


class CommitLost(Exception):
    """Nobody knows whether a commit has taken: ask what became of it."""


def doubtful(entry: Entry, error: K2Error) -> K2Error:
    """The failure of an operation that an earlier connection has carried as well.

    A refusal speaks of the copy that it answers. The other copy of a one-shot may still be on its
    way to the leader, through the node that was asked first.
    """
    if entry[KIND] != ONE_SHOT or isinstance(error, ConditionFailed | Rejected):
        return error
    one_shot = cast(OneShot, cast(Any, entry))
    txn, keys = one_shot[4], one_shot[8]
    return OutcomeUnknown(error.message, transaction=txn.hex()) if keys else error


def too_late(entry: Entry) -> Exception:
    """The failure of an operation that has left, and has no answer at its deadline."""
    if entry[KIND] == COMMIT:
        return CommitLost("the deadline passed before the answer")
    if entry[KIND] == ONE_SHOT:
        one_shot = cast(OneShot, cast(Any, entry))
        if one_shot[8]:  # it writes
            return OutcomeUnknown(
                "the deadline passed before the answer; the transaction may or may not have "
                "taken: ask db.outcome()",
                transaction=one_shot[4].hex(),
            )
    return Deadline("the deadline passed before the answer")


def pause_before(
    entry: Entry, error: Unavailable | ClockUncertain, now_s: float, rng: Rng
) -> float:
    """How long to wait before an operation is asked again, in seconds; 0: it is not.

    Reads and pages of scans are, outside of transactions and in time: their partition may be
    between two leaders, their node without a clock it trusts. Transactions and one-shots have their own retries.
    """
    if entry[KIND] == READ:
        plain = entry[4] == b""
    else:
        plain = entry[KIND] == CALL and entry[4] == "scans" and not cast(Any, entry)[5].txn
    pause_s = max(error.retry_after_s or 0.0, READ_PAUSE_S) * (0.5 + rng.random())
    return pause_s if plain and now_s + pause_s < entry[DEADLINE] else 0.0
