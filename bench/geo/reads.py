"""Reads that cost no round trip: stale ones by rate, strong ones by latency.

The rate is that of `k2 bench store`: the same load process, 256 reads in flight, against a node that
is alone and against a replica of the cluster, on the same core. The replica goes on applying what
its leader in another region writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench.campaign import LoadProcess
from bench.geo.scene import EPOCH_MS
from bench.plan import Connect, Fill, Measure, Measured
from bench.processes import choose_cores, own_folder
from bench.progress import Begin
from bench.samples import quantile
from k2store.testing.child import Child
from k2store.testing.cluster import ClusterNode, LocalCluster
from k2store.testing.cluster.node import CONFIG, DATA, LOG, toml
from k2store.testing.keeper import Keeper

KEYS: Final = 20_000
IN_FLIGHT: Final = 256
PROBE: Final = "key/000000000000"
WRITES_PAUSE_S: Final = 0.02
READER: Final = "sin"
HOME: Final = "fra"


class ReplicaReads(Struct):
    """Snapshot reads a second.

    ratio      median of the ratios of neighbouring runs
    alone_us, replica_us  CPU time of the node a read
    ratio_cpu  the same as `ratio`, of the CPU times: what it would be on cores with nothing else to do
    others_cores_max  what other processes used meanwhile, in cores: it falls on both alike
    """

    alone_per_s: float
    replica_per_s: float
    ratio: float
    alone_us: float
    replica_us: float
    ratio_cpu: float
    runs: int
    others_cores_max: float


class StrongReads(Struct):
    """Latency of strong reads of another home's keys, milliseconds, by who is asked."""

    local_p50: float
    local_p99: float
    leader_p50: float
    leader_p99: float
    epoch: float
    one_way: float
    stale: int
    """Reads that did not show a write acknowledged before they began."""


def replica_reads(
    cluster: LocalCluster,
    folder: Path,
    *,
    seconds: float,
    runs: int,
    begin: Begin,
) -> ReplicaReads:
    """Measure a lone node and a replica by turns."""
    replica = cluster.nodes_in(READER)[0]
    folder.mkdir()
    with own_folder("loads-", folder) as own, _lone(own, replica) as (lone, address):
        return _by_turns(cluster, replica, lone, address, own, seconds, runs, begin)


@contextlib.contextmanager
def _lone(folder: Path, like: ClusterNode) -> Iterator[tuple[Child, str]]:
    """A node that is told the same as another one, but nothing of a cluster; and its address.

    It is started in the same way, too: the kernel shares a busy core out by sessions of processes.
    """
    said = {name: one for name, one in like.settings.items() if not name.startswith("cluster.")}
    said |= {"node.data": folder / DATA, "node.listen": "127.0.0.1:0", "admin.listen": ""}
    (folder / CONFIG).write_text(toml(said), encoding="utf-8")
    with Keeper() as keeper:
        child = Child(folder, folder / LOG, keeper)
        child.spawn(("--config", str(folder / CONFIG)))
        try:
            yield child, f"k2://{child.ready()['address']}"
        finally:
            child.terminate()
            child.ended()


def _by_turns(
    cluster: LocalCluster,
    replica: ClusterNode,
    lone: Child,
    address: str,
    folder: Path,
    seconds: float,
    runs: int,
    begin: Begin,
) -> ReplicaReads:
    cores = choose_cores()
    # Beside the replica, in its region: a client there crosses no emulated link.
    beside = partial(cluster.wan.command, READER)
    loads = [
        LoadProcess(KEYS, cores.load, folder),
        LoadProcess(KEYS, cores.load, folder, before=beside),
    ]
    before = os.sched_getaffinity(replica.process)
    try:
        for process in (replica.process, lone.number):
            _pin(process, {cores.server})
        loads[0].ask(Connect(address, lone.number, PROBE))
        loads[1].ask(Connect(f"k2://{replica.seat.address}", replica.process, PROBE))
        for load in loads:
            load.ask(Fill())
        measured: list[tuple[Measured, Measured]] = []
        for run in range(runs):
            begin(f"stale reads, run {run + 1}/{runs}", 2.5 * seconds)
            request = Measure("snapshot", IN_FLIGHT, seconds, seconds / 4)
            measured.append((loads[0].measure(request), loads[1].measure(request)))
    finally:
        _pin(replica.process, before)
        for load in loads:
            load.close()
    return ReplicaReads(
        alone_per_s=statistics.median(alone.per_s for alone, _ in measured),
        replica_per_s=statistics.median(other.per_s for _, other in measured),
        ratio=statistics.median(other.per_s / alone.per_s for alone, other in measured),
        alone_us=statistics.median(alone.server_us for alone, _ in measured),
        replica_us=statistics.median(other.server_us for _, other in measured),
        ratio_cpu=statistics.median(alone.server_us / other.server_us for alone, other in measured),
        runs=runs,
        others_cores_max=max(one.others_cores for pair in measured for one in pair),
    )


def _pin(process: int, cores: set[int]) -> None:
    """Let every thread of a process run on these cores only."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


async def strong_reads(cluster: LocalCluster, count: int) -> StrongReads:
    """Strong reads in a region far from home, while the home writes."""
    key, at_home = b"a/strong", 0
    local_ns: list[int] = []
    leader_ns: list[int] = []
    stale = 0
    async with (
        cluster.connect(HOME, timeout="60s") as home,
        cluster.connect(READER, timeout="60s") as away,
    ):
        over = asyncio.Event()

        async def write() -> None:
            nonlocal at_home
            while not over.is_set():
                await home.put(key, b"%d" % (at_home + 1))
                at_home += 1
                await asyncio.sleep(WRITES_PAUSE_S)

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            for _ in range(count):
                for local, taken_ns in ((True, local_ns), (False, leader_ns)):
                    acknowledged, began_ns = at_home, time.perf_counter_ns()
                    async with away.snapshot(strong=True, local=local) as view:
                        found = int(await view.get(key) or 0)
                    taken_ns.append(time.perf_counter_ns() - began_ns)
                    stale += found < acknowledged
            over.set()
    local_ns.sort()
    leader_ns.sort()
    return StrongReads(
        local_p50=quantile(local_ns, 0.5) / 1e6,
        local_p99=quantile(local_ns, 0.99) / 1e6,
        leader_p50=quantile(leader_ns, 0.5) / 1e6,
        leader_p99=quantile(leader_ns, 0.99) / 1e6,
        epoch=EPOCH_MS,
        one_way=cluster.wan.rule(HOME, READER).delay_s * 1000,
        stale=stale,
    )
