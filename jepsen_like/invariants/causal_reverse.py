"""Causal reverse: blind writes of distinct elements, and reads of all of them.

If a write began after another had been acknowledged, whoever sees the later one must see the earlier one too.
Strict serializability forbids the reverse; serializability without real time allows it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from jepsen_like.history import HistoryError, Operation
from jepsen_like.invariants.outcome import items, verdict_of
from jepsen_like.linearizability.calls import by_key
from jepsen_like.options import Options
from jepsen_like.transactions.judge import needs
from jepsen_like.values import freeze, show
from jepsen_like.verdict import Finding, Verdict

_WRITES = ("write", "add", "w", "insert")


def check_causal_reverse(operations: Sequence[Operation], options: Options) -> Verdict:
    """Finds reads that have a later write and lack one that was finished before it began."""
    _, realtime = needs(options.consistency)
    findings: list[Finding] = []
    telling = False
    for mine in by_key(operations).values():
        found, saw_two = _judge(mine)
        findings += found
        telling |= saw_two
    vacuous = "" if telling else "no read saw a write that began after another was finished"
    return verdict_of(findings if realtime else [], ("strict-serializable",), vacuous=vacuous)


def _judge(operations: Sequence[Operation]) -> tuple[list[Finding], bool]:
    writes: dict[Hashable, Operation] = {}
    for operation in operations:
        if operation.f in _WRITES:
            if operation.outcome != "fail":
                writes.setdefault(freeze(operation.argument), operation)
        elif operation.f not in ("read", "r"):
            raise HistoryError(
                f"event {operation.index}: causal-reverse knows write and read, not {operation.f!r}"
            )
    done = sorted((w for w in writes.values() if w.outcome == "ok"), key=lambda w: w.end)
    findings: list[Finding] = []
    telling = False
    for read in operations:
        if read.f not in ("read", "r") or read.outcome != "ok":
            continue
        seen = {freeze(v) for v in items(read, read.result)}
        latest = max((writes[v] for v in seen if v in writes), key=lambda w: w.start, default=None)
        if latest is None:
            continue
        for write in done:
            if write.end >= latest.start:
                break
            telling = True
            if freeze(write.argument) not in seen:
                why = (
                    f"The read of event {read.index} has {show(latest.argument)} but lacks "
                    f"{show(write.argument)}, whose write had ended (event {write.index}) before that of "
                    f"{show(latest.argument)} began."
                )
                numbers = (write.number, latest.number, read.number)
                findings.append(Finding("causal-reverse", why, numbers))
                break
    return findings, telling
