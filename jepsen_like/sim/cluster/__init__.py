"""Clusters under the simulator: regions, logs, leaders that come and go, from one seed.

::

    fra                    iad                     sin
     fra-1 fra-2 fra-3      iad-1 iad-2             sin-1         40 to 100 ms between regions
       ▲     ▲                ▲                       ▲
     clients of the region  clients                 clients

    keyspace default   voters fra-1 fra-2 fra-3     keys of some workloads
    keyspace iad       voters iad-1 iad-2           keys of others
    keyspace global    voters fra-1 iad-1 sin-1     keys of others

Nodes, links and replicas are the real ones; the control plane is in memory, since nothing of the
node waits for it but a new leader. Beside what a single node's run is judged by, every replica of a
partition must in the end have the same log and the same rows.

    from jepsen_like.sim.cluster import run
    outcome = run(7)
    assert not outcome.failures, outcome.failures
"""

from __future__ import annotations

from jepsen_like.sim.cluster.plan import ClusterPlan, draw
from jepsen_like.sim.cluster.scene import run

__all__ = ["ClusterPlan", "draw", "run"]
