"""Seeds of the simulator for as long as there is time, and what they amount to.

::

    ledger ─▶ next seed ─▶ a worker process ─▶ summary ─▶ ledger
                               │ silent for too long: ended, the seed counts as stuck
              each fiftieth ─▶ once more, in a process with another hash seed: the same trace?

Two kinds of plans take turns: one node, and regions of nodes. A swarm that has met no anomaly has
shown something only if it reached what it set out to reach: it says which declared probes were
never hit, which kinds of faults took effect and for how long simulated clients were at work.

The ledger is a file with one line a seed. Seeds are numbered on from the largest in it, so that
swarms on several days make one long one.
"""

from __future__ import annotations

from jepsen_like.swarm.campaign import Report, swarm
from jepsen_like.swarm.ledger import Ledger, Line

__all__ = ["Ledger", "Line", "Report", "swarm"]
