"""At rest: one leader a partition, logs of equal hashes, and the same rows in every node.

A node says how far it has applied each log, and the hash over all entries up to there. Logs go on
growing a little while nobody writes, so nodes are asked again until all of them have been seen at
the same entry; two hashes at one entry are a difference, whenever they were seen. Then every node is
asked for everything at one stamp, and must answer out of its own copies.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

import k2store
from jepsen_like.sim.stage import persistently
from k2store.testing.cluster.told import REPLICA_ROLE_LEADER

if TYPE_CHECKING:
    from jepsen_like.nemesis.world import World
    from k2store.testing.cluster.told import GetStatusResponse

LOOK_S: Final = 0.2
REST_S: Final = 60.0


class Rest(msgspec.Struct):
    """What nodes were like at rest."""

    problems: list[str] = []
    partitions: int = 0
    log_hashes: dict[int, str] = {}
    """Of each partition the hash that all its replicas have at one entry."""
    state_hashes: dict[str, str] = {}
    """Of each node the hash over all rows at one stamp."""
    rows: int = 0


class Points:
    """At which entries nodes have been seen, and with which hash."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], dict[str, bytes]] = {}
        self.problems: list[str] = []

    def see(self, node: str, status: GetStatusResponse) -> None:
        """Take what a node says of its replicas; one hash that differs is a problem."""
        for one in status.partitions:
            place = (one.partition, one.replica.applied)
            here = self._seen.setdefault(place, {})
            for other, known in here.items():
                if known != one.replica.applied_hash:
                    self.problems.append(
                        f"partition {place[0]}: the logs of {node} and {other} differ up to entry "
                        f"{place[1]}"
                    )
                    break
            here[node] = one.replica.applied_hash

    def common(self, partition: int, nodes: int, mark: int) -> bytes | None:
        """The hash at an entry from `mark` on at which so many nodes have been seen."""
        for (number, lsn), here in self._seen.items():
            if number == partition and lsn >= mark and len(here) == nodes:
                return next(iter(here.values()))
        return None


async def at_rest(world: World) -> Rest:
    """Wait for it, and look. What never comes to rest is among the problems."""
    rest = Rest(problems=[], log_hashes={}, state_hashes={})
    loop = asyncio.get_running_loop()
    points, until_s = Points(), loop.time() + REST_S
    marks: dict[int, int] = {}
    while True:
        statuses = await asyncio.to_thread(world.statuses)
        for node, status in statuses.items():
            points.see(node, status)
        open_ = _unsettled(world, statuses)
        if not marks and len(statuses) == len(world.cluster.nodes):
            for status in statuses.values():
                for one in status.partitions:
                    marks[one.partition] = max(marks.get(one.partition, 0), one.replica.applied)
        if not open_ and marks:
            found = {
                number: points.common(number, len(world.cluster.nodes), mark)
                for number, mark in marks.items()
            }
            open_ = [
                f"partition {number}: the replicas were never seen at one entry"
                for number, digest in found.items()
                if digest is None
            ]
            if not open_:
                rest.log_hashes = {
                    number: digest.hex() for number, digest in found.items() if digest is not None
                }
                break
        if points.problems or loop.time() > until_s:
            break
        await asyncio.sleep(LOOK_S)
    rest.partitions = len(marks)
    rest.problems += points.problems or [f"not at rest: {what}" for what in open_]
    return rest


def _unsettled(world: World, statuses: dict[str, GetStatusResponse]) -> list[str]:
    silent = sorted(set(world.cluster.nodes) - set(statuses))
    if silent:
        return [f"{name} does not answer" for name in silent]
    found = [
        f"{name} is {status.state}"
        for name, status in statuses.items()
        if status.state != "SERVING"
    ]
    if len({status.cluster.map_version for status in statuses.values()}) > 1:
        found.append("not all nodes know the same map")
    found += [f"{name} is copying" for name, one in statuses.items() if one.cluster.copying]
    held = {name: {one.partition for one in it.partitions} for name, it in statuses.items()}
    every = set().union(*held.values())
    for number in sorted(every):
        leaders = [
            name
            for name, status in statuses.items()
            for one in status.partitions
            if one.partition == number and one.replica.role == REPLICA_ROLE_LEADER
        ]
        if len(leaders) != 1:
            found.append(f"partition {number} is led by {leaders or 'nobody'}")
        found += [
            f"{name} does not hold partition {number}"
            for name, some in held.items()
            if number not in some
        ]
    return found


async def read_everywhere(world: World, rest: Rest, at: int) -> None:
    """Have every node show everything at a stamp; what differs is among the problems."""
    before = await asyncio.to_thread(world.statuses)
    nodes = list(world.cluster.nodes.values())
    shown = await asyncio.gather(*(_show(world, node.seat.address, at) for node in nodes))
    for node, rows in zip(nodes, shown, strict=True):
        rest.state_hashes[node.name] = _hash(rows)
        rest.rows = len(rows)
        if rows != shown[0]:
            differing = sorted(set(map(_plain, rows)) ^ set(map(_plain, shown[0])))
            rest.problems.append(
                f"at {at} {node.name} and {nodes[0].name} show other rows: {differing[:3]}"
            )
    after = await asyncio.to_thread(world.statuses)
    for name, status in after.items():
        asked = status.cluster.forwarded - before[name].cluster.forwarded
        if name in before and asked > 0:
            rest.problems.append(f"{name} asked others {asked} times for what is final")


async def _show(world: World, address: str, at: int) -> list[k2store.Record]:
    async def ask() -> list[k2store.Record]:
        async with (
            k2store.connect(f"k2://{address}", tls=world.cluster.tls) as database,
            database.snapshot(at=at) as view,
        ):
            return await view.scan(k2store.EVERYTHING).all()

    return await persistently(ask)


def _plain(row: k2store.Record) -> tuple[bytes, int, bytes]:
    return row.key, row.version, row.value


def _hash(rows: list[k2store.Record]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(msgspec.msgpack.encode(_plain(row)))
    return digest.hexdigest()
