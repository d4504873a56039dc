"""All faults that real processes can be given, by the names that schedules have for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from jepsen_like.nemesis import clocks, disks, links, operations, processes
from jepsen_like.nemesis.schedule import KINDS

if TYPE_CHECKING:
    from jepsen_like.nemesis.world import Driver

DRIVERS: Final[Mapping[str, Driver]] = MappingProxyType(
    {
        "bridge": links.cut,
        "clock-doubt": clocks.doubt,
        "clock-drift": clocks.drift,
        "clock-freeze": clocks.freeze,
        "clock-step": clocks.step,
        "clock-strobe": clocks.strobe,
        "clock-violation": clocks.violation,
        "corrupt": disks.corrupt,
        "cut-region": links.cut,
        "cut-region-one-way": links.cut,
        "disk-full": disks.disk_full,
        "duplicate": links.duplicate,
        "fail-sync": disks.fail_sync,
        "flap": links.flap,
        "halves": links.cut,
        "isolate": links.cut,
        "kill": processes.kill,
        "lose-disk": disks.lose_disk,
        "lossy-link": links.lossy,
        "majority": links.cut,
        "move": operations.move,
        "one-way": links.cut,
        "pause": processes.pause,
        "power-cut": disks.power_cut,
        "ring": links.cut,
        "slow-disk": disks.slow_disk,
        "slow-link": links.slow,
        "slow-region": links.slow,
        "split": operations.split,
        "stale-disk": disks.stale_disk,
        "starve-cpu": processes.starve_cpu,
        "starve-memory": processes.starve_memory,
        "stop": processes.stop,
    }
)
"""The simulator has the others: single operations of a disk, and streams, which no kernel lets one
choose (`fail-read`, `misdirect`, `clog`, ...)."""

assert set(DRIVERS) <= set(KINDS), "one set of names"
