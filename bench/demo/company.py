"""Routers and workers, the processes of a run beside its nodes: where they answer, how they begin and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from bench.demo.member import Member
from k2store.testing.cluster import LocalCluster
from k2store.testing.cluster.local_cluster import free_ports

HOST_NUMBER: Final = 9
"""Of the address in a region's namespace at which these processes answer; nodes have lower ones."""
PORT: Final = 7600


class Company:
    """All of them, for ``with``: routers by region, workers by name. What was started is ended there."""

    def __init__(
        self, routers: dict[str, Member], workers: dict[str, Member], folder: Path
    ) -> None:
        self.routers = routers
        self.workers = workers
        self._folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for member in self.members:
            member.end()
        for member in self.members:
            member.reap()

    @property
    def members(self) -> list[Member]:
        """Routers and workers."""
        return [*self.routers.values(), *self.workers.values()]

    async def start(self) -> None:
        """Start all of them side by side."""
        for member in self.members:
            member.spawn()
        await asyncio.gather(*[member.ready() for member in self.members])

    def journals(self) -> list[Path]:
        """What everybody has taken down in the run's folder."""
        return sorted(self._folder.glob("*.journal"))


class Place(NamedTuple):
    """Where a process listens, and where it is dialled by its region and by whoever runs the demo."""

    listen: str
    real: str
    outside: str


def region_of(name: str) -> str:
    """Of a router or a worker, which are called ``region/...``."""
    return name.partition("/")[0]


def places(cluster: LocalCluster, names: Sequence[str], taken: int = 0) -> dict[str, Place]:
    """A place for each name in its region; `taken`: how many were given before."""
    wan = cluster.wan
    found = {}
    if wan.kind == "proxy":
        for name, port in zip(names, free_ports(len(names)), strict=True):
            real = f"127.0.0.1:{port}"
            wan.place(region_of(name), real)
            found[name] = Place(real, real, real)
        return found
    for number, name in enumerate(names, start=PORT + taken):
        real = f"{wan.host(region_of(name), HOST_NUMBER)}:{number}"
        found[name] = Place(f"0.0.0.0:{number}", real, wan.address(region_of(name), real))
    return found


def dialled(cluster: LocalCluster, viewer: str, name: str, place: Place) -> str:
    """Where those of a region reach a process: through the emulated ocean, if it is in another one."""
    wan = cluster.wan
    if wan.kind == "namespaces" or viewer == region_of(name):
        return place.real
    return wan.address(viewer, place.real)


def nodes_near(cluster: LocalCluster, region: str) -> list[str]:
    """Addresses of the nodes that processes of a region speak with: its own, which forward what is led elsewhere.

    A client that has gone over to another region's node would stay there, an ocean away from its blocks.
    """
    return [node.seat.address for node in cluster.nodes_in(region)]
