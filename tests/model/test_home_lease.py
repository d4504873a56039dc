"""Home leases in a world of faults, seed by seed.

``python -m tests.model.test_home_lease FIRST COUNT`` runs many seeds by hand.
"""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from tests.model.home_world import HomeWorld

REACHED = ("served", "promoted", "fenced", "gave_up", "crashes", "ambushes", "cuts")


def run(seed: int) -> Counter[str]:
    """One history; every other is an ambush."""
    world = HomeWorld(seed)
    world.run()
    return world.count


@pytest.mark.parametrize("first", range(0, 160, 40))
def test_no_home_serves_after_a_later_one_was_promoted(first: int) -> None:
    """No history breaks the rule, and each has a home that serves when faults have ended."""
    total: Counter[str] = Counter()
    for seed in range(first, first + 40):
        total += run(seed)
    assert all(total[each] for each in REACHED), total


def main(first: int, count: int) -> int:
    """Run ``count`` seeds and say what failed and what was reached; returns the failures."""
    total: Counter[str] = Counter()
    failures = 0
    for seed in range(first, first + count):
        try:
            total += run(seed)
        except AssertionError as error:  # a broken rule, here or inside a machine
            failures += 1
            sys.stdout.write(f"seed {seed}: {error}\n")
    sys.stdout.write(f"{count} histories, {failures} failed: {dict(sorted(total.items()))}\n")
    return failures


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])) > 0)
