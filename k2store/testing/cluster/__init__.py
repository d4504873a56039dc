"""A cluster on this machine: real nodes in emulated regions, for tests, benchmarks and `k2 dev`.

::

    with local_cluster(("fra", "iad", "sin")) as cluster:
        with cluster.blocking("fra") as db:  # a client that stands in Frankfurt
            db.put(b"k", b"v")
        cluster.wan.isolate("iad")
        cluster.node("sin-1").kill()  # as a crash would; pause(), resume(), wipe()
        cluster.wan.heal()
        cluster.node("sin-1").start()

Each node is `k2 node run` with a folder and a settings file of its own, in its region of
:mod:`k2store.testing.wan`. They speak mutual TLS with certificates made for the occasion. A keeper
(:mod:`k2store.testing.keeper`) ends all of them should this process be killed.

::

    folder/certificates/      authority, nodes, one client
    folder/fra-1/k2.toml      what the node is told; `ClusterNode.settings` for its next start
    folder/fra-1/node.log     what it said
    folder/fra-1/data/
"""

from __future__ import annotations

from k2store.testing.cluster.local_cluster import LocalCluster, local_cluster
from k2store.testing.cluster.looks import Look
from k2store.testing.cluster.node import ClusterNode, Seat

__all__ = ["ClusterNode", "LocalCluster", "Look", "Seat", "local_cluster"]
