"""A cluster of real nodes whose control plane is a real etcd: what goes on when parts of it go."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from k2store import blocking
from k2store.cli.group import k2
from k2store.errors import K2Error
from k2store.testing.cluster import ClusterNode, LocalCluster, local_cluster
from k2store.v1 import admin_pb2
from tests.contract.etcd_cluster import EtcdCluster, etcd_cluster, installed

REGIONS = ("fra", "iad", "sin")
WAIT_S = 40.0

pytestmark = [
    pytest.mark.etcd,
    pytest.mark.slow,
    pytest.mark.skipif(not installed(), reason="etcd is not installed"),
    pytest.mark.timeout(240),
]


def until(holds: Callable[[], bool]) -> None:
    """Return when a condition holds; fail when it never does."""
    patience = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < patience, "it never held"
        time.sleep(0.05)


def regions(control: str, *words: str) -> dict:
    """`k2 regions ... --json`."""
    said = ["--set", "client.deadline=20s", "regions", *words, "--control", control, "--json"]
    result = CliRunner().invoke(k2, said)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def written(cluster: LocalCluster, key: bytes, value: bytes) -> None:
    """Write a key, however long it takes until somebody leads."""

    def done() -> bool:
        try:
            with cluster.blocking(timeout="5s") as db:
                db.put(key, value)
        except K2Error:
            return False
        return True

    until(done)


def leader(cluster: LocalCluster) -> ClusterNode:
    """The node that leads the only partition."""
    found: list[ClusterNode] = []

    def leads() -> bool:
        found[:] = [
            look.node
            for look in cluster.look()
            if look.status is not None
            and any(
                one.replica.role == admin_pb2.REPLICA_ROLE_LEADER for one in look.status.partitions
            )
        ]
        return len(found) == 1

    until(leads)
    return found[0]


def statuses(cluster: LocalCluster) -> list[admin_pb2.GetStatusResponse]:
    """What the nodes that answer say of themselves."""
    return [look.status for look in cluster.look() if look.status is not None]


def test_nothing_stops_without_etcd_and_takeovers_go_on_with_most_of_it(tmp_path: Path) -> None:
    """Nodes join through etcd; a leader is replaced while a member of etcd is down; with all of
    etcd away reads and writes go on and a node restarts; the map is followed when it is back."""
    with etcd_cluster(tmp_path / "etcd", 3) as etcd:
        control = f"etcd://{','.join(etcd.endpoints)}/test"
        with local_cluster(
            REGIONS,
            wan=None,
            tls=False,
            path=tmp_path / "nodes",
            keyspaces=["default:region:fra"],
            cluster__control=control,
        ) as cluster:
            made = regions(control, "status")
            assert sorted(made["partitions"][0]["voters"]) == [1, 2, 3]
            written(cluster, b"first", b"1")

            etcd.kill(etcd.leader())
            deposed = leader(cluster)
            deposed.kill()
            written(cluster, b"second", b"2")
            assert leader(cluster) is not deposed
            deposed.start()

            stop_all(etcd)
            written(cluster, b"third", b"3")
            other = next(one for one in cluster.nodes.values() if one is not leader(cluster))
            other.kill()
            other.start()
            with blocking.connect(f"k2://{other.seat.address}", timeout="20s") as db:
                assert [db.get(key) for key in (b"first", b"second", b"third")] == [
                    b"1",
                    b"2",
                    b"3",
                ]

            for member in range(3):
                etcd.start(member)
            for member in range(3):
                etcd.wait_healthy(member)
            made = regions(control, "init", "--keyspace", "iad:zone:iad")
            assert len(made["partitions"]) == 3
            written(cluster, b"iad/fourth", b"4")

            def same_map() -> bool:
                # The node that started while etcd was away tells of that now, so there may be later ones.
                versions = {one.cluster.map_version for one in statuses(cluster)}
                return len(versions) == 1 and min(versions) >= made["version"]

            until(same_map)


def stop_all(etcd: EtcdCluster) -> None:
    """No control plane at all."""
    for member in range(3):
        etcd.kill(member)
