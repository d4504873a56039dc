"""Regions of real nodes under faults: seeds, judged from outside, from inside and copy by copy."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from msgspec.structs import replace

from jepsen_like.sim import swarm
from jepsen_like.sim.cluster import ambush, scene

FIRST_SEED = 1_000
SEEDS = 10
JOBS = 2

RARE = frozenset(
    {
        # What honest clocks never show; runs beyond the bound must.
        "cluster.clock_fenced",
        # Rare enough to be missed by ten seeds.
        "cluster.case_push_on_dropped",
        "cluster.case_push_under_way",
        "cluster.case_stopped_with_waiters",
        "cluster.case_write_after_push",
        "cluster.copied",
        "cluster.epoch_refused",
        "cluster.held",
        "cluster.joined_again",
    }
)
"""Probes of clusters that this slice need not reach."""

REGRESSIONS = [
    int(line.split()[0])
    for line in (Path(__file__).parent / "cluster_seeds.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]


@functools.cache
def summaries() -> list[swarm.Summary]:
    """The runs of some seeds, made once, in two processes."""
    seeds = range(FIRST_SEED, FIRST_SEED + SEEDS)
    return list(swarm.each(seeds, jobs=JOBS, cluster=True))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_seeds_of_clusters_hold():
    """Every history is valid, everything is there in every copy, and nothing stays unfinished."""
    assert {one.seed: one.failures for one in summaries() if one.failures} == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_seeds_of_clusters_have_shown_enough():
    """Each seed has commits, a conflict and a fault; together they meet what clusters are for."""
    found = summaries()
    assert min(one.commits for one in found) >= 100
    assert min(one.conflicts for one in found) >= 1
    assert min(len(one.fault_kinds) for one in found) >= 1
    report = swarm.summed(found, 0.0, swarm.CLUSTER_ALL_PROBES)
    missed = {name for name in report.probes_missed if name.startswith("cluster.")}
    assert missed <= RARE


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_regressions_of_clusters_stay_mended():
    """Seeds that once failed hold."""
    found = list(swarm.each(REGRESSIONS, jobs=JOBS, cluster=True))
    assert {one.seed: one.failures for one in found if one.failures} == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_clocks_outside_their_bound_lose_nothing():
    """Nodes notice a clock that contradicts most others; whatever was acknowledged is there."""
    found = list(swarm.each(range(1, 5), jobs=JOBS, honest=False, cluster=True))
    assert {one.seed: one.failures for one in found if one.failures} == {}
    assert all(one.probes["cluster.clock_fenced"] for one in found)


@pytest.mark.timeout(300)
def test_traces_of_clusters_are_equal_in_another_process():
    """Two seeds, run again in a process with another hash seed, give the same traces."""
    assert swarm.canary((FIRST_SEED, FIRST_SEED + 1), cluster=True) == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [25, 38])
def test_a_whole_copy_need_not_be_faster_than_the_snapshots_of_its_sender(seed: int) -> None:
    """With a key a page, the sender takes many snapshots before the copy is whole; it ends well."""
    result = scene.run(seed, plan=replace(ambush.draw(seed, lags=False), copy_page_bytes=1))
    assert result.failures == []
    assert result.probes["cluster.copied"]
