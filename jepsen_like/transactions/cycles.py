"""Finds in a dependency graph one cycle of each kind that says something of its own.

A cycle is named by its edges (Adya 1999, with the refinements of Elle):

    G0                    write dependencies only
    G1c                   and read dependencies
    G-single-item         and exactly one anti-dependency
    G-nonadjacent-item    several anti-dependencies, no two in a row      (breaks snapshot isolation)
    G2-item               two in a row                                    (breaks serializability)
    ...-process           only the order of a session closes it
    ...-realtime          only the order of real time closes it

Within one component the kinds are tried from the strongest evidence down, and a kind that an earlier find implies
is passed over. So whenever a kind is tried, no cycle of a kind it could be confused with exists, and the first
closed walk found is of the kind sought.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from jepsen_like.transactions.graph import (
    ANTI,
    PASS,
    REALTIME,
    RW,
    RW_REALTIME,
    RW_SESSION,
    SESSION,
    WR,
    WW,
    WW_REALTIME,
    WW_SESSION,
    Graph,
    Ints,
    strong,
)
from jepsen_like.transactions.models import implied_anomalies

TARGETS_AT_ONCE = 8192
CANDIDATES_MAX = 400
STEPS_MAX = 200_000
"""How many nodes may be visited in search of a shorter cycle once one is known."""


class Hop(msgspec.Struct, frozen=True):
    """One edge of a cycle between transactions; `kind` is one bit."""

    source: int
    target: int
    kind: int


class Cycle(msgspec.Struct, frozen=True):
    """A cycle and its name."""

    name: str
    hops: tuple[Hop, ...]


class _Family(msgspec.Struct, frozen=True):
    """The kinds of edges that cycles with one suffix may use."""

    suffix: str
    writes: int
    anti: int


_FAMILIES = (
    _Family("", WW, RW),
    _Family("-process", WW | WW_SESSION | SESSION, RW | RW_SESSION),
    _Family(
        "-realtime",
        WW | WW_SESSION | SESSION | WW_REALTIME | REALTIME,
        RW | RW_SESSION | RW_REALTIME,
    ),
)


def find_cycles(graph: Graph, expired: Callable[[], bool]) -> tuple[list[Cycle], bool]:
    """One cycle of each telling kind of every component, and whether the time sufficed for all components."""
    found: list[Cycle] = []
    for knot, old in graph.knots():
        if found and expired():
            return found, False
        for cycle in _in_knot(knot.without_shadowed()):
            hops = tuple(Hop(int(old[h.source]), int(old[h.target]), h.kind) for h in cycle.hops)
            found.append(Cycle(cycle.name, hops))
    return found, True


def _in_knot(knot: Graph) -> Iterator[Cycle]:
    redundant: set[str] = set()
    seen_kinds = int(np.bitwise_or.reduce(knot.kind))
    covered = 0
    for family in _FAMILIES:
        new = (family.writes | family.anti) & seen_kinds & ~covered
        covered |= family.writes | family.anti
        if family.suffix and not new:
            continue
        for name, search in (
            ("G0", _write_cycle),
            ("G1c", _read_cycle),
            ("G-single-item", _single),
            ("G-nonadjacent-item", _nonadjacent),
            ("G2-item", _any_anti),
        ):
            if name + family.suffix in redundant:
                continue
            hops = search(knot, family)
            if hops:
                redundant |= implied_anomalies([name + family.suffix])
                yield Cycle(name + family.suffix, tuple(hops))


def _write_cycle(knot: Graph, family: _Family) -> list[Hop]:
    return _plain_cycle(knot, family.writes)


def _read_cycle(knot: Graph, family: _Family) -> list[Hop]:
    return _plain_cycle(knot, family.writes | WR)


def _plain_cycle(knot: Graph, mask: int) -> list[Hop]:
    """A short cycle over edges of the kinds in `mask`, whatever it holds."""
    edges = _inside(knot, mask)
    if not len(edges):
        return []
    return _shortest(_Walker(knot, mask), knot, edges)


def _single(knot: Graph, family: _Family) -> list[Hop]:
    """A cycle with exactly one anti-dependency: a way back without any."""
    base = family.writes | WR
    anti = np.flatnonzero(knot.kind & family.anti)
    label = knot.components(base)
    same = label[knot.source[anti]] == label[knot.target[anti]]
    closing = anti[same]
    if not len(closing):
        closing = _reachable_back(knot, base, anti)
    return _shortest(_Walker(knot, base), knot, closing)


def _nonadjacent(knot: Graph, family: _Family) -> list[Hop]:
    """A cycle with several anti-dependencies and never two in a row.

    In the product of the graph with "was the last edge an anti-dependency?" such cycles are plain cycles.
    """
    base = family.writes | WR
    label = _product_components(knot, base, family.anti)
    anti = np.flatnonzero(knot.kind & family.anti)
    closing = anti[label[2 * knot.source[anti]] == label[2 * knot.target[anti] + 1]]
    if not len(closing):
        return []
    walker = _ProductWalker(knot, base, family.anti)
    best: list[Hop] = []
    for edge in _choose(knot, closing):
        hops = walker.back(knot, int(edge), len(best) or None)
        if hops and _alternates(hops) and (not best or len(hops) < len(best)):
            best = hops
        if walker.visited > STEPS_MAX * (1 if best else 100):
            break
    return best


def _any_anti(knot: Graph, family: _Family) -> list[Hop]:
    mask = family.writes | WR | family.anti
    edges = _inside(knot, mask)
    edges = edges[(knot.kind[edges] & family.anti) != 0]
    return _shortest(_Walker(knot, mask), knot, edges)


def _inside(knot: Graph, mask: int) -> Ints:
    """The edges of the kinds in `mask` that lie on cycles of such edges; none out of virtual nodes."""
    label = knot.components(mask)
    inside = (label[knot.source] == label[knot.target]) & ((knot.kind & mask) != 0)
    return np.flatnonzero(inside)


def _shortest(walker: _Walker, knot: Graph, edges: Ints) -> list[Hop]:
    """A shortest cycle through one of the edges; of very many edges only some are tried."""
    best: list[Hop] = []
    for edge in _choose(knot, edges):
        hops = walker.back(knot, int(edge), len(best) or None)
        if hops and (not best or len(hops) < len(best)):
            best = hops
        if len(best) == 2 or (best and walker.visited > STEPS_MAX):
            break
    return best


def _choose(knot: Graph, edges: Ints) -> Ints:
    """At most `CANDIDATES_MAX` of the edges: first those whose reverse is an edge too, then evenly spread."""
    if len(edges) <= CANDIDATES_MAX:
        return edges
    code = knot.source * knot.nodes + knot.target
    reverse = knot.target[edges] * knot.nodes + knot.source[edges]
    two = edges[np.isin(reverse, code)][: CANDIDATES_MAX // 2]
    spread = edges[:: max(1, len(edges) // (CANDIDATES_MAX - len(two)))]
    return np.concatenate((two, spread))


class _Walker:
    """Shortest ways over edges of some kinds; steps out of virtual nodes cost nothing."""

    def __init__(self, knot: Graph, mask: int) -> None:
        keep = np.flatnonzero((knot.kind & (mask | PASS)) != 0)
        # Of parallel edges the firmest kind comes first and is the one a walk uses.
        keep = keep[np.lexsort((knot.kind[keep], knot.source[keep]))]
        counts = np.bincount(knot.source[keep], minlength=knot.nodes)
        self._first = [0, *np.cumsum(counts).tolist()]
        self._target = knot.target[keep].tolist()
        self._kind = knot.kind[keep].tolist()
        self.visited = 0

    def back(self, knot: Graph, edge: int, better_than: int | None) -> list[Hop]:
        """The cycle of `edge` and a shortest way from its target to its source; empty when there is none."""
        source, target = int(knot.source[edge]), int(knot.target[edge])
        kind = int(knot.kind[edge])
        entry = {target: kind}
        cost = {target: 1 if target < knot.count else 0}
        came: dict[int, int] = {}
        waiting = deque([target])
        first, targets, kinds = self._first, self._target, self._kind
        count = knot.count
        while waiting:
            node = waiting.popleft()
            spent = cost[node]
            self.visited += 1
            if node == source:
                return _hops(came, entry, source, target, kind, count)
            if better_than is not None and spent >= better_than:
                continue
            for i in range(first[node], first[node + 1]):
                after = targets[i]
                price = spent + (after < count)
                if after in cost and cost[after] <= price:
                    continue
                cost[after] = price
                came[after] = node
                entry[after] = entry[node] if kinds[i] == PASS else kinds[i]
                if after < count:
                    waiting.append(after)
                else:
                    waiting.appendleft(after)
        return []


def _hops(
    came: dict[int, int], entry: dict[int, int], source: int, target: int, kind: int, count: int
) -> list[Hop]:
    """The cycle as hops between transactions, beginning with the closing edge."""
    way = [source]
    while way[-1] != target:
        way.append(came[way[-1]])
    way.reverse()
    real = [node for node in way if node < count]
    hops = [Hop(source, real[0], kind if target < count else entry[real[0]])]
    hops.extend(Hop(a, b, entry[b]) for a, b in zip(real, real[1:], strict=False))
    return hops


class _ProductWalker:
    """Like `_Walker`, over pairs (node, was the last edge an anti-dependency)."""

    def __init__(self, knot: Graph, base: int, anti: int) -> None:
        source, target, kind = _product(knot, base, anti)
        order = np.lexsort((kind, source))
        counts = np.bincount(source, minlength=2 * knot.nodes)
        self._first = [0, *np.cumsum(counts).tolist()]
        self._target = target[order].tolist()
        self._kind = kind[order].tolist()
        self.visited = 0

    def back(self, knot: Graph, edge: int, better_than: int | None) -> list[Hop]:
        """The closed walk of `edge` and a shortest way back that keeps anti-dependencies apart."""
        begin = 2 * int(knot.target[edge]) + 1
        goal = 2 * int(knot.source[edge])
        limit = 2 * knot.count
        kind = int(knot.kind[edge])
        entry = {begin: kind}
        cost = {begin: 1 if begin < limit else 0}
        came: dict[int, int] = {}
        waiting = deque([begin])
        while waiting:
            node = waiting.popleft()
            spent = cost[node]
            self.visited += 1
            if node == goal:
                way = [goal]
                while way[-1] != begin:
                    way.append(came[way[-1]])
                way.reverse()
                real = [n for n in way if n < limit]
                hops = [Hop(goal // 2, real[0] // 2, kind)]
                hops.extend(
                    Hop(a // 2, b // 2, entry[b]) for a, b in zip(real, real[1:], strict=False)
                )
                return _inner(hops)
            if better_than is not None and spent >= better_than:
                continue
            for i in range(self._first[node], self._first[node + 1]):
                after = self._target[i]
                price = spent + (after < limit)
                if after in cost and cost[after] <= price:
                    continue
                cost[after] = price
                came[after] = node
                entry[after] = entry[node] if self._kind[i] == PASS else self._kind[i]
                if after < limit:
                    waiting.append(after)
                else:
                    waiting.appendleft(after)
        return []


def _inner(hops: list[Hop]) -> list[Hop]:
    """The shortest part of a closed walk that is closed itself: a cycle without repeated transactions."""
    seen: dict[int, int] = {}
    for place, hop in enumerate(hops):
        if hop.source in seen:
            return _inner(hops[seen[hop.source] : place])
        seen[hop.source] = place
    return hops


def _alternates(hops: list[Hop]) -> bool:
    anti = [bool(hop.kind & ANTI) for hop in hops]
    apart = all(not (a and b) for a, b in zip(anti, anti[1:] + anti[:1], strict=True))
    return apart and sum(anti) > 1


def _product(knot: Graph, base: int, anti: int) -> tuple[Ints, Ints, Ints]:
    plain = np.flatnonzero(knot.kind & base)
    jump = np.flatnonzero(knot.kind & anti)
    through = np.flatnonzero(knot.kind & PASS)
    source, target, kind = knot.source, knot.target, knot.kind
    return (
        np.concatenate(
            (2 * source[plain], 2 * source[plain] + 1, 2 * source[jump], 2 * source[through],
             2 * source[through] + 1)
        ),
        np.concatenate(
            (2 * target[plain], 2 * target[plain], 2 * target[jump] + 1, 2 * target[through],
             2 * target[through] + 1)
        ),
        np.concatenate((kind[plain], kind[plain], kind[jump], kind[through], kind[through])),
    )  # fmt: skip


def _product_components(knot: Graph, base: int, anti: int) -> Ints:
    source, target, _ = _product(knot, base, anti)
    return strong(2 * knot.nodes, source, target)


def _reachable_back(knot: Graph, mask: int, edges: Ints) -> Ints:
    """Those of the edges from whose target their source can be reached over edges of the kinds in `mask`.

    The components are condensed; then each node gets, from the last in topological order to the first, the set
    of the wanted nodes it reaches, as the bits of one integer. Stops at the first block of wanted nodes that
    yields an answer: one cycle is what is asked for.
    """
    if not len(edges):
        return edges
    label = knot.components(mask)
    keep = (knot.kind & (mask | PASS)) != 0
    a, b = label[knot.source[keep]], label[knot.target[keep]]
    nodes = int(label.max()) + 1
    code = np.unique(a[a != b] * nodes + b[a != b])
    after: list[list[int]] = [[] for _ in range(nodes)]
    incoming = np.bincount(code % nodes, minlength=nodes).tolist()
    for one, two in zip((code // nodes).tolist(), (code % nodes).tolist(), strict=True):
        after[one].append(two)
    order = [n for n in range(nodes) if not incoming[n]]
    for node in order:
        for neighbour in after[node]:
            incoming[neighbour] -= 1
            if not incoming[neighbour]:
                order.append(neighbour)
    assert len(order) == nodes
    rank = np.zeros(nodes, dtype=np.int64)
    rank[np.array(order)] = np.arange(nodes)
    begins, goals = label[knot.target[edges]], label[knot.source[edges]]
    hopeful = rank[begins] < rank[goals]
    edges, begins, goals = edges[hopeful], begins[hopeful], goals[hopeful]
    # Near ones first: their ways are short.
    near = np.argsort(rank[goals] - rank[begins], kind="stable")
    edges, begins, goals = edges[near], begins[near], goals[near]
    for at in range(0, len(edges), TARGETS_AT_ONCE):
        block = slice(at, at + TARGETS_AT_ONCE)
        hits = _reaches(order, after, begins[block].tolist(), goals[block].tolist())
        if hits:
            closing: Ints = edges[block][np.array(hits)]
            return closing
    return edges[:0]


def _reaches(
    order: list[int], after: list[list[int]], begins: list[int], goals: list[int]
) -> list[int]:
    bit_of: dict[int, int] = {}
    for goal in goals:
        bit_of.setdefault(goal, 1 << len(bit_of))
    reached = [0] * len(after)
    for node in reversed(order):
        bits = bit_of.get(node, 0)
        for neighbour in after[node]:
            bits |= reached[neighbour]
        reached[node] = bits
    return [i for i, (b, g) in enumerate(zip(begins, goals, strict=True)) if reached[b] & bit_of[g]]
