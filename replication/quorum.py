"""Counting majorities. Pure arithmetic: what is counted (entries, promises) is the caller's."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def majority(count: int) -> int:
    """How many of ``count`` voters make a majority; two majorities always share a voter."""
    return count // 2 + 1


def is_majority(voters: Collection[int], have: Collection[int]) -> bool:
    """Whether those who have it are a majority of the voters; others do not count."""
    return sum(voter in have for voter in voters) >= majority(len(voters))


def reached(voters: Collection[int], marks: Mapping[int, int]) -> int:
    """The largest mark that a majority of the voters has reached; 0 stands for "none yet".

    Marks only grow, so whoever reached a mark has reached every smaller one.
    """
    if not voters:
        return 0
    ordered = sorted([marks.get(voter, 0) for voter in voters], reverse=True)
    return ordered[majority(len(voters)) - 1]
