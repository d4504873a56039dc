"""Seeds of the simulator for as long as there is time, and what they amount to.

::

    ledger ─▶ next seed ─▶ a worker process ─▶ summary ─▶ ledger
                               │ silent for too long: ended, the seed counts as stuck
             one in 47 ─▶ once more, in a process with another hash seed: the same trace?

Six kinds of plans take turns: one node for some seconds, one node for minutes, regions of nodes,
regions whose faults wait for their moment, regions with clocks outside their bound, and regions whose
leads are contested while their clocks stand far apart. A swarm
that has met no anomaly has shown something only if it reached what it set out to reach: it says
which declared probes were never hit, which kinds of faults took effect, and in how many seconds
transactions committed.

The record is a file with one line a swarm; that of this project is `jepsen_like/seeds.jsonl`. The
ledger is a file with one line a seed. Seeds are numbered on from the largest in it, so that
swarms on several days make one long one.
"""

from __future__ import annotations

from jepsen_like.swarm.campaign import Report, swarm
from jepsen_like.swarm.ledger import Ledger, Line, Record, Run

__all__ = ["Ledger", "Line", "Record", "Report", "Run", "swarm"]
