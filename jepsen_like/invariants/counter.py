"""Counter: `add n` and `read`, concurrently.

A read that returned `v` is possible only if `v` lies between the least and the most the counter can have held at
some moment of the read. Additions acknowledged before the read began are in; failed ones are out; all others that
began before the read ended may be in or not. With negative numbers the bounds take each addition at its worse end.
Bounds are necessary, not sufficient: a valid verdict says that no read was out of bounds.
"""

from __future__ import annotations

from collections.abc import Sequence

from jepsen_like.history import HistoryError, Operation
from jepsen_like.invariants.outcome import integer, verdict_of
from jepsen_like.linearizability.objects import UNSET
from jepsen_like.options import Options
from jepsen_like.verdict import Finding, Verdict

_CHANGES = {"add": 1, "increment": 1, "inc": 1, "decrement": -1, "dec": -1}


def check_counter(operations: Sequence[Operation], options: Options) -> Verdict:
    """Finds reads outside of their bounds."""
    base = 0
    if options.initial is not UNSET and options.initial is not None:
        if not isinstance(options.initial, int):
            raise HistoryError("the initial value of a counter is an integer")
        base = options.initial
    reads = [o for o in operations if o.f == "read" and o.outcome == "ok" and o.result is not None]
    points: list[tuple[int, int, Operation]] = []
    for operation in operations:
        if operation.f == "read":
            continue
        if operation.f not in _CHANGES:
            raise HistoryError(
                f"event {operation.index}: counter knows add and read, not {operation.f!r}"
            )
        if operation.outcome != "fail":
            points.append((operation.start, 0, operation))
            if operation.outcome == "ok":
                points.append((operation.end, 1, operation))
    for read in reads:
        points.append((read.start, 2, read))
        points.append((read.end, 3, read))
    findings = _sweep(points, base)
    vacuous = "" if reads else "no completed read constrains anything"
    return verdict_of(findings, ("linearizable",), vacuous=vacuous)


def _sweep(points: list[tuple[int, int, Operation]], base: int) -> list[Finding]:
    # `low` and `high`: the sums if every open addition is taken at its worse and its better end.
    low = high = base
    findings: list[Finding] = []
    lows: dict[int, int] = {}
    highs: dict[int, int] = {}
    for _, kind, operation in sorted(points, key=lambda p: (p[0], p[1])):
        if kind in (0, 1):
            amount = _CHANGES[operation.f] * _amount(operation)
            if kind == 0:
                low, high = low + min(amount, 0), high + max(amount, 0)
            else:
                low, high = low + max(amount, 0), high + min(amount, 0)
            for number, least in lows.items():
                lows[number] = min(least, low)
                highs[number] = max(highs[number], high)
        elif kind == 2:
            lows[operation.number], highs[operation.number] = low, high
        else:
            least, most = lows.pop(operation.number), highs.pop(operation.number)
            value = integer(operation, operation.result)
            if not least <= value <= most:
                why = (
                    f"The read by process {operation.process} (event {operation.index}) gave {value}; "
                    f"the counter can only have held {least} to {most}."
                )
                findings.append(Finding("out-of-bounds", why, (operation.number,)))
    return findings


def _amount(operation: Operation) -> int:
    return 1 if operation.argument is None else integer(operation, operation.argument)
