"""The real node and client under faults: three hundred seeds, judged from outside and inside."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import pytest

from jepsen_like.sim import swarm
from jepsen_like.sim.plan import KINDS
from jepsen_like.workloads import WORKLOADS

CHUNKS = tuple(range(5))
CHUNK_SEEDS = 60
FIRST_SEED = 1_000
JOBS = 2

RARE = frozenset(
    {
        # What a healthy disk and an honest clock never show.
        "clock.outside_bound",
        "disk.flipped",
        "disk.misdirected",
        "disk.read_failed",
        # These runs are too short to fill a disk between segments, or to wait for a connection.
        "disk.create_failed_full",
        "network.connect_timed_out",
        # Rare enough to be missed by three hundred seeds; longer runs by hand must show them.
        "client.died_and_committed",
        "node.refused_busy",
        "node.refused_deadline",
        "node.refused_horizon",
        # Cases that plans with faults at their moment, or swarms of many minutes, bring about.
        "client.stamps_tied",
        "node.case_split_open",
        "node.case_write_overtaken",
        "node.case_write_repeated_early",
        "node.refused_future",
        # Datagrams are for other programs than the store.
        "network.datagram_doubled",
        "network.datagram_lost",
        "network.datagram_overtaken",
        "network.send_queue_full",
        "process.crashed_itself",
    }
)
"""Probes of the simulator that this load and these faults are not meant to reach."""

REGRESSIONS = [
    int(line.split()[0])
    for line in (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]


@functools.cache
def summaries(chunk: int) -> tuple[list[swarm.Summary], float]:
    """The runs of a chunk of seeds, made once, in two processes."""
    first = FIRST_SEED + chunk * CHUNK_SEEDS
    began_s = time.perf_counter()
    found = list(swarm.each(range(first, first + CHUNK_SEEDS), jobs=JOBS))
    return found, time.perf_counter() - began_s


def report() -> swarm.Report:
    """All chunks in one."""
    chunks = [summaries(chunk) for chunk in CHUNKS]
    return swarm.summed(
        [summary for found, _ in chunks for summary in found], sum(took for _, took in chunks)
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_seeds_hold(chunk):
    """Every history is valid, every acknowledged write is there, and nothing stays unfinished."""
    found, _ = summaries(chunk)
    assert {one.seed: one.failures for one in found if one.failures} == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_seeds_have_shown_enough():
    """Each seed has a hundred commits, a conflict and a fault; together they use every kind."""
    chunks = [one for chunk in CHUNKS for one in summaries(chunk)[0]]
    assert len(chunks) == 300
    assert min(one.commits for one in chunks) >= 100
    assert min(one.conflicts for one in chunks) >= 1
    assert min(len(one.fault_kinds) for one in chunks) >= 1
    # A log that is written in place seldom needs room that a full disk could refuse.
    assert set(KINDS) - set(report().fault_kinds) <= {"disk-full"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_seeds_reach_every_probe():
    """Over all seeds every case of the node that has a probe was met at least once."""
    assert set(report().probes_missed) <= RARE


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_regressions_stay_mended():
    """Seeds that once failed hold."""
    found = list(swarm.each(REGRESSIONS, jobs=JOBS))
    assert {one.seed: one.failures for one in found if one.failures} == {}


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_each_workload_alone(name):
    """A workload by itself passes its own checks; it may be too calm to conflict."""
    found = swarm.one(77, (name,))
    assert [what for what in found.failures if not what.startswith("vacuous")] == []
    assert found.transactions > 0
