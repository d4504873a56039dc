"""Regions of real processes under load and faults, judged like a run of the simulator."""

from __future__ import annotations

import asyncio
import random

import pytest

from jepsen_like.regions import Campaign, Result
from jepsen_like.regions.nemesis import FAULTS
from k2store.testing.cluster import local_cluster

SECONDS = 12.0
RECOVERY_S_MAX = 30.0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cluster_under_faults_is_strictly_serializable_and_comes_back() -> None:
    """Nodes are killed, paused and cut off; the histories hold and all copies show the same rows."""
    with local_cluster(("fra", "iad", "lhr")) as cluster:
        result = asyncio.run(Campaign(cluster, random.Random(1)).run(SECONDS))
    assert result.anomalies == []
    assert result.valid, result
    assert result.commits >= 50
    assert set(result.faults) <= set(FAULTS)
    assert result.recovery_s < RECOVERY_S_MAX


def test_a_run_in_which_nothing_happened_is_not_valid() -> None:
    """Without commits, or without a fault that took effect, a run proves nothing."""
    assert not Result(1.0, commits=5).valid
    assert not Result(1.0, faults={"kill": 1}).valid
    assert not Result(1.0, commits=5, faults={"kill": 1}, anomalies=["lost"]).valid
    assert Result(1.0, commits=5, faults={"kill": 1}).valid
