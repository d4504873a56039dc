"""One seed is one run of the real store, whatever Python's own hashing does."""

from __future__ import annotations

import io

import pytest

from jepsen_like.sim import run, swarm

SEEDS = tuple(range(1_000, 1_006))


@pytest.mark.timeout(300)
def test_traces_are_equal_in_another_process():
    """Six seeds, run again in a process with another hash seed, give the same traces."""
    assert swarm.canary(SEEDS) == {}


def test_the_trace_can_be_read():
    """The events of a run are written as lines, and writing them changes nothing."""
    sink = io.StringIO()
    written = run(SEEDS[0], trace_sink=sink)
    assert written.trace == run(SEEDS[0]).trace
    lines = sink.getvalue().splitlines()
    assert len(lines) > 1_000
    assert any(" fault " in line for line in lines)


def test_seeds_differ():
    """Another seed is another run."""
    assert run(SEEDS[0]).trace != run(SEEDS[1]).trace
