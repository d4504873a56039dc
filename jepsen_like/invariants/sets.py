"""Sets: `add v` puts an element in, `read` gives all elements.

`set` judges the last read only: every acknowledged element must be there, and nothing that nobody tried to add.
`set-full` follows each element through all reads. An element is *known* once its addition was acknowledged or a
read showed it, whichever came first. It is

    stable      if a read that began after the last read without it has it
    lost        if it is known and the last reads that could tell, begun after it was known, do not have it
    never-read  if no read could tell

and *stale* if it is stable in the end but missing from a read that began after it was known. Lost elements make a
history invalid under every model; stale ones do under real-time models (`linearizable`, `strict-serializable`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import msgspec

from jepsen_like.history import NEVER, HistoryError, Operation
from jepsen_like.invariants.outcome import items, verdict_of
from jepsen_like.linearizability.calls import by_key
from jepsen_like.linearizability.objects import UNSET
from jepsen_like.options import Options
from jepsen_like.transactions.judge import needs
from jepsen_like.values import freeze, show
from jepsen_like.verdict import Finding, Verdict


def check_set(operations: Sequence[Operation], options: Options) -> Verdict:
    """Judges what the last read gave."""
    findings: list[Finding] = []
    vacuous = "the set was never read"
    for mine in _split(operations):
        reads = [o for o in mine if o.f == "read" and o.outcome == "ok"]
        if not reads:
            continue
        vacuous = ""
        last = max(reads, key=lambda o: o.end)
        findings += _judge_last(last, mine, options)
    return verdict_of(findings, ("read-committed",), vacuous=vacuous)


def _split(operations: Sequence[Operation]) -> list[list[Operation]]:
    """The operations by key."""
    for operation in operations:
        if operation.f not in ("add", "read"):
            raise HistoryError(
                f"event {operation.index}: a set knows add and read, not {operation.f!r}"
            )
    return list(by_key(operations).values())


def _judge_last(
    last: Operation, operations: Sequence[Operation], options: Options
) -> list[Finding]:
    seen = {freeze(v) for v in items(last, last.result)}
    tried = {freeze(o.argument) for o in operations if o.f == "add"} | _initial(options)
    added = {freeze(o.argument): o for o in operations if o.f == "add" and o.outcome == "ok"}
    findings: list[Finding] = []
    for value, operation in added.items():
        # An addition that ended only after the last read began may have come after it.
        if value not in seen and operation.end < last.start:
            why = (
                f"{show(value)} was added by process {operation.process} (event {operation.index}) and "
                f"is missing from the last read (event {last.index})."
            )
            findings.append(Finding("lost", why, (operation.number, last.number)))
    for value in seen:
        if value not in tried:
            why = f"The last read (event {last.index}) has {show(value)}, which nobody added."
            findings.append(Finding("unexpected", why, (last.number,)))
    return findings


def _initial(options: Options) -> set[Hashable]:
    if options.initial is UNSET or options.initial is None:
        return set()
    if not isinstance(options.initial, Sequence) or isinstance(options.initial, str):
        raise HistoryError("the initial value of a set is a list")
    return {freeze(v) for v in options.initial}


class _Element(msgspec.Struct):
    """What is known of one element: positions in the history, and the operations that say so."""

    added: Operation | None = None
    known: int = NEVER
    first_tried: int = NEVER
    last_present: int = -2
    last_absent: int = -2
    last_absent_read: Operation | None = None


def check_set_full(operations: Sequence[Operation], options: Options) -> Verdict:
    """Follows every element through all reads."""
    _, realtime = needs(options.consistency)
    findings: list[Finding] = []
    stable = reads = 0
    for mine in _split(operations):
        found, how_many_stable, how_many_reads = _follow(mine, options, realtime=realtime)
        findings += found
        stable += how_many_stable
        reads += how_many_reads
    vacuous = ""
    if not reads:
        vacuous = "the set was never read"
    elif not stable:
        vacuous = "no read shows an element for good"
    return verdict_of(findings, ("linearizable",), vacuous=vacuous)


def _elements(operations: Sequence[Operation], options: Options) -> dict[Hashable, _Element]:
    """Every element that may be in the set, with what its additions say of it."""
    elements: dict[Hashable, _Element] = {}
    for operation in operations:
        if operation.f == "add" and operation.outcome != "fail":
            element = elements.setdefault(freeze(operation.argument), _Element())
            element.added = element.added or operation
            element.first_tried = min(element.first_tried, operation.start)
            if operation.outcome == "ok":
                element.known = min(element.known, operation.end)
    for value in _initial(options):
        element = elements.setdefault(value, _Element())
        element.known = element.first_tried = -1
    return elements


def _follow(
    operations: Sequence[Operation], options: Options, *, realtime: bool
) -> tuple[list[Finding], int, int]:
    elements = _elements(operations, options)
    failed = {freeze(o.argument) for o in operations if o.f == "add"} - set(elements)
    reads = [o for o in operations if o.f == "read" and o.outcome == "ok"]
    findings: list[Finding] = []
    contents: list[tuple[Operation, set[Hashable]]] = []
    for read in reads:
        counts = Counter(freeze(v) for v in items(read, read.result))
        contents.append((read, set(counts)))
        for value, times in counts.items():
            if times > 1:
                why = f"The read of event {read.index} has {show(value)} {times} times."
                findings.append(Finding("duplicated", why, (read.number,)))
            if value not in elements or elements[value].first_tried > read.end:
                told = "whose addition failed" if value in failed else "which nobody had added"
                why = f"The read of event {read.index} has {show(value)}, {told}."
                findings.append(Finding("unexpected", why, (read.number,)))
            else:
                elements[value].known = min(elements[value].known, read.end)
    for read, seen in contents:
        for value, element in elements.items():
            if value in seen:
                element.last_present = max(element.last_present, read.start)
            elif read.start > element.last_absent:
                element.last_absent, element.last_absent_read = read.start, read
    stable = 0
    for value, element in elements.items():
        finding, is_stable = _outcome(value, element, realtime=realtime)
        stable += is_stable
        if finding is not None:
            findings.append(finding)
    return findings, stable, len(reads)


def _outcome(value: Hashable, element: _Element, *, realtime: bool) -> tuple[Finding | None, bool]:
    read = element.last_absent_read
    by = "at first" if element.added is None else f"by process {element.added.process}"
    numbers = tuple(o.number for o in (element.added, read) if o is not None)
    missed = element.known != NEVER and read is not None and element.known < element.last_absent
    if element.last_present > element.last_absent:
        if missed and realtime and read is not None:
            why = (
                f"{show(value)}, added {by}, is missing from the read of event {read.index}, which "
                "began after it was known to be there; later reads have it."
            )
            return Finding("stale", why, numbers), True
        return None, True
    if missed and read is not None:
        why = (
            f"{show(value)}, added {by}, is missing from the read of event {read.index}, which began "
            "after it was known to be there, and from all reads begun after that."
        )
        return Finding("lost", why, numbers), False
    return None, False
