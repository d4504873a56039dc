"""Transactions that append to lists and read them: the history tells its own version order.

A read of `[3 1 2]` says that the key held [], [3], [3 1], [3 1 2], in that order. The longest read of a key
orders its appends; every other read must be a prefix of it. From the order follow

    ww   the appenders of neighbours                 wr   the appender of the last element read, and the reader
    rw   a reader, and the appender of what came next

Appends that nobody read come after the longest read. All of it is done on columns; single transactions are looked
at only where something is wrong. (Kingsbury and Alvaro, "Elle", VLDB 2020.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jepsen_like.history import UNSEEN
from jepsen_like.transactions.columns import APPEND, FAIL, FAR, OK, READ, Transactions
from jepsen_like.transactions.cycles import find_cycles
from jepsen_like.transactions.graph import (
    PASS,
    RW,
    WR,
    WW,
    Edges,
    Graph,
    add_realtime,
    add_sessions,
)
from jepsen_like.transactions.judge import needs, verdict_of
from jepsen_like.transactions.reasons import list_append_finding
from jepsen_like.transactions.single import future_read, internal
from jepsen_like.values import show
from jepsen_like.verdict import Finding, Verdict

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

TABLE_ENTRIES_MAX = 1 << 26
EXAMPLES_MAX = 8
NOWHERE = -10


class Order(NamedTuple):
    """The version order. Elements of all keys stand one after the other; `first[k]` is where key k begins.

    `append[e]` is the micro-operation that wrote element e, -1 for none; `position[m]` the place of append m in
    the order of its key, -1 if nobody read it,
    -2 if only reads that fit nowhere have it; `state[m]` the place of the last element that read m saw, -1 for
    the empty list, -2 if it fits nowhere; `last_append[m]` the append behind that element.
    """

    first: Ints
    size: Ints
    append: Ints
    position: Ints
    state: Ints
    last_append: Ints


def check(txns: Transactions, consistency: str, expired: Callable[[], bool]) -> Verdict:
    """Judges the transactions."""
    lookup = _Lookup(txns)
    if lookup.twice is not None:
        one = lookup.twice
        reason = (
            f"{show(txns.value(int(txns.mop_value[one])))} is appended to key "
            f"{show(txns.keys[int(txns.mop_key[one])])} more than once: versions cannot be told apart"
        )
        return Verdict("unknown", reason=reason)
    reads = (txns.mop_kind == READ) & (txns.mop_size >= 0)
    findings: list[Finding] = []
    order = _version_order(txns, lookup, reads, findings)
    findings += _unclean_reads(txns, lookup, order)
    findings += _intermediate_reads(txns, order, reads)
    findings += _disordered_appends(txns, order)
    findings += _own_contradictions(txns, order)
    findings += _lost_updates(txns, reads)
    graph = dependencies(txns, order, reads, *needs(consistency))
    vacuous = ""
    if not reads.any():
        vacuous = "no completed read constrains anything"
    elif not len(graph.kind):
        vacuous = "no transaction depends on another"
    cycles, complete = find_cycles(graph, expired)
    findings += [list_append_finding(txns, cycle) for cycle in cycles]
    incomplete = "" if complete else "the time was over before all components were searched"
    return verdict_of(findings, consistency, vacuous=vacuous, incomplete=incomplete)


class _Lookup:
    """Finds the append of a value to a key."""

    def __init__(self, txns: Transactions) -> None:
        self._appends = np.flatnonzero(txns.mop_kind == APPEND)
        written = txns.mop_value[self._appends]
        flat = txns.branches.flat
        low = int(min(written.min(initial=0), flat.min(initial=0)))
        high = int(max(written.max(initial=0), flat.max(initial=0)))
        self._names: Ints | None = None
        if (high - low + 1) * max(1, len(txns.keys)) >= 1 << 62:
            self._names = np.unique(np.concatenate((written, flat)))
            low, high = 0, len(self._names)
        self._low, self._span = low, high - low + 1
        code = self._code(txns.mop_key[self._appends], written)
        self._table: Ints | None = None
        self.twice: int | None = None
        entries = self._span * max(1, len(txns.keys))
        if entries <= max(TABLE_ENTRIES_MAX, 4 * len(code)):
            self._table = np.full(entries, -1, dtype=np.int64)
            self._table[code] = self._appends
            again = self._table[code] != self._appends
        else:
            by_code = np.argsort(code, kind="stable")
            self._codes, self._appends = code[by_code], self._appends[by_code]
            again = np.append(self._codes[1:] == self._codes[:-1], np.zeros(1, dtype=np.bool_))[
                : len(code)
            ]
        if again.any():
            self.twice = int(self._appends[np.flatnonzero(again)[0]])

    def _code(self, key: Ints, value: Ints) -> Ints:
        if self._names is not None:
            value = np.searchsorted(self._names, value)
        code: Ints = key * self._span + (value - self._low)
        return code

    def append_of(self, key: Ints, value: Ints) -> Ints:
        """The micro-operations that appended the values to the keys, -1 where there is none."""
        code = self._code(key, value)
        if self._table is not None:
            return self._table[code]
        if not len(self._codes):
            return np.full(len(code), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self._codes, code), len(self._codes) - 1)
        return np.where(self._codes[place] == code, self._appends[place], -1)


def _spread(first: Ints, size: Ints) -> Ints:
    """The numbers of every span `first[i] ... first[i] + size[i] - 1`, one after the other."""
    shift = first - (np.cumsum(size) - size)
    spread: Ints = np.repeat(shift, size) + np.arange(int(size.sum()))
    return spread


def _version_order(
    txns: Transactions, lookup: _Lookup, reads: Flags, findings: list[Finding]
) -> Order:
    branches = txns.branches
    lengths = np.diff(branches.first)
    by_length = np.lexsort((lengths, branches.key))
    last = np.append(
        branches.key[by_length][1:] != branches.key[by_length][:-1], len(by_length) > 0
    )
    main = np.full(len(txns.keys), -1, dtype=np.int64)
    chosen = by_length[np.flatnonzero(last[: len(by_length)])]
    main[branches.key[chosen]] = chosen
    have = main >= 0
    size = np.zeros(len(txns.keys), dtype=np.int64)
    size[have] = lengths[main[have]]
    first = np.cumsum(size) - size
    elements = branches.flat[_spread(branches.first[main[have]], size[have])]
    owner = np.repeat(np.arange(len(size)), size)
    append = lookup.append_of(owner, elements)
    place = np.arange(len(elements)) - first[owner]
    position = np.full(len(txns.mop_kind), -1, dtype=np.int64)
    written = append >= 0
    # Backwards, so that of an element that stands twice the first place is kept.
    position[append[written][::-1]] = place[written][::-1]
    doubled = written & (position[append] != place)
    repeated = np.zeros(len(txns.keys), dtype=np.bool_)
    if doubled.any():
        repeated[owner[doubled]] = True
        owner, append = owner[~doubled], append[~doubled]
        size = np.bincount(owner, minlength=len(size))
        first = np.cumsum(size) - size
        written = append >= 0
        position[append[written]] = (np.arange(len(append)) - first[owner])[written]
    state = np.full(len(txns.mop_kind), -2, dtype=np.int64)
    state[reads] = txns.mop_size[reads] - 1
    last_append = np.full(len(txns.mop_kind), -1, dtype=np.int64)
    seen = np.flatnonzero(reads & (txns.mop_size > 0))
    branch = txns.mop_value[seen]
    straight = main[txns.mop_key[seen]] == branch
    ends = branches.flat[branches.first[branch] + txns.mop_size[seen] - 1]
    last_append[seen] = lookup.append_of(txns.mop_key[seen], ends)
    _odd_reads(txns, main, seen[~straight], state, last_append, position, findings)
    crooked = seen[repeated[txns.mop_key[seen]]]
    state[crooked] = np.where(last_append[crooked] >= 0, position[last_append[crooked]], -2)
    _duplicates(txns, findings, seen)
    side = np.isin(np.arange(len(branches)), main, invert=True)
    if side.any():
        places = _spread(branches.first[:-1][side], lengths[side])
        elsewhere = lookup.append_of(
            np.repeat(branches.key[side], lengths[side]), branches.flat[places]
        )
        elsewhere = elsewhere[elsewhere >= 0]
        position[elsewhere[position[elsewhere] < 0]] = -2
    return Order(first, size, append, position, state, last_append)


def _odd_reads(
    txns: Transactions,
    main: Ints,
    odd: Ints,
    state: Ints,
    last_append: Ints,
    position: Ints,
    findings: list[Finding],
) -> None:
    """Reads on side branches: either they stop before the fork, or orders are incompatible."""
    fork: dict[int, int] = {}
    reported: set[int] = set()
    for read in odd.tolist():
        branch, key = int(txns.mop_value[read]), int(txns.mop_key[read])
        if branch not in fork:
            mine, theirs = txns.branches.elements(branch), txns.branches.elements(int(main[key]))
            shared = min(len(mine), len(theirs))
            differ = np.flatnonzero(mine[:shared] != theirs[:shared])
            fork[branch] = int(differ[0]) if len(differ) else shared
        if txns.mop_size[read] <= fork[branch]:
            continue
        end = int(last_append[read])
        state[read] = position[end] if end >= 0 and position[end] >= 0 else -2
        if key in reported or len(reported) >= EXAMPLES_MAX:
            continue
        reported.add(key)
        longest = int(main[key])
        other = np.flatnonzero(
            (txns.mop_kind == READ)
            & (txns.mop_value == longest)
            & (txns.mop_size == len(txns.branches.elements(longest)))
        )
        one, two = int(txns.mop_txn[read]), int(txns.mop_txn[other[0]])
        why = (
            f"Transactions {one} and {two} read key {show(txns.keys[key])} as "
            f"{show(txns.read_list(read))} and {show(txns.read_list(int(other[0])))}: neither comes "
            "before the other in any order of appends."
        )
        findings.append(Finding("incompatible-order", why, (one, two), key=txns.keys[key]))


def _duplicates(txns: Transactions, findings: list[Finding], seen: Ints) -> None:
    """Elements that stand twice in one read."""
    branches = txns.branches
    owner = np.repeat(np.arange(len(branches)), np.diff(branches.first))
    order = np.lexsort((branches.flat, owner))
    twice = (branches.flat[order][1:] == branches.flat[order][:-1]) & (
        owner[order][1:] == owner[order][:-1]
    )
    for branch in np.unique(owner[order][1:][twice]).tolist()[:EXAMPLES_MAX]:
        elements = branches.elements(branch)
        for read in seen[txns.mop_value[seen] == branch].tolist():
            values, counts = np.unique(elements[: txns.mop_size[read]], return_counts=True)
            if (counts > 1).any():
                again = show(txns.value(int(values[counts > 1][0])))
                key = txns.keys[int(txns.mop_key[read])]
                txn = int(txns.mop_txn[read])
                why = (
                    f"Transaction {txn} read key {show(key)} as {show(txns.read_list(read))}, where "
                    f"{again} stands more than once though it was appended once."
                )
                findings.append(Finding("duplicate-elements", why, (txn,), key=key))
                break


def _unclean_reads(txns: Transactions, lookup: _Lookup, order: Order) -> list[Finding]:
    """Elements of reads that were written by nobody, or by a transaction that failed."""
    branches = txns.branches
    owner = np.repeat(np.arange(len(branches)), np.diff(branches.first))
    writer = lookup.append_of(branches.key[owner], branches.flat)
    findings: list[Finding] = []
    place = np.arange(len(writer)) - branches.first[owner]
    for element in np.flatnonzero(writer < 0).tolist()[:EXAMPLES_MAX]:
        reader = _reader(txns, int(owner[element]), int(place[element]))
        key = txns.keys[int(branches.key[owner[element]])]
        value = show(txns.value(int(branches.flat[element])))
        why = f"Transaction {reader} read {value} in key {show(key)}, which nobody appended."
        findings.append(Finding("garbage-read", why, (reader,), key=key))
    known = writer >= 0
    failed = known & (txns.outcome[txns.mop_txn[np.where(known, writer, 0)]] == FAIL)
    if not failed.any():
        return findings
    for element in np.flatnonzero(failed).tolist()[:EXAMPLES_MAX]:
        reader = _reader(txns, int(owner[element]), int(place[element]))
        txn = int(txns.mop_txn[writer[element]])
        key = txns.keys[int(branches.key[owner[element]])]
        value = show(txns.value(int(branches.flat[element])))
        why = (
            f"Transaction {reader} read {value} in key {show(key)}, which transaction {txn} appended; "
            f"transaction {txn} failed and was never applied."
        )
        findings.append(Finding("G1a", why, (txn, reader), key=key))
    return findings + _dirty_updates(txns, order)


def _reader(txns: Transactions, branch: int, place: int) -> int:
    """A transaction that read the element at a place of a branch."""
    mops = np.flatnonzero(
        (txns.mop_kind == READ) & (txns.mop_value == branch) & (txns.mop_size > place)
    )
    return int(txns.mop_txn[mops[0]])


def _dirty_updates(txns: Transactions, order: Order) -> list[Finding]:
    """Versions that committed transactions built upon those of failed ones."""
    findings: list[Finding] = []
    for key in range(len(txns.keys)):
        appends = order.append[order.first[key] : order.first[key] + order.size[key]]
        failed: int | None = None
        for append in appends.tolist():
            if append < 0:
                continue
            txn = int(txns.mop_txn[append])
            outcome = txns.outcome[txn]
            if outcome == FAIL:
                failed = txn
            elif outcome == OK:
                if failed is not None and len(findings) < EXAMPLES_MAX:
                    why = (
                        f"Transaction {txn} appended {show(txns.value(int(txns.mop_value[append])))} to "
                        f"key {show(txns.keys[key])} upon what the failed transaction {failed} appended."
                    )
                    findings.append(Finding("dirty-update", why, (failed, txn), key=txns.keys[key]))
                failed = None
    return findings


def _intermediate_reads(txns: Transactions, order: Order, reads: Flags) -> list[Finding]:
    """Reads that end with an append that was not the last one of its transaction to the key."""
    appends = np.flatnonzero(txns.mop_kind == APPEND)
    if not len(appends):
        return []
    group = txns.mop_txn[appends] * len(txns.keys) + txns.mop_key[appends]
    by_group = np.argsort(group, kind="stable")
    final = np.zeros(len(txns.mop_kind), dtype=np.bool_)
    ends = np.append(group[by_group][1:] != group[by_group][:-1], True)
    final[appends[by_group[ends]]] = True
    seen = np.flatnonzero(reads & (order.last_append >= 0))
    source = order.last_append[seen]
    bad = seen[~final[source] & (txns.mop_txn[source] != txns.mop_txn[seen])]
    findings: list[Finding] = []
    for read in bad.tolist()[:EXAMPLES_MAX]:
        append = int(order.last_append[read])
        writer, reader = int(txns.mop_txn[append]), int(txns.mop_txn[read])
        key = txns.keys[int(txns.mop_key[read])]
        why = (
            f"Transaction {reader} read key {show(key)} ending with "
            f"{show(txns.value(int(txns.mop_value[append])))}, an append of transaction {writer} that "
            "was not its last one to that key."
        )
        findings.append(Finding("G1b", why, (writer, reader), key=key))
    return findings


def _disordered_appends(txns: Transactions, order: Order) -> list[Finding]:
    """Appends of one transaction to one key that others read in another order, or the later without the earlier."""
    appends = np.flatnonzero(txns.mop_kind == APPEND)
    group = txns.mop_txn[appends] * len(txns.keys) + txns.mop_key[appends]
    by_group = np.argsort(group, kind="stable")
    appends, group = appends[by_group], group[by_group]
    one, two = order.position[appends[:-1]], order.position[appends[1:]]
    wrong = (group[1:] == group[:-1]) & (two >= 0) & ((one == -1) | (one > two))
    findings: list[Finding] = []
    for at in np.flatnonzero(wrong).tolist()[:EXAMPLES_MAX]:
        txn = int(txns.mop_txn[appends[at]])
        key = txns.keys[int(txns.mop_key[appends[at]])]
        first, second = (txns.value(int(txns.mop_value[appends[at + i]])) for i in (0, 1))
        why = (
            f"Transaction {txn} appended {show(first)} and then {show(second)} to key {show(key)}; reads "
            f"have {show(second)} without {show(first)} before it."
        )
        findings.append(Finding("incompatible-order", why, (txn,), key=key))
    return findings


def _own_contradictions(txns: Transactions, order: Order) -> list[Finding]:
    """Transactions whose own reads and appends of one key do not fit together."""
    findings: list[Finding] = []
    for txn in _suspects(txns, order).tolist():
        mops = txns.micro_operations(txn)
        for name, judge in (("internal", internal), ("future-read", future_read)):
            if sum(f.name == name for f in findings) >= EXAMPLES_MAX:
                continue
            found = judge(mops)
            if found is not None:
                why, key = found
                findings.append(Finding(name, f"Transaction {txn} {why}", (txn,), key=key))
    return findings


def _suspects(txns: Transactions, order: Order) -> Ints:
    """Completed transactions in which two neighbours on one key do not fit the version order.

    When all of these hold, nothing can be wrong inside a transaction:

        read, read      the same state                      append, read   the read ends with the append
        read, append    the append comes right after, if it was read again later; never inside what was read
        append, append  one right after the other, if read later
    """
    used = np.flatnonzero(txns.outcome[txns.mop_txn] == OK)
    group = txns.mop_txn[used] * max(1, len(txns.keys)) + txns.mop_key[used]
    by_group = np.argsort(group, kind="stable")
    mops, group = used[by_group], group[by_group]
    pair = np.flatnonzero(group[1:] == group[:-1])
    if not len(pair):
        return np.zeros(0, dtype=np.int64)
    is_read = txns.mop_kind[mops] == READ
    # An append that nobody read has no place at all, not even one next to the empty list.
    place = np.where(is_read, order.state[mops], order.position[mops])
    place[~is_read & (place < 0)] = NOWHERE
    # The group of the nearest read at or after (before) each micro-operation: its own if there is one.
    here = np.arange(len(mops))
    next_read = np.minimum.accumulate(np.where(is_read, here, len(mops))[::-1])[::-1]
    read_later = group[np.minimum(next_read, len(mops) - 1)] == group
    read_later &= next_read < len(mops)
    last_read = np.maximum.accumulate(np.where(is_read, here, -1))
    read_before = (last_read >= 0) & (group[np.maximum(last_read, 0)] == group)
    one, two = pair, pair + 1
    both_read = is_read[one] & is_read[two]
    wrong = both_read & (place[one] != place[two])
    wrong |= ~is_read[one] & is_read[two] & (place[one] != place[two])
    wrong |= ~is_read[two] & read_later[two] & (place[two] != place[one] + 1)
    # A read that fits nowhere is looked at whenever it has company.
    wrong |= (is_read[one] & (place[one] == -2)) | (is_read[two] & (place[two] == -2))
    suspects = [txns.mop_txn[mops[one[wrong]]]]
    early = ~is_read & read_before & (place >= 0) & (place <= place[np.maximum(last_read, 0)])
    suspects.append(txns.mop_txn[mops[early]])
    odd = is_read & (txns.mop_size[mops] - 1 != order.state[mops])
    suspects.append(np.intersect1d(txns.mop_txn[mops[odd]], txns.mop_txn[mops[pair]]))
    return np.unique(np.concatenate(suspects))


def _lost_updates(txns: Transactions, reads: Flags) -> list[Finding]:
    """Two committed transactions that read the same version of a key and both wrote it."""
    used = np.flatnonzero(txns.outcome[txns.mop_txn] == OK)
    if not len(used):
        return []
    group = txns.mop_txn[used] * len(txns.keys) + txns.mop_key[used]
    by_group = np.argsort(group, kind="stable")
    mops, group = used[by_group], group[by_group]
    begins = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    wrote = np.logical_or.reduceat(txns.mop_kind[mops] == APPEND, begins)
    heads = mops[begins][wrote & reads[mops[begins]]]
    if len(heads) < 2:
        return []
    # A version is a key, a branch and a length; prefixes of the same list are the same version.
    version = np.lexsort((txns.mop_size[heads], txns.mop_value[heads], txns.mop_key[heads]))
    heads = heads[version]
    same = (
        (txns.mop_key[heads][1:] == txns.mop_key[heads][:-1])
        & (txns.mop_value[heads][1:] == txns.mop_value[heads][:-1])
        & (txns.mop_size[heads][1:] == txns.mop_size[heads][:-1])
    )
    findings: list[Finding] = []
    for i in np.flatnonzero(same).tolist()[:EXAMPLES_MAX]:
        one, two = sorted((int(txns.mop_txn[heads[i]]), int(txns.mop_txn[heads[i + 1]])))
        key = txns.keys[int(txns.mop_key[heads[i]])]
        why = (
            f"Transactions {one} and {two} both read key {show(key)} as "
            f"{show(txns.read_list(int(heads[i])))}, both appended to it and both committed."
        )
        findings.append(Finding("lost-update", why, (one, two), key=key))
    return findings


def dependencies(
    txns: Transactions, order: Order, reads: Flags, sessions: object, realtime: object
) -> Graph:
    """The dependency graph of the transactions."""
    edges = Edges()
    txn = txns.mop_txn
    written = order.append >= 0
    firm = written & (txns.outcome[txn[np.where(written, order.append, 0)]] != FAIL)
    owner = np.repeat(np.arange(len(order.size)), order.size)
    neighbours = firm[1:] & firm[:-1] & (owner[1:] == owner[:-1])
    edges.add(txn[order.append[:-1][neighbours]], txn[order.append[1:][neighbours]], WW)
    appends = np.flatnonzero((txns.mop_kind == APPEND) & (order.position == -1))
    unread = appends[txns.outcome[txn[appends]] != FAIL]
    tail = order.first + order.size - 1
    after = unread[order.size[txns.mop_key[unread]] > 0]
    ending = tail[txns.mop_key[after]]
    edges.add(txn[order.append[ending[firm[ending]]]], txn[after[firm[ending]]], WW)
    seen = np.flatnonzero(reads & (order.last_append >= 0))
    seen = seen[txns.outcome[txn[order.last_append[seen]]] != FAIL]
    edges.add(txn[order.last_append[seen]], txn[seen], WR)
    readers = np.flatnonzero(reads & (order.state >= -1))
    upcoming = order.state[readers] + 1
    inside = upcoming < order.size[txns.mop_key[readers]]
    target = order.first[txns.mop_key[readers[inside]]] + upcoming[inside]
    edges.add(txn[readers[inside][firm[target]]], txn[order.append[target[firm[target]]]], RW)
    nodes = _unread_edges(txns, edges, readers[~inside], unread)
    completed = txns.outcome == OK
    if realtime:
        nodes = add_realtime(edges, txns.start, txns.end, completed, nodes, FAR)
    if sessions:
        timed = txns.start != UNSEEN if realtime else np.ones(txns.count, dtype=np.bool_)
        add_sessions(edges, txns.process, txns.end, completed & timed)
    return edges.graph(txns.count, nodes)


def _unread_edges(txns: Transactions, edges: Edges, readers: Ints, unread: Ints) -> int:
    """Anti-dependencies from readers of the last known version to all appends that nobody read.

    One virtual node a key, for there can be many of both. Whoever is a reader and an appender of the same key
    must not follow from itself: its append gets an edge from each other reader instead.
    """
    keys = np.intersect1d(txns.mop_key[readers], txns.mop_key[unread])
    readers = readers[np.isin(txns.mop_key[readers], keys)]
    unread = unread[np.isin(txns.mop_key[unread], keys)]
    reader_code = txns.mop_key[readers] * txns.count + txns.mop_txn[readers]
    both = np.isin(txns.mop_key[unread] * txns.count + txns.mop_txn[unread], reader_code)
    by_key = np.argsort(txns.mop_key[readers], kind="stable")
    sorted_keys = txns.mop_key[readers[by_key]]
    for append in unread[both].tolist():
        key = txns.mop_key[append]
        low, high = np.searchsorted(sorted_keys, [key, key + 1])
        others = txns.mop_txn[readers[by_key[low:high]]]
        edges.add(others, np.full(len(others), txns.mop_txn[append]), RW)
    unread = unread[~both]
    edges.add(txns.mop_txn[readers], txns.count + np.searchsorted(keys, txns.mop_key[readers]), RW)
    edges.add(txns.count + np.searchsorted(keys, txns.mop_key[unread]), txns.mop_txn[unread], PASS)
    return txns.count + len(keys)
