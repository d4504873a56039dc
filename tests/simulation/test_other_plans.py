"""Plans of minutes, plans whose faults wait for their moment, clocks that lie, leads that are contested: a
few seeds of each."""

from __future__ import annotations

import functools
import os
import random

import pytest

from jepsen_like.sim.cluster.ambush import LOSSES
from jepsen_like.sim.cluster.ambush import draw as draw_ambush
from jepsen_like.sim.cluster.faults import spare
from jepsen_like.sim.cluster.states import FAULT_GROUPS, MEANINGS, PAIR_PROBES, STATES
from jepsen_like.sim.plan import draw_slow
from jepsen_like.sim.swarm import Summary
from jepsen_like.swarm.campaign import vacuous
from jepsen_like.swarm.crew import Task, together
from jepsen_like.swarm.worker import AMBUSH, CONTESTED, LIARS, SLOW, Answer
from k2store.testing.simulation import ACTIONS, SECOND_NS

AMBUSHES = (*range(1, 11), 1005547, 1005797)
"""The last but one showed that a crash in the middle of a copy left a hole in what was served meanwhile, the
last that the judge looked below what was kept."""
SLOW_SEEDS = (1, 2)
LIARS_SEEDS = (101, 1001355)
"""They showed that a client which was told a stamp of the future was given up for good, and that a read
whose node doubted its clock failed at once."""
CONTESTED_SEEDS = (1, 2, 3, 4, 5, 6)
LEADS_MIN = 6
"""How often somebody else came to lead in a run with contested leads, on average."""
PAIRS_MIN = 25
KINDS_MIN = 15


@functools.cache
def summaries() -> dict[tuple[str, int, bool], Summary]:
    """All runs, made once; one seed twice, in processes with different hash seeds."""
    tasks = [Task(AMBUSH, seed) for seed in AMBUSHES]
    tasks += [Task(SLOW, seed) for seed in SLOW_SEEDS]
    tasks += [Task(LIARS, seed) for seed in LIARS_SEEDS]
    tasks += [Task(CONTESTED, seed) for seed in CONTESTED_SEEDS]
    tasks.append(Task(AMBUSH, AMBUSHES[0], again=True))
    found = {}
    for task, came in together(iter(tasks), min(2, os.cpu_count() or 1), random.Random(7)):
        assert isinstance(came, Answer), came
        found[task.kind, task.seed, task.again] = came.summary
    return found


def of(kind: str) -> list[Summary]:
    """The runs of a kind of plan."""
    return [one for (which, _, again), one in summaries().items() if which == kind and not again]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", [AMBUSH, SLOW, LIARS, CONTESTED])
def test_they_hold(kind: str) -> None:
    """Histories are valid, copies equal, and every client is served when all is healed."""
    wrong = {one.seed: one.failures for one in of(kind) if one.failures and not vacuous(one)}
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ambushes_meet_faults_and_states() -> None:
    """Together they show many pairs of both, and many kinds of faults with effect."""
    met = {name for one in of(AMBUSH) for name in PAIR_PROBES if one.probes[name]}
    kinds = {kind for one in of(AMBUSH) for kind in one.fault_kinds}
    assert len(met) >= PAIRS_MIN
    assert len(kinds) >= KINDS_MIN


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_leads_are_contested() -> None:
    """They change hands many times, and those who lost them had applied ahead."""
    runs = of(CONTESTED)
    assert sum(one.probes["cluster.took_over"] for one in runs) >= LEADS_MIN * len(runs)
    assert sum(one.probes["cluster.deposed"] for one in runs) >= len(runs)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_slow_plans_are_under_load_all_along() -> None:
    """Minutes in which transactions commit, not minutes of silence."""
    for one in of(SLOW):
        assert one.load_ns >= 0.6 * draw_slow(one.seed).duration_ns
        assert one.load_ns >= 60 * SECOND_NS


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_ambush_is_the_same_run_in_another_process() -> None:
    """What is looked at to find the moment disturbs nothing and depends on nothing else."""
    first, second = (summaries()[AMBUSH, AMBUSHES[0], again] for again in (False, True))
    assert first.trace == second.trace


def test_disks_are_lost_only_where_logs_can_spare_them() -> None:
    """Elsewhere a log would lose its majority, and nobody could serve again."""
    lost = 0
    for seed in range(400):
        plan = draw_ambush(seed)
        for fault in plan.schedule:
            if fault.name in LOSSES:
                lost += 1
                assert spare(fault.target, plan.nodes, plan.keyspaces), (seed, fault)
    assert lost > 20


def test_every_state_has_a_meaning_and_every_fault_can_be_made() -> None:
    """The matrix speaks of what there is."""
    assert set(STATES) == set(MEANINGS)
    kinds = {kind for group in FAULT_GROUPS.values() for kind in group}
    drawn = {fault.name for seed in range(300) for fault in draw_ambush(seed).schedule}
    assert drawn == kinds
    beside = {"stop", "move", "split", "cut-region", "cut-region-one-way", "slow-region"}
    assert kinds <= {*ACTIONS, *beside}
