"""The processes of a replay over its cluster: where they stand, what they are told, and how they are asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bench.demo.company import Company, Place, dialled, nodes_near, places, region_of
from bench.demo.member import Member
from bench.demo.simulated.messages import Message, Setting
from bench.demo.simulated.plan import TTL_S, Plan
from bench.demo.simulated.wire import Peer, refuse
from k2store.testing.cluster import LocalCluster

WORKER: Final = "bench.demo.simulated.worker"
ROUTER: Final = "bench.demo.simulated.router"


class Cast(NamedTuple):
    """Everybody, and the connection to each by name."""

    company: Company
    peers: dict[str, Peer]

    async def ask(self, member: Member, message: Message) -> Message:
        """What a router or a worker answers."""
        return await self.peers[member.name].ask(message)

    async def hang_up(self) -> None:
        """End all connections."""
        for peer in self.peers.values():
            await peer.close()


@contextmanager
def cast(plan: Plan, cluster: LocalCluster, folder: Path, namespace: bytes) -> Iterator[Cast]:
    """All of them over a cluster that runs, not started yet."""
    routers = {region: f"{region}/router" for region in plan.regions}
    stand = places(cluster, [*routers.values(), *plan.workers])

    def member(module: str, name: str) -> Member:
        setting = _setting(plan, cluster, folder, namespace, stand, module, name)
        command = [*cluster.wan.command(setting.region, []), sys.executable, "-m", module]
        log = folder / f"{_plain(name)}.log"
        return Member(name, command, log, msgspec.json.encode(setting), stand[name].outside)

    company = Company(
        {region: member(ROUTER, name) for region, name in routers.items()},
        {name: member(WORKER, name) for name in plan.workers},
        folder,
    )
    with company:
        yield Cast(company, {one.name: Peer(one.address, refuse) for one in company.members})


def _setting(
    plan: Plan,
    cluster: LocalCluster,
    folder: Path,
    namespace: bytes,
    stand: dict[str, Place],
    module: str,
    name: str,
) -> Setting:
    region = region_of(name)
    return Setting(
        name=name,
        region=region,
        regions=plan.regions,
        listen=stand[name].listen,
        endpoint=stand[name].real,
        client="k2://" + ",".join(nodes_near(cluster, region)),
        journal=str(folder / f"{_plain(name)}.journal"),
        namespace=namespace,
        speed=plan.speed,
        cost=plan.cost,
        ttl_s=TTL_S,
        slots=plan.pool_slots if module == WORKER else 0,
        policy=plan.policy if module == ROUTER else "",
        workers={one: dialled(cluster, region, one, stand[one]) for one in plan.workers},
    )


def _plain(name: str) -> str:
    return name.replace("/", "-")
