"""The real store under the simulator, from one seed to a verdict.

::

    seed ─▶ plan ─▶ one node, some clients, some watchers, a schedule of faults
                        │ safety phase: load under faults
                        │ heal; liveness phase: everybody finishes, nothing stays open
                        │ quiet phase: unknown outcomes are asked for, everything is read
                        ▼
            histories ─▶ checkers       one history a workload, judged from outside
            journal   ─▶ serial replay  all transactions by commit stamp, judged from inside
            streams   ─▶ watch checks   against the commits of all workloads

    from jepsen_like.sim import run
    outcome = run(7)
    assert not outcome.failures, outcome.failures

What a seed must have shown to count (commits, a conflict, a fault that took effect) is part of
its verdict: a run in which nothing happened proves nothing.
"""

from __future__ import annotations

from jepsen_like.sim.plan import Plan, draw
from jepsen_like.sim.scene import run
from jepsen_like.sim.stage import Result

__all__ = ["Plan", "Result", "draw", "run"]
