"""Regions of real node processes under load and faults, judged like a run of the simulator.

::

    LocalCluster (processes, mutual TLS, disks and clocks of their own, emulated distances)
       ▲ load: clients and watchers of every region, workloads and journal of the simulator
       ▲ nemesis: a schedule of faults, as the simulator takes it; each tells its evidence
       │ healed; from here on the clock of recovery runs
       ▼
    outcomes asked, everything read ─▶ the same checks ─▶ logs and rows of all nodes equal

The order of events is the machine's own, so a run cannot be repeated; what the simulator does not
have is here instead: processes, sockets, the disk and the scheduler of a real kernel.
"""

from __future__ import annotations

from jepsen_like.regions.campaign import Campaign, Result
from jepsen_like.regions.load import Load
from jepsen_like.regions.scene import Scene, scene

__all__ = ["Campaign", "Load", "Result", "Scene", "scene"]
