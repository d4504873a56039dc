"""Leaders of real nodes are killed and stopped under load: nothing acknowledged is lost, nothing stale
is read. `k2 check kill --cluster --rounds 50` is the long form."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from random import Random

import pytest

import k2store
from jepsen_like.kill.campaign import Campaign
from jepsen_like.kill.cluster import ClusterServer
from jepsen_like.kill.observed import Findings, Observed
from tests.contract.etcd_cluster import EtcdCluster, etcd_cluster, installed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_kills_of_leaders_lose_nothing(tmp_path: Path) -> None:
    """After each of five kills of a leader under load the cluster goes on, and holds what was
    acknowledged, nothing that was refused, and what it says of every unknown outcome."""
    server = ClusterServer(tmp_path / "nodes")
    campaign = Campaign(server, Random(5), crash=ClusterServer.kill_a_leader)
    result = asyncio.run(campaign.run(rounds=5))
    assert result.violations == []
    assert result.rounds == 5
    assert result.kills == len(server.kills) >= 5
    assert set(server.kills) == {"fra-2", "fra-3"}
    assert result.acknowledged >= 50
    assert result.unknown == result.committed + result.aborted


def test_leaders_that_stand_still_and_come_back(tmp_path: Path) -> None:
    """Leaders are stopped for longer than their lease and go on (SIGSTOP, SIGCONT), one is killed:
    what clients of every node read and write is strictly serializable, and watches at every node
    tell every commit once, in order, through changes of leaders and lost connections."""
    server = ClusterServer(tmp_path / "nodes")

    async def faults() -> None:
        await asyncio.sleep(1)
        await server.pause_a_leader(3)
        await server.pause_a_leader(3)
        await server.kill_a_leader()
        await server.spawn()
        await server.ready()
        await asyncio.sleep(1)

    async def main() -> Findings:
        await server.spawn()
        try:
            connections = [
                partial(k2store.connect, f"k2://{node.seat.address}", timeout="30s")
                for node in server.cluster.nodes.values()
            ]
            return await Observed(connections, Random(3)).run(faults)
        finally:
            await server.kill()

    found = asyncio.run(main())
    assert found.problems == []
    assert found.commits >= 50
    assert found.watched >= found.commits


@pytest.mark.etcd
@pytest.mark.skipif(not installed(), reason="NOT TESTED, a cluster on etcd: it is not installed")
def test_any_one_process_is_killed(tmp_path: Path) -> None:
    """With three members of etcd as control plane no process is special: leaders of partitions on
    every node, and etcd's own leader, are killed one at a time, and nothing is lost."""
    with etcd_cluster(tmp_path / "etcd", 3) as etcd:
        server = ClusterServer(
            tmp_path / "nodes", control=f"etcd://{','.join(etcd.endpoints)}/test"
        )
        members: list[int] = []

        async def one_process(target: ClusterServer) -> None:
            if len(members) <= len(target.kills):
                members.append(await asyncio.to_thread(kill_and_start, etcd))
            else:
                await target.kill_a_leader()

        campaign = Campaign(server, Random(9), crash=one_process)
        result = asyncio.run(campaign.run(rounds=6))
        assert result.violations == []
        assert len(members) >= 3
        assert len(server.kills) >= 3
        assert result.acknowledged >= 50


def kill_and_start(etcd: EtcdCluster) -> int:
    """Kill etcd's leader, and bring it back."""
    member = etcd.leader()
    etcd.kill(member)
    etcd.start(member)
    etcd.wait_healthy(member)
    return member
