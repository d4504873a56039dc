"""Bank: transfers move money between accounts, reads see all accounts at once.

Every read must sum to the total. The total comes from the initial balances (`--initial {"a": 10, ...}` or the sum
itself), else from the first read. Balances may go below zero only if the total was given as `{"total": n,
"negative": true}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jepsen_like.history import HistoryError, Operation
from jepsen_like.invariants.outcome import integer, verdict_of
from jepsen_like.linearizability.objects import UNSET
from jepsen_like.options import Options
from jepsen_like.values import show
from jepsen_like.verdict import Finding, Verdict


def check_bank(operations: Sequence[Operation], options: Options) -> Verdict:
    """Finds wrong totals, negative and missing balances, and accounts that nobody opened."""
    for operation in operations:
        if operation.f not in ("read", "transfer"):
            raise HistoryError(
                f"event {operation.index}: bank knows read and transfer, not {operation.f!r}"
            )
    reads = [o for o in operations if o.f == "read" and o.outcome == "ok" and o.result is not None]
    reads.sort(key=lambda o: o.end)
    if not reads:
        return verdict_of((), vacuous="no completed read constrains anything")
    total, accounts, negative = _expected(reads[0], options.initial)
    findings: list[Finding] = []
    for read in reads:
        finding = _judge(read, _balances(read), total, accounts, negative=negative)
        if finding is not None:
            findings.append(finding)
    # Reads of the whole bank at once, as a snapshot: the weakest promise that keeps totals is read atomicity
    # with an own snapshot, so what is broken is snapshot isolation.
    return verdict_of(findings, ("snapshot-isolation",))


def _expected(first: Operation, initial: object) -> tuple[int, set[str], bool]:
    balances = _balances(first)
    accounts = {str(account) for account in balances}
    if initial is UNSET or initial is None:
        return sum(value or 0 for value in balances.values()), accounts, False
    if isinstance(initial, int):
        return initial, accounts, False
    if isinstance(initial, Mapping) and "total" in initial and isinstance(initial["total"], int):
        return initial["total"], accounts, bool(initial.get("negative", False))
    if isinstance(initial, Mapping):
        given = {str(account): integer(first, value) for account, value in initial.items()}
        return sum(given.values()), set(given), False
    raise HistoryError(f"the initial value of a bank is a sum or balances, not {show(initial)}")


def _balances(read: Operation) -> dict[object, int | None]:
    value = read.result
    if isinstance(value, Mapping):
        entries = list(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        # Some clients write balances as pairs.
        entries = [
            tuple(entry) for entry in value if isinstance(entry, Sequence) and len(entry) == 2
        ]
        if len(entries) != len(value):
            raise HistoryError(f"event {read.index}: {show(value)} is not a map of balances")
    else:
        raise HistoryError(f"event {read.index}: {show(value)} is not a map of balances")
    return {
        account: None if balance is None else integer(read, balance) for account, balance in entries
    }


def _judge(
    read: Operation,
    balances: Mapping[object, int | None],
    total: int,
    accounts: set[str],
    *,
    negative: bool,
) -> Finding | None:
    where = f"The read by process {read.process} (event {read.index})"
    strange = [account for account in balances if str(account) not in accounts]
    if strange:
        why = f"{where} saw account {show(strange[0])}, which nobody opened."
        return Finding("unexpected-key", why, (read.number,))
    empty = [account for account, balance in balances.items() if balance is None]
    if empty:
        why = f"{where} saw no balance in account {show(empty[0])}."
        return Finding("nil-balance", why, (read.number,))
    found = sum(balance or 0 for balance in balances.values())
    if found != total:
        why = f"{where} saw {found} in all accounts together; there are {total}."
        return Finding("wrong-total", why, (read.number,))
    below = [a for a, balance in balances.items() if balance is not None and balance < 0]
    if below and not negative:
        why = f"{where} saw {balances[below[0]]} in account {show(below[0])}."
        return Finding("negative-value", why, (read.number,))
    return None
