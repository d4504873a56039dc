"""What goes wrong, as data that simulated machines and real processes both understand.

::

    schedule.json ──▶ k2 check replay --schedule      simulated machines, virtual time
                 └──▶ k2 check cluster --schedule     real processes, emulated distances

    {"duration_ns": 8000000000, "hosts": {"fra-1": "fra", "iad-1": "iad", "client-1": "fra"},
     "faults": [
      {"at_ns": 1000000000, "name": "kill", "for_ns": 500000000, "target": "fra-1"},
      {"at_ns": 2500000000, "name": "isolate", "for_ns": 900000000, "pairs": [["fra", "iad"]]}]}

Whoever applies a schedule says for every fault what shows that it took effect, or that nothing does:
a fault without evidence has tested nothing.
"""

from __future__ import annotations

from jepsen_like.nemesis.schedule import KINDS, BadSchedule, Fault, Kind, Schedule, read, write

__all__ = ["KINDS", "BadSchedule", "Fault", "Kind", "Schedule", "read", "write"]
