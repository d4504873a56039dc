"""Routers and workers of a run: `k2 fleet` as processes over a cluster, and how they are reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.demo.company import Company, Place, dialled, nodes_near, places, region_of
from bench.demo.member import Member
from bench.demo.real.plan import LEASE_S, MODEL, PAGES, Plan
from k2store.config.dial import dial_lines
from k2store.testing.child import K2
from k2store.testing.cluster import LocalCluster
from k2store.testing.keeper import Keeper

PREFILL_TOKENS_PER_S: Final = 150.0
"""What routers take a worker for: three of them share two cores."""


@contextmanager
def company(plan: Plan, cluster: LocalCluster, folder: Path) -> Iterator[Company]:
    """All of them over a cluster that runs, not started yet."""
    with Keeper() as keeper:
        scene = _Scene(plan, cluster, folder, keeper)
        routers = {region: scene.router(region) for region in plan.regions}
        workers = {name: scene.worker(name) for name in plan.workers}
        with Company(routers, workers, folder) as found:
            yield found


class _Scene:
    """Where everybody stands, and what they are told."""

    def __init__(self, plan: Plan, cluster: LocalCluster, folder: Path, keeper: Keeper) -> None:
        self._plan = plan
        self._cluster = cluster
        self._folder = folder
        self._keeper = keeper
        routers = [_router_of(region) for region in plan.regions]
        self._http = places(cluster, [*routers, *plan.workers])
        self._pages = places(cluster, plan.workers, len(self._http))
        self._dial = {region: self._dial_file(region) for region in plan.regions}

    def router(self, region: str) -> Member:
        """The router of a region."""
        name = _router_of(region)
        said = ["router", "--region", region, "--listen", self._http[name].listen]
        said += ["--prefill-rate", f"{PREFILL_TOKENS_PER_S:g}"]
        return self._member(name, said, self._http[name])

    def worker(self, name: str) -> Member:
        """A worker."""
        pages = self._pages[name]
        said = ["worker", "--worker", name, "--regions", ",".join(self._plan.regions)]
        said += ["--listen", self._http[name].listen, "--pages-at", pages.listen]
        said += ["--advertise", pages.real.rpartition(":")[0], "--no-shared-memory"]
        said += ["--pages", str(PAGES), "--lease", f"{LEASE_S:g}", "--threads", "1"]
        return self._member(name, said, self._http[name])

    def _member(self, name: str, said: Sequence[str], place: Place) -> Member:
        region = region_of(name)
        plain = self._folder / name.replace("/", "-")
        nodes = nodes_near(self._cluster, region)
        command = [
            *self._cluster.wan.command(region, []),
            *(*K2, "fleet", *said, "--model", MODEL, "--json"),
            *("--address", ",".join(nodes), "--dial", str(self._dial[region])),
            *("--journal", f"{plain}.journal"),
        ]
        return Member(name, command, Path(f"{plain}.log"), self._keeper, place.outside)

    def _dial_file(self, viewer: str) -> Path:
        """Where workers of a region dial those of others."""
        through = {}
        for name, place in self._pages.items():
            address = dialled(self._cluster, viewer, name, place)
            if address != place.real:
                through[place.real] = address
        path = self._folder / f"{viewer}.dial"
        path.write_text(dial_lines(through), encoding="utf-8")
        return path


def _router_of(region: str) -> str:
    return f"{region}/router"
