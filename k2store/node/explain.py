"""Refusals of the machines as errors for people: what happened, why, and what to do."""

from __future__ import annotations

from collections.abc import Callable

from k2store.errors import (
    ClockUncertain,
    ConditionFailed,
    Conflict,
    Deadline,
    Expired,
    K2Error,
    Rejected,
    TooOld,
    Unavailable,
)
from mvcc.messages import Failed
from mvcc.refusals import Refusal, Rule
from truetime.timestamp import describe


def show_key(key: bytes) -> str:
    """A key as people read it, cut to a length that fits a line."""
    text = ascii(key)[1:]
    return text if len(text) <= 80 else text[:77] + "..."


def show_transaction(txn: bytes) -> str:
    """A transaction id as text: client-number.attempt."""
    if len(txn) != 16:
        return txn.hex() or "a reader outside any transaction"
    number = int.from_bytes(txn[8:14], "big")
    attempt = int.from_bytes(txn[14:], "big")
    return f"{txn[:8].hex()}-{number}.{attempt}"


def _conflict(refusal: Refusal, why: str) -> Conflict:
    rule = Rule(refusal.rule)
    key = f" on key {show_key(refusal.key)}" if refusal.key else ""
    return Conflict(
        f"{why}{key}; run the transaction again",
        rule=rule.name,
        key=refusal.key or None,
        other=refusal.other.hex() or None,
        other_stamp=refusal.stamp or None,
    )


def _read_by(refusal: Refusal) -> K2Error:
    reader = show_transaction(refusal.other)
    return _conflict(
        refusal, f"a later read ({reader}, at {describe(refusal.stamp)}) has passed over this write"
    )


def _closed(refusal: Refusal) -> K2Error:
    return _conflict(
        refusal, f"time is closed up to {describe(refusal.stamp)}: the transaction took too long"
    )


def _low_water(refusal: Refusal) -> K2Error:
    return _conflict(
        refusal,
        f"the node started or took over after this transaction began (low-water mark "
        f"{describe(refusal.stamp)})",
    )


def _cache(refusal: Refusal) -> K2Error:
    return _conflict(
        refusal,
        f"the read cache was full and reads up to {describe(refusal.stamp)} are assumed everywhere",
    )


def _busy(refusal: Refusal) -> K2Error:
    other = show_transaction(refusal.other)
    return _conflict(
        refusal, f"the deadline passed while an older transaction ({other}) was undecided"
    )


def _horizon(refusal: Refusal) -> K2Error:
    return TooOld(
        f"history before {describe(refusal.stamp)} has been collected; read at that stamp or later "
        "(transactions.retention says how much is kept)",
        horizon=refusal.stamp,
    )


_EXPLANATIONS: dict[int, Callable[[Refusal], K2Error]] = {
    Rule.READ_BY: _read_by,
    Rule.CLOSED: _closed,
    Rule.LOW_WATER: _low_water,
    Rule.CACHE: _cache,
    Rule.BUSY: _busy,
    Rule.HORIZON: _horizon,
    Rule.FUTURE: lambda refusal: Rejected(
        f"the stamp lies further ahead than any correct clock gives (at most "
        f"{describe(refusal.stamp)} now)",
        field="at",
    ),
    Rule.ABORTED: lambda refusal: Expired(
        "the transaction was aborted: it expired, or its client ended it; run it again",
        what="transaction",
    ),
    Rule.ENDED: lambda refusal: Rejected(
        "the transaction has already ended; nothing can be added to it", field="txn"
    ),
    Rule.NOT_LEADER: lambda refusal: Unavailable(
        "this node does not serve now; try again", retry_after_s=0.05
    ),
    Rule.DEADLINE: lambda refusal: Deadline("the deadline passed before the request could run"),
    Rule.WRONG_PARTITION: lambda refusal: Unavailable(
        "the key has moved to another partition; try again", retry_after_s=0.01
    ),
    Rule.MISSING_WRITE: lambda refusal: _conflict(
        refusal, "a write that was sent ahead of the commit is missing"
    ),
    Rule.UNCERTAIN: lambda refusal: ClockUncertain(
        "no stamp fits the clock's bound now; try again", retry_after_s=0.005
    ),
    Rule.TOO_LARGE: lambda refusal: Rejected(
        "what the one-shot reads is more than one answer can carry; read it in a transaction",
        field="reads",
    ),
    Rule.HOMES: lambda refusal: Rejected(
        "a transaction that writes cannot span keyspaces that are lost apart: two homes with "
        "survive = zone, or one of them together with writes to survive = region. If a region were "
        "lost, half of it would stay. Keep what changes together in one home, or in a keyspace "
        "that survives regions",
        field="key",
    ),
    Rule.FIELD: lambda refusal: Rejected(
        f"a condition names a field that the record at {show_key(refusal.key)} does not have, or "
        "compares values that cannot be compared",
        field="condition",
    ),
}


def explain(refusal: Refusal) -> K2Error:
    """The error that a client sees for a refusal."""
    return _EXPLANATIONS[refusal.rule](refusal)


def explain_failed(failed: Failed) -> ConditionFailed:
    """The error that a client sees for a condition that does not hold."""
    return ConditionFailed(
        f"condition {failed.condition} does not hold on key {show_key(failed.key)} "
        f"at {describe(failed.stamp)}",
        rule="CONDITION",
        key=failed.key,
        condition=failed.condition,
        at=failed.stamp,
    )
