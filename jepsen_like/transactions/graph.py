"""Dependency graphs between transactions, in arrays, and what is cyclic in them.

Nodes 0 to `count - 1` are transactions. Further nodes are *virtual*: they stand for many edges at once (every
completion comes before all later invocations) and never appear in what people see. An edge into a virtual node
says what kind of dependency it is; edges out of one are `PASS` and keep that kind.

A version order of a register can rest on the order of sessions or of real time. Edges that need such a step have
kinds of their own, so that a cycle is called what it is: `G-single-item` only if data alone close it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Ints = npt.NDArray[np.int64]

WW: Final = 1
WR: Final = 2
RW: Final = 4
WW_SESSION: Final = 8
RW_SESSION: Final = 16
SESSION: Final = 32
WW_REALTIME: Final = 64
RW_REALTIME: Final = 128
REALTIME: Final = 256
PASS: Final = 512

NAMES: Final = {
    WW: "ww",
    WR: "wr",
    RW: "rw",
    WW_SESSION: "ww",
    RW_SESSION: "rw",
    SESSION: "process",
    WW_REALTIME: "ww",
    RW_REALTIME: "rw",
    REALTIME: "realtime",
}
ANTI: Final = RW | RW_SESSION | RW_REALTIME
"""Edges from a reader to whoever overwrote what it read."""


class Edges:
    """A growing bag of edges."""

    def __init__(self) -> None:
        self._source: list[Ints] = []
        self._target: list[Ints] = []
        self._kind: list[Ints] = []

    def add(self, source: npt.ArrayLike, target: npt.ArrayLike, kind: int) -> None:
        """Adds edges of one kind; edges from a node to itself are dropped."""
        a = np.asarray(source, dtype=np.int64)
        b = np.asarray(target, dtype=np.int64)
        keep = a != b
        if not keep.all():
            a, b = a[keep], b[keep]
        if len(a):
            self._source.append(a)
            self._target.append(b)
            self._kind.append(np.full(len(a), kind, dtype=np.int64))

    def graph(self, count: int, nodes: int) -> Graph:
        """The graph of `count` transactions and `nodes - count` virtual nodes."""
        empty = [np.zeros(0, dtype=np.int64)]
        return Graph(
            count,
            nodes,
            np.concatenate(self._source or empty),
            np.concatenate(self._target or empty),
            np.concatenate(self._kind or empty),
        )


class Graph:
    """Edges `source[i] -> target[i]` of kind `kind[i]`."""

    def __init__(self, count: int, nodes: int, source: Ints, target: Ints, kind: Ints) -> None:
        self.count = count
        self.nodes = nodes
        self.source = source
        self.target = target
        self.kind = kind

    def components(self, mask: int) -> Ints:
        """The strongly connected component of every node, over edges of the kinds in `mask`."""
        keep = (self.kind & (mask | PASS)) != 0
        return strong(self.nodes, self.source[keep], self.target[keep])

    def knots(self) -> list[tuple[Graph, Ints]]:
        """The components that hold cycles, as graphs of their own, with the old number of every new node.

        Smallest first. A transaction keeps a number below the virtual nodes'.
        """
        label = self.components(~0)
        size = np.bincount(label, minlength=1)
        inside = (label[self.source] == label[self.target]) & (size[label[self.source]] > 1)
        if not inside.any():
            return []
        edges = np.flatnonzero(inside)
        edges = edges[np.argsort(label[self.source[edges]], kind="stable")]
        of_edge = label[self.source[edges]]
        cuts = np.flatnonzero(np.diff(of_edge)) + 1
        parts = np.split(edges, cuts)
        parts.sort(key=len)
        return [self._part(part) for part in parts]

    def _part(self, edges: Ints) -> tuple[Graph, Ints]:
        old = np.unique(np.concatenate((self.source[edges], self.target[edges])))
        return (
            Graph(
                int(np.searchsorted(old, self.count)),
                len(old),
                np.searchsorted(old, self.source[edges]),
                np.searchsorted(old, self.target[edges]),
                self.kind[edges],
            ),
            old,
        )

    def without_shadowed(self) -> Graph:
        """Without anti-dependencies between two transactions that a write or read dependency orders the same way."""
        firm = np.isin(self.kind, (WW, WR))
        anti = (self.kind & ANTI) != 0
        code = self.source * self.nodes + self.target
        shadowed = anti & np.isin(code, code[firm])
        keep = ~shadowed
        return Graph(self.count, self.nodes, self.source[keep], self.target[keep], self.kind[keep])


def strong(nodes: int, source: Ints, target: Ints) -> Ints:
    """Strongly connected components as one label a node."""
    if not nodes:
        return np.zeros(0, dtype=np.int64)
    index = np.int32 if nodes < 2**31 else np.int64
    matrix = csr_array(
        (np.ones(len(source), dtype=np.int8), (source.astype(index), target.astype(index))),
        shape=(nodes, nodes),
    )
    _, label = connected_components(matrix, directed=True, connection="strong")
    return np.asarray(label, dtype=np.int64)


def add_realtime(
    edges: Edges,
    start: Ints,
    end: Ints,
    completed: npt.NDArray[np.bool_],
    first_node: int,
    far: int,
) -> int:
    """Adds the order of real time; gives the number of nodes then in use.

    Every completed transaction precedes all that begin after its end. A chain of virtual nodes, one for each
    distinct "last completion before an invocation", carries that in linear space.
    """
    done = np.flatnonzero(completed & (end < far))
    if not len(done):
        return first_node
    done = done[np.argsort(end[done], kind="stable")]
    ends = end[done]
    # How many completions stand before each invocation; an invocation nobody saw is before everything.
    before = np.searchsorted(ends, start, side="left")
    later = np.flatnonzero(before > 0)
    if not len(later):
        return first_node
    used = np.unique(before[later])
    edges.add(first_node + np.searchsorted(used, before[later]), later, PASS)
    rank = np.searchsorted(used, np.arange(1, len(done) + 1), side="left")
    linked = rank < len(used)
    edges.add(done[linked], first_node + rank[linked], REALTIME)
    chain = first_node + np.arange(len(used))
    edges.add(chain[:-1], chain[1:], PASS)
    return first_node + len(used)


def add_sessions(
    edges: Edges, process: Ints, position: Ints, completed: npt.NDArray[np.bool_]
) -> None:
    """Adds the order in which every process did its completed transactions; -1 is no process."""
    mine = np.flatnonzero(completed & (process >= 0))
    mine = mine[np.lexsort((position[mine], process[mine]))]
    same = process[mine][1:] == process[mine][:-1]
    edges.add(mine[:-1][same], mine[1:][same], SESSION)
