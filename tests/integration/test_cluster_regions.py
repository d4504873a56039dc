"""A cluster whose regions lose each other: real nodes, real packets, real cuts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar

import pytest

import k2store
from k2store.testing.cluster import LocalCluster, local_cluster
from k2store.testing.wan import namespaces

REFUSAL = namespaces.refusal()
KINDS = [
    pytest.param(
        "namespaces",
        marks=[
            pytest.mark.root,
            pytest.mark.skipif(
                REFUSAL is not None, reason=f"NOT TESTED, cuts between namespaces: {REFUSAL}"
            ),
        ],
    ),
    "proxy",
]
Apart = Literal["namespaces", "proxy"]
WAIT_S = 40.0
T = TypeVar("T")


def until(holds: Callable[[], bool]) -> None:
    """Return when a condition holds; fail when it never does."""
    patience = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < patience, "it never held"
        time.sleep(0.05)


def eventually(act: Callable[[], T]) -> T:
    """What an act gives once the cluster can serve it: links that were cut need a moment."""
    patience = time.monotonic() + WAIT_S
    while True:
        try:
            return act()
        except k2store.Unavailable:
            assert time.monotonic() < patience, "it never served"
            time.sleep(0.1)


def leaders(cluster: LocalCluster, key: bytes) -> set[str]:
    """The nodes that say that they lead the partition of a key."""
    from k2store.v1 import admin_pb2

    return {
        look.node.name
        for look in cluster.look()
        if look.status is not None
        for one in look.status.partitions
        if one.start <= key and (not one.end or key < one.end)
        if one.replica.role == admin_pb2.REPLICA_ROLE_LEADER
    }


@pytest.mark.parametrize("kind", KINDS)
def test_another_region_leads_when_the_leaders_is_cut_off(kind: Apart) -> None:
    """The region of a leader is cut off: another one takes over with every acknowledged write, and
    when the cut heals the old leader follows."""
    regions = ("fra", "iad", "lhr")
    with local_cluster(regions, wan=kind, keyspaces=("default:region:iad",)) as cluster:
        until(lambda: leaders(cluster, b"k") == {"iad-1"})
        with cluster.blocking("fra", timeout=WAIT_S) as db:
            db.put(b"k", b"before")
            cluster.wan.isolate("iad")
            until(lambda: bool(leaders(cluster, b"k") - {"iad-1"}))
            assert eventually(lambda: db.get(b"k")) == b"before"
            eventually(lambda: db.put(b"k", b"meanwhile"))
        counts = cluster.wan.statistics()
        assert counts["iad", "fra"].cut > 0
        assert counts["lhr", "iad"].cut > 0
        assert counts["fra", "lhr"].cut == 0
        cluster.wan.heal()
        until(lambda: len(leaders(cluster, b"k")) == 1)
        with cluster.blocking("iad", timeout=WAIT_S) as db:
            assert eventually(lambda: db.get(b"k")) == b"meanwhile"
            eventually(lambda: db.put(b"k", b"after"))
        with cluster.blocking("lhr", timeout=WAIT_S) as db:
            assert eventually(lambda: db.get(b"k")) == b"after"


@pytest.mark.parametrize("kind", KINDS)
def test_a_region_alone_serves_what_is_at_home_there(kind: Apart) -> None:
    """Cut off from all others, a region goes on with its own keyspace, which the others wait for;
    what it cannot do alone it refuses, and nothing is lost on either side."""
    regions = ("fra", "iad", "lhr")
    with local_cluster(regions, wan=kind) as cluster:
        with cluster.blocking("iad") as db:
            db.put(b"iad/k", b"before")
        cluster.wan.isolate("iad")
        inside = [cluster.node("iad-1").seat.address]
        dial = {inside[0]: cluster.wan.address("iad", inside[0])}
        alone = k2store.blocking.connect(f"k2://{inside[0]}", tls=cluster.tls, dial=dial)
        with alone as db:
            db.put(b"iad/k", b"alone")
            assert db.get(b"iad/k", timeout="10s") == b"alone"
            with pytest.raises((k2store.Unavailable, k2store.Deadline, k2store.OutcomeUnknown)):
                db.put(b"rest", b"v", timeout="2s")
        with cluster.blocking("fra") as db:
            db.put(b"fra/k", b"v", timeout="20s")
            with pytest.raises((k2store.Unavailable, k2store.Deadline)):
                db.get(b"iad/k", timeout="2s")
        cluster.wan.heal()
        with cluster.blocking("fra", timeout=WAIT_S) as db:
            assert eventually(lambda: db.get(b"iad/k")) == b"alone"
            assert eventually(lambda: db.get(b"fra/k")) == b"v"
            eventually(lambda: db.put(b"rest", b"w"))
            assert db.get(b"rest") == b"w"


@pytest.mark.parametrize("kind", KINDS)
def test_every_node_learns_everything_while_nothing_happens(kind: Apart) -> None:
    """With 220 ms there and back between two regions, longer than a leader waits before it sends
    again, their nodes still get each other's partitions, and safe times move, without one write."""
    with local_cluster(("fra", "iad", "sin"), wan=kind) as cluster:

        def safe() -> list[int]:
            return [
                0 if look.status is None else look.status.cluster.safe for look in cluster.look()
            ]

        until(lambda: all(safe()))
        first = safe()
        until(lambda: all(now > before for now, before in zip(safe(), first, strict=True)))
