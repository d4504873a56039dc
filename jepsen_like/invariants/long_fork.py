"""Long fork: inserts of single keys, and reads of groups of keys at once.

Snapshot isolation puts all inserts into one order. So of two reads of the same group, one saw everything the other
saw: if the first has x and not y, and the second y and not x, there is no such order. Parallel snapshot isolation
allows exactly that.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from jepsen_like.history import HistoryError, Operation
from jepsen_like.invariants.outcome import verdict_of
from jepsen_like.options import Options
from jepsen_like.values import freeze, show
from jepsen_like.verdict import Finding, Verdict

Seen = dict[Hashable, Hashable]


def check_long_fork(operations: Sequence[Operation], options: Options) -> Verdict:
    """Finds pairs of reads that saw two inserts in different orders."""
    del options
    written: set[Hashable] = set()
    reads: list[tuple[Operation, Seen]] = []
    for operation in operations:
        mops = _mops(operation)
        writes = [(key, value) for f, key, value in mops if f == "w"]
        if writes and operation.outcome != "fail":
            if len(mops) != 1:
                raise HistoryError(f"event {operation.index}: a write of long-fork has one key")
            key = writes[0][0]
            if key in written:
                reason = f"key {show(key)} is written more than once"
                return Verdict("unknown", reason=reason)
            written.add(key)
        elif mops and operation.outcome == "ok" and not writes:
            reads.append((operation, {key: value for _, key, value in mops}))
    findings = _forks(reads)
    telling = any(len(seen) > 1 and any(v is not None for v in seen.values()) for _, seen in reads)
    vacuous = "" if telling else "no read saw two keys, one of them written"
    return verdict_of(findings, ("snapshot-isolation",), vacuous=vacuous)


def _mops(operation: Operation) -> list[tuple[str, Hashable, Hashable]]:
    value = operation.value
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise HistoryError(f"event {operation.index}: {show(value)} is not a list of [f key value]")
    mops: list[tuple[str, Hashable, Hashable]] = []
    for entry in value:
        if not isinstance(entry, Sequence) or isinstance(entry, str | bytes) or len(entry) != 3:
            raise HistoryError(f"event {operation.index}: {show(entry)} is not [f key value]")
        f = {"r": "r", "read": "r", ":r": "r", "w": "w", "write": "w", ":w": "w"}.get(str(entry[0]))
        if f is None:
            raise HistoryError(
                f"event {operation.index}: long-fork knows 'r' and 'w', not {show(entry[0])}"
            )
        mops.append((f, freeze(entry[1]), freeze(entry[2])))
    return mops


def _forks(reads: Sequence[tuple[Operation, Seen]]) -> list[Finding]:
    """Compares reads by what they saw of the keys they share.

    Reads of equal groups form a chain when ordered by how much they saw; a fork shows between neighbours. Reads
    of different groups that share at least two keys are compared pair by pair.
    """
    groups: dict[frozenset[Hashable], list[tuple[Operation, Seen]]] = {}
    for operation, seen in reads:
        groups.setdefault(frozenset(seen), []).append((operation, seen))
    findings: list[Finding] = []
    chains: dict[frozenset[Hashable], dict[frozenset[Hashable], Operation]] = {}
    for group, members in groups.items():
        distinct: dict[frozenset[Hashable], Operation] = {}
        for operation, seen in members:
            distinct.setdefault(frozenset(k for k, v in seen.items() if v is not None), operation)
        chains[group] = distinct
        ordered = sorted(distinct.items(), key=lambda entry: len(entry[0]))
        for (less, one), (more, two) in zip(ordered, ordered[1:], strict=False):
            if not less <= more:
                findings.append(_finding(one, less, two, more))
    names = sorted(groups, key=lambda g: sorted(map(str, g)))
    by_member: dict[Hashable, list[int]] = {}
    for number, group in enumerate(names):
        for key in group:
            by_member.setdefault(key, []).append(number)
    pairs = {(a, b) for found in by_member.values() for a in found for b in found if a < b}
    for a, b in sorted(pairs):
        shared = names[a] & names[b]
        if len(shared) < 2:
            continue
        for one_seen, one in chains[names[a]].items():
            for two_seen, two in chains[names[b]].items():
                left, right = one_seen & shared, two_seen & shared
                if not (left <= right or right <= left):
                    findings.append(_finding(one, left, two, right))
    return findings


def _finding(
    one: Operation, one_seen: frozenset[Hashable], two: Operation, two_seen: frozenset[Hashable]
) -> Finding:
    x = min(one_seen - two_seen, key=str)
    y = min(two_seen - one_seen, key=str)
    why = (
        f"The read of event {one.index} saw key {show(x)} and not {show(y)}; the read of event "
        f"{two.index} saw {show(y)} and not {show(x)}: the two inserts have no common order."
    )
    return Finding("long-fork", why, (one.number, two.number), key=x)
