"""Transactions over registers whose written values are all different: `[:w key value]` and `[:r key value]`.

Who read a value follows from who wrote it; that is all a history says directly. The order of two versions of a
key is inferred, source by source, each used only if it does not contradict the ones before:

    initial state            comes before every version
    writes follow reads      a transaction that read x1 and wrote x2 put x2 after x1
    sessions                 what a process touched later is not older      (if the model promises sessions)
    real time                what began after another's end is not older    (if the model promises real time)

A contradiction between the first two is `cyclic-versions`. Edges that rest on the last two keep that in their
kind, so that a stale read is called `-realtime` and never blamed on a weaker model.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Final

import msgspec
import numpy as np

from jepsen_like.history import NEVER, UNSEEN, HistoryError, Operation
from jepsen_like.linearizability.objects import UNSET
from jepsen_like.options import Options
from jepsen_like.transactions.cycles import Cycle, Hop, find_cycles
from jepsen_like.transactions.graph import (
    NAMES,
    PASS,
    RW,
    RW_REALTIME,
    RW_SESSION,
    WR,
    WW,
    WW_REALTIME,
    WW_SESSION,
    Edges,
    Graph,
    add_realtime,
    add_sessions,
    strong,
)
from jepsen_like.transactions.judge import needs, verdict_of
from jepsen_like.transactions.reasons import cycle_finding
from jepsen_like.values import freeze, show
from jepsen_like.verdict import Finding, Step, Verdict

READS: Final = frozenset(("r", ":r", "read"))
WRITES: Final = frozenset(("w", ":w", "write"))

Mop = tuple[str, Hashable, Hashable]
Version = tuple[Hashable, Hashable]
"""A key and a value."""


class Transaction(msgspec.Struct, frozen=True):
    """A transaction with what others can see of it: first reads before own writes, and last writes."""

    operation: Operation
    mops: tuple[Mop, ...]
    reads: dict[Hashable, Hashable]
    writes: dict[Hashable, Hashable]


def check(operations: Sequence[Operation], options: Options) -> Verdict:
    """Judges an rw-register history."""
    initial = _initial(options.initial)
    txns = [_transaction(operation, initial) for operation in operations]
    try:
        writers = _writers(txns)
    except _NotUniqueError as error:
        return Verdict("unknown", reason=str(error))
    findings = _single_findings(txns, writers, checked_initial=options.initial is not UNSET)
    findings += _lost_updates(txns)
    sessions, realtime = needs(options.consistency)
    versions = _Versions(txns, writers)
    versions.infer(findings, sessions=sessions, realtime=realtime)
    graph = _dependencies(txns, writers, versions, sessions=sessions, realtime=realtime)
    completed = any(t.reads for t in txns if t.operation.outcome == "ok")
    vacuous = "" if completed else "no completed read constrains anything"
    if not len(graph.kind):
        vacuous = vacuous or "no transaction depends on another"
    cycles, complete = find_cycles(graph, options.expired)
    findings += [_cycle_finding(txns, versions, cycle) for cycle in cycles]
    incomplete = "" if complete else "the time was over before all components were searched"
    return verdict_of(findings, options.consistency, vacuous=vacuous, incomplete=incomplete)


def _initial(initial: object) -> Callable[[Hashable], Hashable]:
    """The initial value of a key: from a map, one for all, or nil."""
    if isinstance(initial, dict):
        table = {str(key): freeze(value) for key, value in initial.items()}
        return lambda key: table.get(str(key))
    value = None if initial is UNSET else freeze(initial)
    return lambda _: value


def _transaction(operation: Operation, initial: Callable[[Hashable], Hashable]) -> Transaction:
    value = operation.value
    if value is None:
        value = ()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise HistoryError(f"event {operation.index}: {show(value)} is not a list of [f key value]")
    mops: list[Mop] = []
    reads: dict[Hashable, Hashable] = {}
    writes: dict[Hashable, Hashable] = {}
    for entry in value:
        if not isinstance(entry, Sequence) or isinstance(entry, str | bytes) or len(entry) != 3:
            raise HistoryError(f"event {operation.index}: {show(entry)} is not [f key value]")
        f, key, read = entry[0], freeze(entry[1]), freeze(entry[2])
        if f in READS:
            if operation.outcome != "ok":
                continue
            # The initial value and nil are one version.
            read = None if read == initial(key) else read
            mops.append(("r", key, read))
            if key not in writes:
                reads.setdefault(key, read)
        elif f in WRITES:
            mops.append(("w", key, read))
            writes[key] = read
        else:
            raise HistoryError(
                f"event {operation.index}: rw-register knows 'r' and 'w', not {show(f)}"
            )
    return Transaction(operation, tuple(mops), reads, writes)


class _NotUniqueError(Exception):
    pass


def _writers(txns: Sequence[Transaction]) -> dict[Version, int]:
    """Who wrote each version, whether it was the last write of its transaction or not."""
    writers: dict[Version, int] = {}
    for number, txn in enumerate(txns):
        for f, key, value in txn.mops:
            if f == "w" and writers.setdefault((key, value), number) != number:
                raise _NotUniqueError(
                    f"{show(value)} is written to key {show(key)} by two transactions: "
                    "versions cannot be told apart"
                )
    return writers


def _single_findings(
    txns: Sequence[Transaction], writers: dict[Version, int], *, checked_initial: bool
) -> list[Finding]:
    findings: list[Finding] = []
    for number, txn in enumerate(txns):
        if txn.operation.outcome != "ok":
            continue
        known: dict[Hashable, Hashable] = {}
        own: set[Version] = set()
        to_come = {(k, v) for f, k, v in txn.mops if f == "w"}
        contradicted = False
        for f, key, value in txn.mops:
            if f == "w":
                known[key] = value
                own.add((key, value))
                continue
            if key in known and known[key] != value and not contradicted:
                contradicted = True
                why = (
                    f"T{number} read {show(key)} as {show(value)} where it knew {show(known[key])}."
                )
                findings.append(Finding("internal", why, (number,), key=key))
            known[key] = value
            version = (key, value)
            if version in to_come and version not in own:
                why = f"T{number} read {show(value)} in {show(key)} before writing it itself."
                findings.append(Finding("future-read", why, (number,), key=key))
                continue
            writer = writers.get(version)
            if writer is None:
                if checked_initial and value is not None:
                    why = f"T{number} read {show(value)} in {show(key)}, which nobody wrote."
                    findings.append(Finding("garbage-read", why, (number,), key=key))
            elif writer != number:
                findings += _unclean(txns, number, writer, version)
    return findings


def _unclean(
    txns: Sequence[Transaction], reader: int, writer: int, version: Version
) -> list[Finding]:
    key, value = version
    source = txns[writer]
    if source.operation.outcome == "fail":
        why = f"T{reader} read {show(value)} in {show(key)}, written by T{writer}, which failed."
        return [Finding("G1a", why, (writer, reader), key=key)]
    if source.writes[key] != value:
        why = (
            f"T{reader} read {show(value)} in {show(key)}, which T{writer} overwrote with "
            f"{show(source.writes[key])} before it ended."
        )
        return [Finding("G1b", why, (writer, reader), key=key)]
    return []


def _lost_updates(txns: Sequence[Transaction]) -> list[Finding]:
    first: dict[Version, int] = {}
    findings: list[Finding] = []
    for number, txn in enumerate(txns):
        if txn.operation.outcome != "ok":
            continue
        for key in txn.writes:
            if key not in txn.reads:
                continue
            version = (key, txn.reads[key])
            other = first.setdefault(version, number)
            if other != number:
                why = (
                    f"T{other} and T{number} both read {show(key)} as {show(version[1])}, both wrote it "
                    "and both committed."
                )
                findings.append(Finding("lost-update", why, (other, number), key=key))
    return findings


class _Versions:
    """What is known of the order of the versions of each key, edge by edge, with the ground it stands on."""

    def __init__(self, txns: Sequence[Transaction], writers: dict[Version, int]) -> None:
        self._txns = txns
        self._writers = writers
        self.order: dict[Hashable, dict[tuple[Hashable, Hashable], tuple[int, int]]] = {}
        """Key -> (earlier value, later value) -> kinds for the ww and the rw edges that follow."""

    def infer(self, findings: list[Finding], *, sessions: bool, realtime: bool) -> None:
        """Adds the sources one after the other."""
        follows: dict[Hashable, dict[tuple[Hashable, Hashable], tuple[int, int]]] = {}
        for txn in self._txns:
            if txn.operation.outcome == "ok":
                for key, value in txn.writes.items():
                    before = txn.reads.get(key)
                    if before is not None and before != value:
                        follows.setdefault(key, {})[before, value] = (WW, RW)
        for key, edges in follows.items():
            knot = _version_cycle(edges)
            if knot:
                shown = ", ".join(show(v) for v in knot)
                why = (
                    f"Of the versions {shown} of key {show(key)} each was written by a transaction that "
                    "had read the one before, round in a circle."
                )
                numbers = {self._writers[key, v] for v in knot if (key, v) in self._writers}
                findings.append(Finding("cyclic-versions", why, tuple(sorted(numbers)), key=key))
            else:
                self.order[key] = edges
        if sessions:
            self._by_order(_session_neighbours(self._txns), WW_SESSION, RW_SESSION)
        if realtime:
            self._by_order(_realtime_neighbours(self._txns), WW_REALTIME, RW_REALTIME)

    def _by_order(self, pairs: list[tuple[Hashable, int, int]], ww: int, rw: int) -> None:
        """What a transaction saw last of a key is not newer than what a later one saw first.

        Between two writers the order is that of the transactions; a reader on the later side shows it only
        through an anti-dependency, which the kind of the edge then has to be.
        """
        for key, earlier, later in pairs:
            one, two = self._txns[earlier], self._txns[later]
            before = one.writes[key] if key in one.writes else one.reads.get(key)
            after = two.reads[key] if key in two.reads else two.writes.get(key)
            if before is None or after is None or before == after:
                continue
            firm = key not in two.reads
            edges = self.order.setdefault(key, {})
            edges.setdefault((before, after), (ww if firm else rw, rw))


def _version_cycle(edges: dict[tuple[Hashable, Hashable], tuple[int, int]]) -> list[Hashable]:
    """The versions of one knot of the order, empty when it is an order."""
    number: dict[Hashable, int] = {}
    for a, b in edges:
        number.setdefault(a, len(number))
        number.setdefault(b, len(number))
    source = np.array([number[a] for a, _ in edges], dtype=np.int64)
    target = np.array([number[b] for _, b in edges], dtype=np.int64)
    label = strong(len(number), source, target)
    sizes = np.bincount(label)
    if sizes.max(initial=0) <= 1:
        return []
    knot = int(np.argmax(sizes > 1))
    return [value for value, n in number.items() if label[n] == knot]


def _session_neighbours(txns: Sequence[Transaction]) -> list[tuple[Hashable, int, int]]:
    """For every key and process: each transaction and the next one that touched the key."""
    last: dict[tuple[Hashable, object], int] = {}
    pairs: list[tuple[Hashable, int, int]] = []
    done = [n for n, t in enumerate(txns) if t.operation.outcome == "ok"]
    for number in sorted(done, key=lambda n: txns[n].operation.end):
        txn = txns[number]
        process = txn.operation.process
        if process is None:
            continue
        for key in {**txn.reads, **txn.writes}:
            before = last.get((key, process))
            if before is not None:
                pairs.append((key, before, number))
            last[key, process] = number
    return pairs


def _realtime_neighbours(txns: Sequence[Transaction]) -> list[tuple[Hashable, int, int]]:
    """For every key: pairs of transactions that touched it, the one ended before the other began, none between."""
    touched: dict[Hashable, list[tuple[int, int, int]]] = {}
    for number, txn in enumerate(txns):
        operation = txn.operation
        if operation.outcome == "fail":
            continue
        for key in {**txn.reads, **txn.writes}:
            events = touched.setdefault(key, [])
            events.append((operation.start, 0, number))
            if operation.end != NEVER:
                events.append((operation.end, 1, number))
    pairs: list[tuple[Hashable, int, int]] = []
    for key, events in touched.items():
        frontier: list[int] = []
        before: dict[int, list[int]] = {}
        for _, ended, number in sorted(events):
            if not ended:
                before[number] = list(frontier)
                pairs.extend((key, earlier, number) for earlier in frontier)
            else:
                covered = set(before[number])
                frontier = [n for n in frontier if n not in covered] + [number]
    return pairs


def _dependencies(
    txns: Sequence[Transaction],
    writers: dict[Version, int],
    versions: _Versions,
    *,
    sessions: bool,
    realtime: bool,
) -> Graph:
    edges = Edges()
    readers: dict[Version, list[int]] = {}
    for number, txn in enumerate(txns):
        for key, value in txn.reads.items():
            readers.setdefault((key, value), []).append(number)

    def final_writer(key: Hashable, value: Hashable) -> int | None:
        writer = writers.get((key, value))
        if writer is None or txns[writer].operation.outcome == "fail":
            return None
        return writer if txns[writer].writes[key] == value else None

    pairs: dict[int, list[tuple[int, int]]] = {}
    for (key, value), found in readers.items():
        writer = final_writer(key, value)
        if writer is not None:
            pairs.setdefault(WR, []).extend((writer, reader) for reader in found)
    for key, order in versions.order.items():
        for (before, after), (ww, rw) in order.items():
            later = final_writer(key, after)
            if later is None:
                continue
            earlier = final_writer(key, before)
            if earlier is not None:
                pairs.setdefault(ww, []).append((earlier, later))
            pairs.setdefault(rw, []).extend((r, later) for r in readers.get((key, before), ()))
    nodes = _initial_edges(txns, readers, edges)
    for kind, found_pairs in pairs.items():
        columns = np.array(found_pairs, dtype=np.int64).reshape(-1, 2)
        edges.add(columns[:, 0], columns[:, 1], kind)
    start = np.array([t.operation.start for t in txns], dtype=np.int64)
    end = np.array([t.operation.end for t in txns], dtype=np.int64)
    completed = np.array([t.operation.outcome == "ok" for t in txns], dtype=np.bool_)
    if realtime:
        nodes = add_realtime(edges, start, end, completed, nodes, NEVER)
    if sessions:
        names: dict[object, int] = {None: -1}
        process = [names.setdefault(t.operation.process, len(names)) for t in txns]
        timed = start != UNSEEN if realtime else np.ones(len(txns), dtype=np.bool_)
        add_sessions(edges, np.array(process, dtype=np.int64), end, completed & timed)
    return edges.graph(len(txns), nodes)


def _initial_edges(
    txns: Sequence[Transaction], readers: dict[Version, list[int]], edges: Edges
) -> int:
    """Anti-dependencies from readers of the initial state to every writer of the key, over a virtual node each."""
    nodes = len(txns)
    writers_of: dict[Hashable, list[int]] = {}
    for number, txn in enumerate(txns):
        if txn.operation.outcome != "fail":
            for key, value in txn.writes.items():
                if value is not None:
                    writers_of.setdefault(key, []).append(number)
    for (key, value), found in readers.items():
        later = writers_of.get(key)
        if value is not None or not later:
            continue
        both = set(found) & set(later)
        for writer in both:
            edges.add(np.array(found), np.full(len(found), writer), RW)
        others = [writer for writer in later if writer not in both]
        edges.add(np.array(found), np.full(len(found), nodes), RW)
        edges.add(np.full(len(others), nodes), np.array(others, dtype=np.int64), PASS)
        nodes += 1
    return nodes


def _cycle_finding(txns: Sequence[Transaction], versions: _Versions, cycle: Cycle) -> Finding:
    return cycle_finding(cycle.name, [_step(txns, versions, hop) for hop in cycle.hops])


def _step(txns: Sequence[Transaction], versions: _Versions, hop: Hop) -> Step:
    kind = NAMES[hop.kind]
    a, b = hop.source, hop.target
    one, two = txns[a], txns[b]
    if kind == "process":
        return Step(a, b, kind, f"process {one.operation.process} did T{a} before T{b}")
    if kind == "realtime":
        why = (
            f"T{a} ended (line {one.operation.end}) before T{b} began (line {two.operation.start})"
        )
        return Step(a, b, kind, why)
    if kind == "wr":
        for key, value in two.reads.items():
            if key in one.writes and one.writes[key] == value:
                why = f"T{b} read {show(key)} = {show(value)}, which T{a} wrote"
                return Step(a, b, kind, why, key, value)
    inferred = {
        WW: "by a transaction that had read the former", RW: "", WW_SESSION: "by the order of a session",
        RW_SESSION: "by the order of a session", WW_REALTIME: "by real time", RW_REALTIME: "by real time",
    }  # fmt: skip
    for key, after in two.writes.items():
        if key in one.reads and one.reads[key] is None and after is not None and hop.kind == RW:
            why = f"T{a} read {show(key)} in its initial state, and T{b} wrote {show(after)}"
            return Step(a, b, "rw", why, key, None, after)
        for mine, told in ((one.reads, "read"), (one.writes, "wrote")):
            if key not in mine:
                continue
            kinds = versions.order.get(key, {}).get((mine[key], after))
            if kinds is None or hop.kind != kinds[0 if told == "wrote" else 1]:
                continue
            ground = inferred[hop.kind]
            why = (
                f"T{a} {told} {show(key)} = {show(mine[key])} and T{b} wrote {show(after)}, a later version"
                + (f" ({ground})" if ground else "")
            )
            return Step(a, b, kind, why, key, mine[key], after)
    raise AssertionError((kind, a, b))
