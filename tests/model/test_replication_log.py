"""Replicas of one log in a world of faults, seed by seed.

``python -m tests.model.test_replication_log FIRST COUNT`` runs many seeds by hand.
"""

from __future__ import annotations

import sys
import traceback
from collections import Counter

import pytest

from tests.model.replication_world import MS, Broken, World

REACHED = (
    "reads",
    "writes",
    "serves",
    "crashes",
    "snapshots",
    "installs",
    "trailed",
    "handed",
)


def run(seed: int) -> Counter[str]:
    """One history; every third is an ambush."""
    world = World(seed, ambush=seed % 3 == 2)
    world.run()
    return world.count


@pytest.mark.parametrize("first", range(0, 150, 15))
def test_histories_keep_every_rule_of_the_log(first: int) -> None:
    """No history breaks a rule of the log, and each one makes progress when faults end."""
    total: Counter[str] = Counter()
    for seed in range(first, first + 15):
        total += run(seed)
    assert all(total[each] for each in REACHED), total


def test_a_clock_beyond_its_bound_is_noticed() -> None:
    """Leaders whose clocks fall out of their intervals serve stale reads, and the checks see it."""
    for seed in range(40):
        try:
            World(seed, ambush=True, lie_ns=150 * MS).run()
        except Broken as broken:
            if " below " in str(broken):
                return
    raise AssertionError("no history shows a stale read")


def main(first: int, count: int) -> int:
    """Run ``count`` seeds and say what failed and what was reached; returns the failures."""
    total: Counter[str] = Counter()
    failures = 0
    for seed in range(first, first + count):
        try:
            total += run(seed)
        except AssertionError as error:  # a broken rule, here or inside a machine
            failures += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            sys.stdout.write(f"seed {seed}: {error} {where.filename}:{where.lineno}\n")
        if seed % 100 == 0:
            sys.stdout.write(f"... {seed}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{count} histories, {failures} failed: {dict(sorted(total.items()))}\n")
    return failures


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])) > 0)
