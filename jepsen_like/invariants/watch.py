"""Watch: a stream of changes must be ordered, whole, without gaps or repeats, and resumable.

    write  [key value]            ok with `stamp`: committed then
    watch  key                    ok with [[stamp key value], ...] in order of arrival, `null` for a resumption

The events of one watch must come in strictly growing order of stamps (events of one transaction share a stamp and
come together); each must be a write that happened; and between the first and the last event of a watch no
committed write of the watched key may be missing. A `key` of None watches everything.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from jepsen_like.history import HistoryError, Operation
from jepsen_like.invariants.outcome import items, verdict_of
from jepsen_like.options import Options
from jepsen_like.values import freeze, show
from jepsen_like.verdict import Finding, Verdict

Change = tuple[int, Hashable, Hashable]


def check_watch(operations: Sequence[Operation], options: Options) -> Verdict:
    """Finds disorder, repeats, inventions and gaps in what watchers were told."""
    del options
    writes: dict[tuple[Hashable, Hashable], Operation] = {}
    watches: list[Operation] = []
    for operation in operations:
        if operation.f in ("write", "put", "w"):
            if operation.outcome != "fail":
                writes[_pair(operation)] = operation
        elif operation.f == "watch":
            if operation.outcome == "ok":
                watches.append(operation)
        else:
            raise HistoryError(
                f"event {operation.index}: watch knows write and watch, not {operation.f!r}"
            )
    findings: list[Finding] = []
    events = 0
    for watch in watches:
        changes = [
            _change(watch, entry) for entry in items(watch, watch.result) if entry is not None
        ]
        events += len(changes)
        findings += _judge(watch, changes, writes)
    vacuous = "" if events else "no watcher was told anything"
    return verdict_of(findings, ("linearizable",), vacuous=vacuous)


def _pair(operation: Operation) -> tuple[Hashable, Hashable]:
    value = operation.argument
    if operation.key is not None:
        return freeze(operation.key), freeze(value)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) != 2:
        raise HistoryError(f"event {operation.index}: a write is [key value], not {show(value)}")
    return freeze(value[0]), freeze(value[1])


def _change(watch: Operation, entry: object) -> Change:
    if not isinstance(entry, Sequence) or isinstance(entry, str | bytes):
        raise HistoryError(f"event {watch.index}: {show(entry)} is not [stamp key value]")
    parts = list(entry)
    if len(parts) == 2:
        parts.insert(1, watch.key if watch.key is not None else watch.argument)
    if len(parts) != 3 or not isinstance(parts[0], int):
        raise HistoryError(f"event {watch.index}: {show(entry)} is not [stamp key value]")
    return parts[0], freeze(parts[1]), freeze(parts[2])


def _judge(
    watch: Operation,
    changes: Sequence[Change],
    writes: dict[tuple[Hashable, Hashable], Operation],
) -> list[Finding]:
    findings: list[Finding] = []
    where = f"The watch of event {watch.index}"
    told: set[Change] = set()
    before: Change | None = None

    def report(name: str, why: str, *others: Operation) -> None:
        findings.append(Finding(name, why, (*(o.number for o in others), watch.number)))

    for change in changes:
        stamp, key, value = change
        shown = f"{show(key)} = {show(value)} at {stamp}"
        write = writes.get((key, value))
        if change in told:
            report("duplicated", f"{where} was told of {shown} twice.")
        elif before is not None and stamp < before[0]:
            report("out-of-order", f"{where} was told of {shown} after a change at {before[0]}.")
        if write is None:
            report("unexpected", f"{where} was told of {shown}, which nobody wrote.")
        elif write.stamp is not None and write.stamp != stamp:
            report(
                "wrong-stamp",
                f"{where} was told of {shown}; it was committed at {write.stamp}.",
                write,
            )
        elif write.start > watch.end:
            report("unexpected", f"{where} was told of {shown} before it was written.", write)
        told.add(change)
        if before is None or stamp > before[0]:
            before = change
    if changes:
        first, last = min(c[0] for c in changes), max(c[0] for c in changes)
        wanted = watch.key if watch.key is not None else watch.argument
        for (key, value), write in writes.items():
            if write.outcome != "ok" or write.stamp is None or not first <= write.stamp <= last:
                continue
            if (wanted is None or freeze(wanted) == key) and (write.stamp, key, value) not in told:
                report(
                    "gap", f"{where} missed {show(key)} = {show(value)} at {write.stamp}.", write
                )
    return findings
