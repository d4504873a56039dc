"""`k2 check cluster`: regions of real processes under load and faults, judged like a simulation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import msgspec
import pytest

from jepsen_like.nemesis.schedule import read as read_schedule
from jepsen_like.regions import Result
from jepsen_like.regions.run import SCHEDULE, Wanted, run
from jepsen_like.report import page, read
from k2store.testing.disk_image import refusal

SECONDS = 30.0
KINDS_MIN = 12
"""Kinds of faults that must have taken effect, of some thirty that are drawn."""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nine_nodes_under_every_fault_are_strictly_serializable(tmp_path: Path) -> None:
    """Histories hold, service comes back, and all nodes end with equal logs and the same rows.

    What the machine may be too busy for, such as a fault that nobody saw, is told and not required.
    """
    seed = Random().getrandbits(32)
    result = asyncio.run(run(Wanted(seed=seed, seconds=SECONDS, record=tmp_path / "run")))
    told = f"seed {seed}: {msgspec.to_builtins(result)}"
    assert result.anomalies == [], told
    assert result.commits > 0, told
    assert len(set(result.state_hash)) > 1, told
    if refusal() is None:
        assert len(result.faults) >= KINDS_MIN, told
    assert result.watched > 0, told
    record = read(tmp_path / "run")
    assert len(record.faults) == len(read_schedule(tmp_path / "run" / SCHEDULE).faults)
    assert "<svg" in page(record)


def test_a_run_in_which_nothing_happened_is_not_valid() -> None:
    """Without commits, without a fault that took effect, or with one that did not, it proves nothing."""
    assert not Result(1.0, commits=5).valid
    assert not Result(1.0, faults={"kill": 1}).valid
    assert not Result(1.0, commits=5, faults={"kill": 1}, anomalies=["lost"]).valid
    assert not Result(1.0, commits=5, faults={"kill": 1}, flaws=["kill left no evidence"]).valid
    assert Result(1.0, commits=5, faults={"kill": 1}).valid
