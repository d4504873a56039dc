"""A control plane in memory, for tests and the simulator: the same answers, nothing kept.

::

    shared = MemoryPlane()
    first, second = MemoryControl(shared), MemoryControl(shared)  # one for each node
    second.away = True  # as if its connection were cut

It needs no clock and no network: who cannot reach it is told so at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from k2store.control.map import Map
from k2store.control.ports import check_grant, check_update
from k2store.errors import Unavailable


class MemoryPlane:
    """What all handles share: the map and the last epoch of each partition."""

    def __init__(self) -> None:
        self.map = Map()
        self.epochs: dict[int, int] = {}
        self.granted: list[tuple[int, int, int, bytes]] = []
        """Every grant, as partition, epoch, node and incarnation, for tests to look at."""
        self.changed = asyncio.Event()

    def stir(self) -> None:
        """Wake everybody who waits for news."""
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryControl:
    """See :class:`k2store.control.ports.Control`; one handle on a shared plane."""

    def __init__(self, plane: MemoryPlane | None = None) -> None:
        self.plane = MemoryPlane() if plane is None else plane
        self.refused = 0
        """Calls that did not reach it."""
        self._away = False
        self._closed = False

    @property
    def away(self) -> bool:
        """Whether calls through this handle fail and its watches hear nothing."""
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        self._away = away
        self.plane.stir()

    async def load(self) -> Map:
        """The present map."""
        await self._reach("load")
        return self.plane.map

    async def update(self, wanted: Map) -> None:
        """Store the next map."""
        await self._reach("update")
        check_update(self.plane.map, wanted)
        self.plane.map = wanted
        self.plane.stir()

    async def grant_epoch(self, partition: int, node: int, incarnation: bytes, above: int) -> int:
        """Grant the next epoch."""
        await self._reach("grant_epoch")
        check_grant(self.plane.map, partition, node, incarnation, above)
        epoch = max(above, self.plane.epochs.get(partition, 0)) + 1
        self.plane.epochs[partition] = epoch
        self.plane.granted.append((partition, epoch, node, incarnation))
        return epoch

    async def watch(self) -> AsyncIterator[Map]:
        """The present map and every newer one."""
        told = -1
        while not self._closed:
            changed = self.plane.changed
            if not self._away and self.plane.map.version > told:
                told = self.plane.map.version
                yield self.plane.map
                continue
            await changed.wait()

    async def close(self) -> None:
        """End the watches of this handle."""
        self._closed = True
        self.plane.stir()

    async def _reach(self, what: str) -> None:
        await asyncio.sleep(0)  # A call is a place where others may run, as it is elsewhere.
        if self._away or self._closed:
            self.refused += 1
            why = "it was closed" if self._closed else "it cannot be reached"
            raise Unavailable(f"the control plane did not answer {what}: {why}")
