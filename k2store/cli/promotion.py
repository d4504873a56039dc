"""The steps of `k2 regions promote`: declare off, freeze, find the cut, give the new home its logs.

::

    map: LOST is off ──► surviving nodes take nothing from it any more, and say so (map version)
    each says how far the lost home's partitions are final there
    cut = what the best node of the new home has of all of them
    map: new partitions, from that node's copies up to the cut ──► it leads, the others copy from it
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from k2store.errors import K2Error, Rejected, Unavailable
from truetime.timestamp import describe, time_ns

if TYPE_CHECKING:
    from k2store.config import Settings
    from k2store.control import Control, Map
    from k2store.v1 import admin_pb2

LOOK_S = 0.2


class Promotion(Struct, frozen=True):
    """What was done. `lost_ns` is the time whose acknowledged writes are gone at most."""

    lost: str
    home: str
    founder: str
    cut: int
    lost_ns: int
    partitions: list[int]
    map_version: int

    def document(self) -> dict[str, object]:
        """As `--json` prints it."""
        return msgspec.structs.asdict(self)

    def text(self) -> str:
        """For people."""
        if not self.partitions:
            return f"nothing that could be lost was at home in {self.lost}"
        return (
            f"{len(self.partitions)} partitions of {self.lost} go on in {self.home} (from "
            f"{self.founder}), as of {describe(self.cut)}; what {self.lost} acknowledged in its "
            f"last {self.lost_ns / 1e6:.0f} ms is lost"
        )


class Seen(Struct, frozen=True):
    """What one surviving node has of the lost home."""

    node: int
    name: str
    region: str
    safe: int
    now_ns: int


async def promote_region(
    opened: AbstractAsyncContextManager[Control],
    settings: Settings,
    lost: str,
    home: str | None,
    timeout_s: float,
) -> Promotion:
    """All steps; may be called again after a failure in the middle."""
    from k2store.control import change, promoted, with_region

    async with opened as control:
        present = await control.load()
        if present.region(lost) is None:
            raise Rejected(f"no region is called {lost}", field="lost")
        concerned = _concerned(present, lost)
        if not concerned:
            return Promotion(lost, home or "", "", 0, 0, [], present.version)
        present = await change(control, lambda one: with_region(one, lost, off=True))
        best = _best(await _survivors(present, settings, lost, concerned, timeout_s), home)
        after = await change(
            control, lambda one: promoted(one, lost, best.region, best.safe, best.node)
        )
        return Promotion(
            lost,
            best.region,
            best.name,
            best.safe,
            max(0, best.now_ns - time_ns(best.safe)),
            [one.id for one in after.partitions if one.origin in concerned and one.cut],
            after.version,
        )


def _concerned(present: Map, lost: str) -> set[int]:
    keyspaces = {
        one.name for one in present.keyspaces if one.home == lost and one.survive == "zone"
    }
    return {one.id for one in present.partitions if one.keyspace in keyspaces}


def _best(seen: list[Seen], home: str | None) -> Seen:
    fitting = [one for one in seen if home is None or one.region == home]
    if not fitting:
        raise Unavailable(
            f"no node of {home or 'another region'} could be asked what it has seen; nothing was "
            "promoted, and the lost region stays declared off"
        )
    return max(fitting, key=lambda one: one.safe)


async def _survivors(
    present: Map, settings: Settings, lost: str, concerned: set[int], timeout_s: float
) -> list[Seen]:
    """Ask every node of the other regions, until all that can be reached know of the loss."""
    nodes = [one for one in present.nodes if one.region != lost]
    loop = asyncio.get_running_loop()
    until_s = loop.time() + timeout_s
    while True:
        seen: list[Seen] = []
        behind: list[str] = []
        for node in nodes:
            try:
                told = await asyncio.to_thread(_status, settings, node.address)
            except K2Error:
                continue  # another survivor that is away; what it has does not count
            if told.cluster.map_version < present.version:
                behind.append(node.name)
                continue
            held = [one.safe for one in told.partitions if one.partition in concerned]
            if len(held) == len(concerned):
                seen.append(Seen(node.id, node.name, node.region, min(held), told.clock.hi_ns))
        if not behind and seen:
            return seen
        if loop.time() > until_s:
            raise Unavailable(
                f"these nodes have not heard of the loss of {lost} after {timeout_s:g} s: "
                f"{', '.join(behind) or 'none could be asked'}; nothing was promoted"
            )
        await asyncio.sleep(LOOK_S)


def _status(settings: Settings, address: str) -> admin_pb2.GetStatusResponse:
    from k2store.cli.remote import admin

    client = msgspec.structs.replace(settings.client, endpoint=f"k2://{address}")
    with admin(msgspec.structs.replace(settings, client=client)) as remote:
        return remote.status()
