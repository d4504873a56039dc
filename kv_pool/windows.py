"""Sliding windows and states: how deep a prompt is held by models that do not look at all of it.

A layer with full attention needs every block of a prefix. One with a sliding window needs only the last
blocks before the depth at which it goes on, and one that keeps a state (a window of one block) only the
last. A model with several such *groups* goes on at a depth that suits all of them, which need not be the least of
their own deepest ones::

    full       0 ═════════════════▶ 6           any depth up to 6
    window 2          3 ════▶ 5     7 ═▶ 9      5, or 9 (two blocks before each)
                                                together: 5

Groups cut prompts into blocks of one size here; depths are in blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct

from kv_pool.blocks import Names

Interval: TypeAlias = tuple[int, int]
"""Blocks that are held, from the first up to before the second."""


class Group(Struct, frozen=True):
    """An attention group's part in a prompt: its namespace, the names there, and how many of the last
    blocks it needs; 0 for all."""

    namespace: bytes
    names: Names
    window: int = 0


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Intervals in order of their beginnings, where they meet or overlap made one."""
    found: list[Interval] = []
    for start, end in intervals:
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def suitable(held: Sequence[Interval], window: int) -> list[Interval]:
    """Depths at which a group can go on, as half-open intervals; `held` as `merged` gives it."""
    if not window:
        return [(1, end + 1) for start, end in held if start == 0]
    found = []
    for start, end in held:
        # From the beginning on there may be less than a window before.
        first = 1 if start == 0 else start + window
        if first <= end:
            found.append((first, end + 1))
    return found


def deepest(groups: Sequence[Sequence[Interval]]) -> int:
    """The greatest depth that is among those of every group; 0 for none."""
    common: list[Interval] = list(groups[0]) if groups else []
    for other in groups[1:]:
        common = [
            (max(left[0], right[0]), min(left[1], right[1]))
            for left in common
            for right in other
            if max(left[0], right[0]) < min(left[1], right[1])
        ]
    return max([end - 1 for _, end in common], default=0)
