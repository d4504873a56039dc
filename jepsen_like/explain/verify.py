"""A second opinion: each edge of a reported cycle is proved again from the raw operations.

This module must not import any checker. It knows what an operation recorded and what the words `ww`, `wr`, `rw`,
`process` and `realtime` mean, and nothing of how the cycle was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from jepsen_like.history import Operation
from jepsen_like.verdict import Finding, Step

Access = tuple[str, object, object]
Lookup = Callable[[int], Operation]


def objections(
    finding: Finding, operation: Lookup, everything: Callable[[], Iterable[Operation]]
) -> list[str]:
    """What is wrong with a cycle; empty when every edge, the circle and the name hold."""
    wrong: list[str] = []
    steps = finding.steps
    if not steps:
        return wrong
    for step, after in zip(steps, [*steps[1:], steps[0]], strict=True):
        if step.target != after.source:
            wrong.append(f"T{step.target} is followed by T{after.source}: no circle")
        if not _holds(step, operation, everything):
            wrong.append(
                f"T{step.source} {step.kind} T{step.target} does not follow from the history"
            )
    if not finding.name.startswith(_shape(steps)):
        wrong.append(f"a cycle of {[s.kind for s in steps]} is {_shape(steps)}, not {finding.name}")
    return wrong


def _shape(steps: Sequence[Step]) -> str:
    kinds = [step.kind for step in steps]
    anti = [kind == "rw" for kind in kinds]
    if sum(anti) > 1:
        adjacent = any(a and b for a, b in zip(anti, [*anti[1:], anti[0]], strict=True))
        return "G2-item" if adjacent else "G-nonadjacent-item"
    if sum(anti) == 1:
        return "G-single-item"
    return "G1c" if "wr" in kinds else "G0"


def _accesses(operation: Operation) -> list[Access]:
    value = operation.value
    assert isinstance(value, Sequence)
    return [(str(m[0]).removeprefix(":"), _plain(m[1]), _plain(m[2])) for m in value]


def _plain(value: object) -> object:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _holds(step: Step, operation: Lookup, everything: Callable[[], Iterable[Operation]]) -> bool:
    one, two = operation(step.source), operation(step.target)
    if step.kind == "realtime":
        return one.outcome == "ok" and one.end < two.start
    if step.kind == "process":
        return one.process == two.process and one.process is not None and one.end < two.end
    if one.outcome == "fail" or two.outcome == "fail":
        return False
    mine, theirs = _accesses(one), _accesses(two)
    key = _plain(step.key)
    if any(f == "append" for f, _, _ in mine + theirs):
        return _list_edge(step, key, mine, theirs, operation)
    return _register_edge(step, key, mine, theirs, everything)


def _list_edge(
    step: Step, key: object, mine: list[Access], theirs: list[Access], operation: Lookup
) -> bool:
    value, after = _plain(step.value), _plain(step.next_value)
    if step.kind == "wr":
        wrote = ("append", key, value) in mine
        return wrote and any(
            f == "r" and k == key and isinstance(v, list) and v[-1:] == [value]
            for f, k, v in theirs
        )
    if ("append", key, after) not in theirs:
        return False
    if step.kind == "rw":
        reads = [v for f, k, v in mine if f == "r" and k == key]
        if any(after not in v for v in reads if isinstance(v, list)) or None in reads:
            return True
        if not any(isinstance(v, list) and v[-1:] == [value] for v in reads):
            return False
    elif ("append", key, value) not in mine:
        return False
    if step.witness is None:
        return False
    for f, k, seen in _accesses(operation(step.witness)):
        if f == "r" and k == key and isinstance(seen, list) and value in seen:
            if after in seen:
                return seen.index(value) < seen.index(after)
            # Whoever saw the one and not the other saw the time between them.
            return step.kind == "ww"
    return False


def _register_edge(
    step: Step,
    key: object,
    mine: list[Access],
    theirs: list[Access],
    everything: Callable[[], Iterable[Operation]],
) -> bool:
    value, after = _plain(step.value), _plain(step.next_value)
    if step.kind == "wr":
        return ("w", key, value) in mine and ("r", key, value) in theirs
    # A later version known only through a reader of it counts as an anti-dependency, also of a writer.
    seen = ("w", key, value) in mine
    if step.kind == "rw":
        seen |= ("r", key, value) in mine or value is None
    if not seen or ("w", key, after) not in theirs:
        return False
    if value is None:
        return True
    return _ordered(key, value, after, list(everything()))


def _ordered(key: object, value: object, after: object, operations: Sequence[Operation]) -> bool:
    """Whether one transaction built `after` upon `value`, or all evidence of time puts `value` first somewhere."""
    first: list[Operation] = []
    later: list[Operation] = []
    for operation in operations:
        if operation.outcome == "fail" or not isinstance(operation.value, Sequence):
            continue
        mine = [(f, v) for f, k, v in _accesses(operation) if k == key]
        reads = [v for f, v in mine if f == "r"] if operation.outcome == "ok" else []
        writes = [v for f, v in mine if f == "w"]
        if value in reads and after in writes:
            return True
        if value in reads or value in writes:
            first.append(operation)
        if after in reads or after in writes:
            later.append(operation)
    return any(
        a.end < b.start or (a.process == b.process and a.process is not None and a.end < b.end)
        for a in first
        for b in later
        if a.outcome == "ok"
    )
