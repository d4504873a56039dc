"""Regions of real node processes under load and faults, judged like a run of the simulator.

::

    LocalCluster (processes, mutual TLS, emulated distances)
       ▲ clients of every region: workloads of the simulator, the same histories and journal
       ▲ nemesis: kill, pause, restart, cut regions off, cut one direction
       │ heal; from here on the clock of recovery runs
       ▼
    outcomes asked, everything read, in every region at one stamp ─▶ the same checks

The order of events is the machine's own, so a run cannot be repeated; what the simulator does not
have is here instead: processes, sockets, the disk and the scheduler of a real kernel.
"""

from __future__ import annotations

from jepsen_like.regions.campaign import Campaign, Result

__all__ = ["Campaign", "Result"]
