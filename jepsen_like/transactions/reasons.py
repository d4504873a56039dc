"""Says in words why the hops of a cycle are there."""

from __future__ import annotations

from collections.abc import Hashable

from jepsen_like.transactions.columns import APPEND, READ, Transactions
from jepsen_like.transactions.cycles import Cycle, Hop
from jepsen_like.transactions.graph import NAMES
from jepsen_like.values import show
from jepsen_like.verdict import Finding, Step


def cycle_finding(name: str, steps: list[Step]) -> Finding:
    """A cycle as a finding: `T1 < T2 because ...; T2 < T1 because ...`."""
    parts = [f"T{s.source} < T{s.target}, because {s.why}" for s in steps]
    why = "; ".join(parts[:-1]) + (f"; yet {parts[-1]}: a contradiction." if parts else "")
    return Finding(name, why, tuple(s.source for s in steps), tuple(steps))


def list_append_finding(txns: Transactions, cycle: Cycle) -> Finding:
    """The finding of a cycle among list-append transactions."""
    return cycle_finding(cycle.name, [_list_step(txns, hop) for hop in cycle.hops])


def _list_step(txns: Transactions, hop: Hop) -> Step:
    kind = NAMES[hop.kind]
    a, b = hop.source, hop.target
    if kind == "process":
        process = txns.processes[int(txns.process[a])]
        return Step(a, b, kind, f"process {process} did T{a} before T{b}")
    if kind == "realtime":
        ended, began = int(txns.end[a]), int(txns.start[b])
        return Step(a, b, kind, f"T{a} ended (line {ended}) before T{b} began (line {began})")
    found = {"ww": _ww, "wr": _wr, "rw": _rw}[kind](txns, a, b)
    assert found is not None, (kind, a, b)
    why, key, value, after, witness = found
    return Step(a, b, kind, why, key, value, after, witness)


Reason = tuple[str, Hashable, Hashable, Hashable, int | None]


def _mops(txns: Transactions, txn: int, kind: int) -> list[int]:
    first, last = int(txns.first_mop[txn]), int(txns.first_mop[txn + 1])
    return [m for m in range(first, last) if txns.mop_kind[m] == kind]


def _ww(txns: Transactions, a: int, b: int) -> Reason | None:
    best: Reason | None = None
    for two in _mops(txns, b, APPEND):
        for one in _mops(txns, a, APPEND):
            if txns.mop_key[one] != txns.mop_key[two]:
                continue
            key = int(txns.mop_key[one])
            x, y = int(txns.mop_value[one]), int(txns.mop_value[two])
            witness, seen = _witness(txns, key, x, y)
            if witness is None:
                continue
            name, first, second = txns.keys[key], txns.value(x), txns.value(y)
            told = (
                f"T{witness} read both in that order"
                if seen == 2
                else f"T{witness} read {show(first)} and not yet {show(second)}"
            )
            why = f"T{b} appended {show(second)} to {show(name)} after T{a} appended {show(first)} ({told})"
            reason = (why, name, first, second, witness)
            if seen == 2:
                return reason
            best = best or reason
    return best


def _witness(txns: Transactions, key: int, x: int, y: int) -> tuple[int | None, int]:
    """A transaction that read x before y (2), or x without y (1) in a longest read; 0 when nobody did."""
    found: tuple[int | None, int] = (None, 0)
    for branch in txns.branches_of(key):
        elements = txns.branches.elements(branch).tolist()
        if x not in elements:
            continue
        ordered = y in elements and elements.index(x) < elements.index(y)
        if not ordered and y in elements:
            continue
        reader = txns.longest_reader(branch)
        if ordered:
            return reader, 2
        found = reader, 1
    return found


def _wr(txns: Transactions, a: int, b: int) -> Reason | None:
    for read in _mops(txns, b, READ):
        if txns.mop_size[read] <= 0:
            continue
        end = int(txns.branches.elements(int(txns.mop_value[read]))[txns.mop_size[read] - 1])
        for append in _mops(txns, a, APPEND):
            if txns.mop_key[append] == txns.mop_key[read] and txns.mop_value[append] == end:
                key = txns.keys[int(txns.mop_key[read])]
                why = f"T{b} read T{a}'s append of {show(txns.value(end))} to {show(key)}"
                return why, key, txns.value(end), None, None
    return None


def _rw(txns: Transactions, a: int, b: int) -> Reason | None:
    fallback: Reason | None = None
    for append in _mops(txns, b, APPEND):
        for read in _mops(txns, a, READ):
            if txns.mop_key[append] != txns.mop_key[read] or txns.mop_size[read] < 0:
                continue
            seen = txns.read_list(read)
            y = int(txns.mop_value[append])
            value = txns.value(y)
            name = txns.keys[int(txns.mop_key[read])]
            if value not in seen:
                why = f"T{a} read {show(name)} as {show(seen)}, without T{b}'s append of {show(value)}"
                return why, name, seen[-1] if seen else None, value, None
            # Orders that do not fit together: the read ends with something that stands before in another.
            x = int(txns.branches.elements(int(txns.mop_value[read]))[txns.mop_size[read] - 1])
            witness, told = _witness(txns, int(txns.mop_key[read]), x, y)
            if told == 2:
                why = (
                    f"T{a} read {show(name)} ending with {show(seen[-1])}, and T{b} appended {show(value)}, "
                    f"which T{witness} read after it"
                )
                fallback = (why, name, seen[-1], value, witness)
    return fallback
