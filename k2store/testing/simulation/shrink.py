"""Shortens what makes a run fail: delta debugging over any list, a fault schedule above all.

Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrink(items: Sequence[T], fails: Callable[[list[T]], bool], runs_max: int = 1_000) -> list[T]:
    """A part of `items`, in order, that still fails, and from which no single one can be left out.

    `fails` runs the test with some of the items. After `runs_max` runs the shortest list found so
    far is given, which may then not be minimal. ValueError if `items` as a whole do not fail.
    """
    current = list(items)
    if not fails(current):
        raise ValueError("the whole does not fail")
    runs, parts = 1, 2
    while len(current) >= 1:
        size = max(1, len(current) // parts)
        for start in range(0, len(current), size):
            if runs >= runs_max:
                return current
            runs += 1
            rest = current[:start] + current[start + size :]
            if fails(rest):
                current = rest
                parts = max(2, parts - 1)
                break
        else:
            if size == 1:
                return current
            parts = min(len(current), parts * 2)
    return current
