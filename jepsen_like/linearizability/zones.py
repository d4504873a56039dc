"""Registers whose written values are all different: decided in O(n log n) by zones.

When every value is written once, each read belongs to one write. A write and its reads form a *cluster*; its zone
lies between the earliest end and the latest start of its operations:

    forward  (earliest end < latest start): the register must hold the value all through the zone
    backward (otherwise): one instant inside the zone is enough

The history is linearizable exactly if every read ends after its write begins, no two forward zones overlap, and no
backward zone lies inside a forward one (Gibbons and Korach, "Testing shared memories", SIAM J. Comput. 1997). A
write whose end is unknown counts if somebody read it, and only then. The initial value is a write that ended
before everything.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

FAR = int(np.iinfo(np.int64).max)


class Calls(NamedTuple):
    """One entry an operation. `value` is a number, equal for equal values; `end` is `FAR` for crashed writes.

    Reads must have ended. Failed operations, crashed reads and reads that say nothing are left out.
    """

    number: Ints
    key: Ints
    value: Ints
    write: Flags
    start: Ints
    end: Ints


class Clash(NamedTuple):
    """Why the history is not linearizable: a sentence-like reason and the operations concerned."""

    reason: str
    numbers: tuple[int, ...]


class NotUniqueError(Exception):
    """A value is written twice: zones do not apply."""


def find_clash(calls: Calls, initial: int) -> Clash | None:
    """A proof that the calls are not linearizable, or None. `initial` is the number of the initial value."""
    if not len(calls.key):
        return None
    low = min(int(calls.value.min()), initial)
    span = max(int(calls.value.max()), initial) - low + 1
    if span * (int(calls.key.max()) + 1) >= 1 << 62:
        names, value = np.unique(np.append(calls.value, initial), return_inverse=True)
        calls = calls._replace(value=value[:-1].astype(np.int64))
        low, span, initial = 0, len(names), int(value[-1])
    code = calls.key * span + (calls.value - low)
    written = np.sort(code[calls.write])
    if (written[1:] == written[:-1]).any() or (calls.value[calls.write] == initial).any():
        raise NotUniqueError
    owner, cluster = np.unique(code, return_inverse=True)
    has_write = np.zeros(len(owner), dtype=np.bool_)
    has_write[cluster[calls.write]] = True
    is_initial = owner % span + low == initial
    orphan = ~calls.write & ~has_write[cluster] & ~is_initial[cluster]
    if orphan.any():
        read = int(calls.number[np.flatnonzero(orphan)[0]])
        return Clash("it read a value that nobody wrote", (read,))
    begins = np.full(len(owner), -1, dtype=np.int64)
    begins[cluster[calls.write]] = calls.start[calls.write]
    early = ~calls.write & (calls.end < begins[cluster])
    if early.any():
        read = int(np.flatnonzero(early)[0])
        write = np.flatnonzero(calls.write & (cluster == cluster[read]))[0]
        numbers = (int(calls.number[write]), int(calls.number[read]))
        return Clash("the read ended before the write of its value began", numbers)
    return _clash_of_zones(calls, cluster, owner // span, is_initial)


def _clash_of_zones(calls: Calls, cluster: Ints, key: Ints, is_initial: Flags) -> Clash | None:
    order = np.argsort(cluster, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(cluster[order]) > 0))
    latest_start = np.maximum.reduceat(calls.start[order], first)
    earliest_end = np.minimum.reduceat(calls.end[order], first)
    earliest_end[is_initial] = -1
    # A crashed write that nobody read may never have happened.
    happened = earliest_end < FAR
    forward = happened & (earliest_end < latest_start)
    zones = np.flatnonzero(forward)
    zones = zones[np.lexsort((earliest_end[zones], key[zones]))]
    together = (key[zones][1:] == key[zones][:-1]) & (
        earliest_end[zones][1:] < latest_start[zones][:-1]
    )
    if together.any():
        at = int(np.flatnonzero(together)[0])
        return _clash(calls, cluster, int(zones[at]), int(zones[at + 1]))
    points = np.flatnonzero(happened & ~forward)
    stretch = int(max(calls.start.max(), calls.end[calls.end < FAR].max(initial=0))) + 3
    before = (
        np.searchsorted(
            key[zones] * stretch + earliest_end[zones] + 1,
            key[points] * stretch + latest_start[points] + 1,
        )
        - 1
    )
    around = np.maximum(before, 0)
    if not len(zones):
        return None
    inside = (
        (before >= 0)
        & (key[zones[around]] == key[points])
        & (latest_start[zones[around]] > earliest_end[points])
    )
    if not inside.any():
        return None
    at = int(np.flatnonzero(inside)[0])
    return _clash(calls, cluster, int(zones[around[at]]), int(points[at]))


def _clash(calls: Calls, cluster: Ints, one: int, two: int) -> Clash:
    """The operations at the edges of two zones that exclude each other."""
    numbers: list[int] = []
    for mine in (one, two):
        members = np.flatnonzero(cluster == mine)
        ends_first = members[np.argmin(calls.end[members])]
        starts_last = members[np.argmax(calls.start[members])]
        for member in (ends_first, starts_last):
            if int(calls.number[member]) not in numbers:
                numbers.append(int(calls.number[member]))
    return Clash(
        "two values had to stand in the register at the same time: between the end of one operation "
        "and the start of a later one that saw the same value, another value came and went",
        tuple(numbers),
    )
