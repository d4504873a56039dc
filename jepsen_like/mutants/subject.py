"""The process in which a mutant lives: ``python -m jepsen_like.mutants.subject NAME WHERE ...``.

WHERE is ``node``, ``cluster``, ``contested`` or ``pool`` with a first seed, a count and the workloads to run
(none: those that each seed draws), of which each seed is told as one line of JSON; or ``scripts``, whose
exit status is that of pytest. The name ``none`` is the store as it is.

Only modules that import nothing of the store are imported before the sources are changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from jepsen_like.mutants.catalogue import named
from jepsen_like.mutants.mutant import Mutant, Stage
from jepsen_like.mutants.transform import install

if TYPE_CHECKING:
    from jepsen_like.sim.swarm import Summary

UNCHANGED: Final = "none"


class Told(msgspec.Struct, frozen=True):
    """One seed."""

    seed: int
    history: list[str] = []
    """What checkers found in what clients and watchers saw."""
    stamps: list[str] = []
    """What contradicts the stamps that clients were told."""
    inside: list[str] = []
    """What only a look into the nodes shows."""
    others: list[str] = []


def _seeds(only: Sequence[str], stage: Stage, *, first: int, count: int) -> None:
    # Only here: what this imports is changed by now.
    from jepsen_like.workloads import WORKLOADS

    for seed in range(first, first + count):
        summary = _summary(stage, seed, only)
        inside = list(summary.inside)
        seen = [what for what in summary.anomalies if what not in inside]
        history = [what for what in seen if _by_history(what, WORKLOADS)]
        stamps = [what for what in seen if what not in history]
        others = [
            what
            for what in summary.failures
            if what not in summary.anomalies and not what.startswith("vacuous")
        ]
        told = Told(seed, history, stamps, inside, others)
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        sys.stdout.flush()
        if history or stamps or inside or others:
            return


def _summary(stage: Stage, seed: int, only: Sequence[str]) -> Summary:
    from jepsen_like.sim import cluster, swarm
    from jepsen_like.sim.cluster import contested

    if stage is Stage.CONTESTED:
        return swarm.summary_of(cluster.run(seed, plan=contested.draw(seed, only)))
    return swarm.one(seed, only, cluster=stage is Stage.CLUSTER)


def _pool_seeds(first: int, count: int) -> None:
    from jepsen_like.pool import swarm

    for seed in range(first, first + count):
        summary = swarm.one(seed)
        inside = list(summary.inside)
        seen = [what for what in summary.anomalies if what not in inside]
        history = [what for what in seen if what.startswith("kv-directory: ")]
        # Routers compare their trees with the directory, at one stamp.
        stamps = [what for what in seen if what not in history]
        others = [what for what in swarm.real_failures(summary) if what not in summary.anomalies]
        told = Told(seed, history, stamps, inside, others)
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        sys.stdout.flush()
        if history or stamps or inside or others:
            return


def _by_history(what: str, workloads: Container[str]) -> bool:
    """Whether a finding is of a checker that saw only what clients and watchers saw."""
    where, said, _ = what.partition(": ")
    if not said:
        return False
    judged = where.partition("@")[0] in workloads and " " not in where
    return judged or where.startswith("watch ")


def _scripts(mutant: Mutant) -> int:
    import pytest

    # Rewritten assertions would be those of the true source: pytest imports what it rewrites itself.
    quiet = [
        "--assert=plain",
        "-q",
        "-x",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
    ]
    return int(pytest.main([*quiet, *mutant.scripts]))


def main(arguments: list[str]) -> int:
    """Change the sources, then run what is asked for."""
    name, where, *rest = arguments
    mutant = None if name == UNCHANGED else named(name)
    if mutant is not None:
        install(mutant.changes)
    if where == "scripts":
        assert mutant is not None
        return _scripts(mutant)
    first, count, *only = rest
    if where == "pool":
        _pool_seeds(int(first), int(count))
        return os.EX_OK
    _seeds(only, Stage(where), first=int(first), count=int(count))
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
