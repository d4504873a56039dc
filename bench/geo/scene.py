"""The cluster that is measured: three regions, keyspaces of every kind, several partitions each."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Literal, NamedTuple

from bench.processes import BenchError
from k2store.testing.child import K2
from k2store.testing.cluster import LocalCluster, local_cluster
from k2store.testing.wan import Kind
from k2store.v1 import admin_pb2

REGIONS: Final = ("fra", "iad", "sin")
KEYSPACES: Final = ("default:zone:fra", "sin:zone:sin", "all:region:fra")
HOMES: Final = ("fra", "sin")
SPLITS: Final = (b"sin/m", b"all/m")
"""Where further partitions begin; `default` has several, for the other two lie inside it."""

CLOCK_BOUND_MS: Final = 0.5
EPOCH_MS: Final = 100.0
READY_S: Final = 60.0
LOOK_S: Final = 0.1

WanKind = Kind | Literal["auto"]


class Place(NamedTuple):
    """From where to where: a client's region, and the keyspace whose keys it uses.

    parts   prefixes of keys in two different partitions of the keyspace
    """

    name: str
    viewer: str
    keyspace: str
    parts: tuple[bytes, bytes]


_DEFAULT: Final = (b"a/", b"x/")
_SIN: Final = (b"sin/a/", b"sin/x/")
_ALL: Final = (b"all/a/", b"all/x/")

PLACES: Final = (
    Place("zone, at home in fra", "fra", "default", _DEFAULT),
    Place("zone, from iad", "iad", "default", _DEFAULT),
    Place("zone, from sin", "sin", "default", _DEFAULT),
    Place("other zone, at home in sin", "sin", "sin", _SIN),
    Place("other zone, from fra", "fra", "sin", _SIN),
    Place("region, at home in fra", "fra", "all", _ALL),
    Place("region, from iad", "iad", "all", _ALL),
    Place("region, from sin", "sin", "all", _ALL),
)


def scene(wan: WanKind, folder: Path) -> AbstractContextManager[LocalCluster]:
    """The cluster of the measurements, for ``with``; `arrange` belongs after it."""
    return local_cluster(
        REGIONS,
        wan=wan,
        tls=False,
        path=folder,
        keyspaces=KEYSPACES,
        clock__bound=f"{CLOCK_BOUND_MS * 1000:g}us",
        cluster__close_interval=f"{EPOCH_MS:g}ms",
        storage__sync=True,
    )


def arrange(cluster: LocalCluster) -> None:
    """Split what shall be split, and wait until everybody has everything and homes lead."""
    for key in SPLITS:
        k2(cluster, "split", key.decode())
    homes = {b"": "fra-1", b"all/": "fra-1", b"sin/": "sin-1"}

    def led() -> bool:
        leaders = leaders_of(cluster)
        wanted = {
            start: homes[max(home for home in homes if start.startswith(home))]
            for start, _ in leaders
        }
        return len(leaders) >= len(SPLITS) + len(KEYSPACES) + 1 and all(
            wanted[start] == leader for start, leader in leaders
        )

    until("the homes lead", led)


def k2(cluster: LocalCluster, *words: str) -> str:
    """Run a verb of `k2` that asks the control plane; gives what it printed."""
    control = next(iter(cluster.nodes.values())).seat.address
    done = subprocess.run(
        [*K2, "--config", str(cluster.client_config()), *words, "--control", control, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"k2 {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def statuses(cluster: LocalCluster) -> dict[str, admin_pb2.GetStatusResponse]:
    """What each node that answers says of itself, by name."""
    return {look.node.name: look.status for look in cluster.look() if look.status is not None}


def leaders_of(cluster: LocalCluster) -> list[tuple[bytes, str]]:
    """First key and leader of each partition that has a leader."""
    return [
        (partition.start, name)
        for name, status in statuses(cluster).items()
        for partition in status.partitions
        if partition.replica.role == admin_pb2.REPLICA_ROLE_LEADER
    ]


def until(what: str, holds: Callable[[], bool], patience_s: float = READY_S) -> None:
    """Return when a condition holds; `BenchError` when it does not."""
    end_s = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > end_s:
            raise BenchError(f"after {patience_s:g} s it still did not hold that {what}")
        time.sleep(LOOK_S)
