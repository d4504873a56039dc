"""The machine under the measurement: its cores, its speed at Python, its disk, its other guests.

Absolute rates belong to one machine at one time. What makes them comparable is measured here: how
long the interpreter takes for the commonest step of the state machine (building a msgspec Struct),
how long the disk takes for one fdatasync, and how much of the machine somebody else used.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import NamedTuple, Self

from msgspec import Struct

from bench.samples import quantile

SYNCS = 300
SYNC_BYTES = 512
STRUCTS = 200_000
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Machine(Struct, frozen=True):
    """What the figures were measured on.

    struct_ns         to build a msgspec Struct of six fields, on a core with nothing else to do
    fdatasync_p50_us  one write of 512 bytes into a preallocated file, and its sync
    filesystem        type of the file system that holds the data
    """

    cores: int
    processor: str
    kernel: str
    python: str
    filesystem: str
    struct_ns: float
    fdatasync_p50_us: float
    fdatasync_p99_us: float


class _Message(Struct, frozen=True, gc=False):
    """As wide as what the state machine receives."""

    request: int
    transaction: bytes
    at: int
    key: bytes
    value: bytes
    deadline_ns: int


def examine(folder: Path) -> Machine:
    """Measure the machine, with the disk that holds `folder`."""
    sync_us = fdatasync_us(folder)
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        processor=_processor(),
        kernel=platform.release(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        filesystem=filesystem(folder),
        struct_ns=struct_ns(),
        fdatasync_p50_us=sync_us[0],
        fdatasync_p99_us=sync_us[1],
    )


def struct_ns() -> float:
    """The best of five tries to build many Structs, ns each."""
    key, value, transaction = b"k" * 16, b"v" * 64, b"t" * 16
    best_ns = sys.maxsize
    for _ in range(5):
        began_ns = time.perf_counter_ns()
        for number in range(STRUCTS // 5):
            _Message(number, transaction, number, key, value, 0)
        best_ns = min(best_ns, time.perf_counter_ns() - began_ns)
    return best_ns / (STRUCTS // 5)


def fdatasync_us(folder: Path) -> tuple[float, float]:
    """Median and 99th percentile of a small write and its sync, µs, in a file that has its size."""
    path = folder / "sync-probe"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.pwrite(descriptor, bytes(SYNCS * SYNC_BYTES), 0)
        os.fsync(descriptor)
        taken_ns = []
        for number in range(SYNCS):
            began_ns = time.perf_counter_ns()
            os.pwrite(descriptor, b"x" * SYNC_BYTES, number * SYNC_BYTES)
            os.fdatasync(descriptor)
            taken_ns.append(time.perf_counter_ns() - began_ns)
    finally:
        os.close(descriptor)
        path.unlink()
    taken_ns.sort()
    return quantile(taken_ns, 0.5) / 1e3, quantile(taken_ns, 0.99) / 1e3


def filesystem(folder: Path) -> str:
    """Type of the file system that holds a folder, as the kernel lists it."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


# -------------------------------------------------------------------------------- time used


def process_cpu_s(process: int) -> float:
    """CPU time that a process and its threads have used, seconds (to a hundredth)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def resident_bytes(process: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class MachineTime(NamedTuple):
    """CPU seconds since boot, summed over the cores: used by guests of this kernel, and stolen."""

    busy_s: float
    stolen_s: float

    @classmethod
    def now(cls) -> Self:
        """Read the kernel's account."""
        line = Path("/proc/stat").read_text().partition("\n")[0]
        user, nice, system, _, _, hard, soft, stolen = map(int, line.split()[1:9])
        return cls((user + nice + system + hard + soft) / _TICKS_PER_S, stolen / _TICKS_PER_S)
