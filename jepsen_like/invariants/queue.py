"""Queues: `enqueue v`, `dequeue` -> v, `drain` -> [v, ...].

What comes out was put in, at most as often as it was put in, and not before somebody began to put it in. What was
acknowledged comes out in the end, if the queue was drained: by `drain`, or by a dequeue that found nothing (an
answer of nil, or a failure with the error `empty`) after every enqueue had ended. Order is not judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import msgspec

from jepsen_like.history import HistoryError, Operation
from jepsen_like.invariants.outcome import items, verdict_of
from jepsen_like.linearizability.calls import by_key
from jepsen_like.options import Options
from jepsen_like.values import freeze, show
from jepsen_like.verdict import Finding, Verdict


def check_queue(operations: Sequence[Operation], options: Options) -> Verdict:
    """Finds elements that came from nowhere, came twice, came too early, or never came."""
    del options
    findings: list[Finding] = []
    constrained = False
    for mine in by_key(operations).values():
        found, any_dequeue = _judge(mine)
        findings += found
        constrained |= any_dequeue
    vacuous = "" if constrained else "nothing was ever dequeued"
    return verdict_of(findings, ("linearizable",), vacuous=vacuous)


class _Traffic(msgspec.Struct):
    """What went into a queue and what came out, an element named by its value."""

    tried: Counter[Hashable] = msgspec.field(default_factory=Counter)
    kept: Counter[Hashable] = msgspec.field(default_factory=Counter)
    begun: dict[Hashable, int] = {}
    by: dict[Hashable, Operation] = {}
    out: list[tuple[Hashable, Operation]] = []
    lost_dequeues: int = 0


def _traffic(operations: Sequence[Operation]) -> _Traffic:
    seen = _Traffic()
    for operation in operations:
        if operation.f == "enqueue":
            if operation.outcome == "fail":
                continue
            value = freeze(operation.argument)
            seen.tried[value] += 1
            seen.begun[value] = min(seen.begun.get(value, operation.start), operation.start)
            if operation.outcome == "ok":
                seen.kept[value] += 1
                seen.by[value] = operation
        elif operation.f in ("dequeue", "drain"):
            if operation.outcome == "ok" and operation.f == "drain":
                seen.out += [(freeze(v), operation) for v in items(operation, operation.result)]
            elif operation.outcome == "ok" and operation.result is not None:
                seen.out.append((freeze(operation.result), operation))
            elif operation.outcome == "info":
                seen.lost_dequeues += 1
        else:
            raise HistoryError(
                f"event {operation.index}: a queue knows enqueue, dequeue and drain, not {operation.f!r}"
            )
    return seen


def _judge(operations: Sequence[Operation]) -> tuple[list[Finding], bool]:
    seen = _traffic(operations)
    findings: list[Finding] = []
    count: Counter[Hashable] = Counter()
    for value, operation in seen.out:
        count[value] += 1
        where = f"{operation.f} by process {operation.process} (event {operation.index})"
        if not seen.tried[value]:
            why = f"The {where} gave {show(value)}, which nobody enqueued."
            findings.append(Finding("unexpected", why, (operation.number,)))
        elif seen.begun[value] > operation.end:
            why = f"The {where} gave {show(value)} before its enqueue began."
            findings.append(Finding("unexpected", why, (operation.number,)))
        elif count[value] == seen.tried[value] + 1:
            why = f"The {where} gave {show(value)} once more than it was enqueued."
            findings.append(Finding("duplicated", why, (operation.number,)))
    # A dequeue whose answer was lost may have taken an element with it.
    missing = [v for v, times in seen.kept.items() for _ in range(times - min(times, count[v]))]
    if _drained(operations) and len(missing) > seen.lost_dequeues:
        for value in missing:
            operation = seen.by[value]
            why = (
                f"{show(value)} was enqueued by process {operation.process} (event {operation.index}) "
                "and never came out, though the queue was drained."
            )
            findings.append(Finding("lost", why, (operation.number,)))
    return findings, bool(seen.out) or bool(findings)


def _drained(operations: Sequence[Operation]) -> bool:
    """Whether the end of the history shows an empty queue: no enqueue ends after the last look."""
    last_enqueue = max(
        (o.start for o in operations if o.f == "enqueue" and o.outcome == "ok"), default=-1
    )
    ended = max((o.end for o in operations if o.f == "enqueue" and o.outcome == "ok"), default=-1)
    for operation in operations:
        if operation.start < max(last_enqueue, ended):
            continue
        if operation.f == "drain" and operation.outcome == "ok":
            return True
        # A dequeue can fail for many reasons; only the one named empty says that nothing was there.
        empty = operation.outcome == "ok" and operation.result is None
        empty |= operation.outcome == "fail" and "empty" in str(operation.error)
        if operation.f == "dequeue" and empty:
            return True
    return False
