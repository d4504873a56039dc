"""The control plane's ear and voice in a node: newer maps in, wishes for epochs out.

Nothing else of a node ever waits for the control plane. The last map is kept on disk, so that a
node can start, follow and be read while the control plane is away; only a new leader needs it, so
no lead is handed over unless it answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Final

from k2store.control.map import Map
from k2store.control.ports import Control, change
from k2store.control.transitions import promoted, split, stopped
from k2store.errors import K2Error
from k2store.node.cluster import placing
from k2store.storage import StorageFailed

if TYPE_CHECKING:
    from k2store.node.cluster.host import ClusterHost

TROUBLE_S: Final = 1.0
"""Between two attempts to follow a map that was refused or could not be read."""

REPORTS_S: Final = 3.0
"""How long an automatic promotion waits for what other nodes have seen."""
LOOK_S: Final = 0.05


class Agent:
    """Follows the map and asks for epochs, for one host."""

    def __init__(
        self,
        control: Control,
        host: ClusterHost,
        *,
        keep: Callable[[Map], None] | None = None,
        trouble: Callable[[str], None] | None = None,
    ) -> None:
        """`keep` is called with every newer map, before it holds; `trouble` is told why the map
        cannot be followed now, when that is more than a lost connection.
        """
        self._control = control
        self._host = host
        self._keep = keep
        self._trouble = trouble
        self._asking: dict[int, asyncio.Task[None]] = {}
        self._following: asyncio.Task[None] | None = None
        self.epochs = 0
        self.refused = 0
        self._splitting: dict[int, asyncio.Task[None]] = {}
        self._promoting: dict[str, asyncio.Task[None]] = {}
        self._handing: dict[int, asyncio.Task[None]] = {}
        host.want_epoch = self._want
        host.want_split = self._want_split
        host.want_hand_over = self._want_hand_over
        host.want_promotion = self._want_promotion
        host.want_cut = self._want_cut

    def start(self, known: Map | None = None) -> None:
        """Take the map that is known already, and follow the newer ones."""
        if known is not None:
            self._host.set_map(known)
        self._following = asyncio.get_running_loop().create_task(self._follow())

    def stop(self) -> None:
        """Follow no more."""
        for task in (
            self._following,
            *self._asking.values(),
            *self._splitting.values(),
            *self._handing.values(),
            *self._promoting.values(),
        ):
            if task is not None:
                task.cancel()

    async def _follow(self) -> None:
        while True:
            try:
                async for present in self._control.watch():
                    if not self._take(present):
                        return
                return  # The control plane was closed.
            except K2Error as error:
                # A revoked token, a damaged document: somebody has to mend it, not to restart us.
                if self._trouble is not None:
                    self._trouble(error.message)
                await asyncio.sleep(TROUBLE_S)

    def _take(self, present: Map) -> bool:
        """Let a newer map hold; False where the own disk refuses.

        The node ends then: deaf to newer maps, it would look alive for ever.
        """
        try:
            if self._keep is not None:
                self._keep(present)
            self._host.set_map(present)
        except (OSError, StorageFailed) as error:
            self._host.engine.fail(error)
            return False
        return True

    def _want(self, partition: int, above: int) -> None:
        if partition not in self._asking:
            task = asyncio.get_running_loop().create_task(self._ask(partition, above))
            self._asking[partition] = task

    def _want_split(self, partition: int, key: bytes) -> None:
        if partition not in self._splitting:
            task = asyncio.get_running_loop().create_task(self._split(partition, key))
            self._splitting[partition] = task

    async def _split(self, partition: int, key: bytes) -> None:
        try:
            await change(self._control, partial(split, partition=partition, key=key))
        except K2Error:
            self.refused += 1  # the next measurement asks again
        finally:
            self._splitting.pop(partition, None)

    def _want_hand_over(self, partition: int, heir: int) -> None:
        if partition not in self._handing:
            task = asyncio.get_running_loop().create_task(self._hand_over(partition, heir))
            self._handing[partition] = task

    async def _hand_over(self, partition: int, heir: int) -> None:
        """The heir will need an epoch, and nobody leads until it has one: look that it can.

        A leader that nobody replaces needs no control plane. It must not give that up for one that
        does while the control plane is away.
        """
        try:
            await self._control.load()
            placing.bequeath(self._host, partition, heir)
        except K2Error:
            self.refused += 1
            await asyncio.sleep(TROUBLE_S)  # and then the leader asks again
        finally:
            self._handing.pop(partition, None)

    # -- automatic promotion -----------------------------------------------------------------------

    def _want_promotion(self, keyspace: str, above: int) -> None:
        self._promote_with(keyspace, self._ask_incarnation(keyspace, above))

    def _want_cut(self, keyspace: str, incarnation: int) -> None:
        self._promote_with(keyspace, self._cut(keyspace, incarnation))

    def _promote_with(self, keyspace: str, step: Coroutine[None, None, None]) -> None:
        running = self._promoting.get(keyspace)
        if running is not None and not running.done():
            step.close()  # the lease wants it again
            return
        self._promoting[keyspace] = asyncio.get_running_loop().create_task(step)

    async def _ask_incarnation(self, keyspace: str, above: int) -> None:
        host = self._host
        assert host.map is not None, "who has no map has no voice"
        first = next(one.id for one in host.map.partitions if one.keyspace == keyspace)
        try:
            granted = await self._control.grant_epoch(
                first, host.node, host.engine.incarnation, above
            )
        except K2Error:
            self.refused += 1
            return
        host.promote(keyspace, granted)

    async def _cut(self, keyspace: str, incarnation: int) -> None:
        """The old home serves no more: stop its keyspace, find the cut, give it the best home."""
        try:
            present = await change(self._control, partial(stopped, keyspace=keyspace))
            home = present.keyspace(keyspace)
            assert home is not None, keyspace
            lost = home.home
            concerned = {one.id for one in present.partitions if one.keyspace == keyspace}
            best, cut = await self._best(present, lost, concerned)
            await change(
                self._control,
                partial(
                    promoted,
                    lost=lost,
                    home=present.region_of(best) or "",
                    cut=cut,
                    founder=best,
                    generation=incarnation,
                    only=keyspace,
                ),
            )
        except K2Error:
            self.refused += 1  # the voice wants a promotion again when it has heard nothing

    async def _best(self, present: Map, lost: str, concerned: set[int]) -> tuple[int, int]:
        """The node outside the lost region that has seen most of it, and up to which stamp."""
        host = self._host
        loop = asyncio.get_running_loop()
        until_s = loop.time() + REPORTS_S
        while True:
            seen = {node: report for node, (report, _) in host.reports.items()}
            seen[host.node] = host.report()
            usable = {
                node: min(report.safe[number] for number in concerned)
                for node, report in seen.items()
                if report.map_version >= present.version
                and present.region_of(node) not in (None, lost)
                and concerned <= report.safe.keys()
            }
            awaited = {
                one.id
                for one in present.nodes
                if one.region != lost and (one.id == host.node or host.links.to(one.id))
            }
            if usable and (awaited <= usable.keys() or loop.time() > until_s):
                return max(usable.items(), key=lambda one: (one[1], -one[0]))
            await asyncio.sleep(LOOK_S)

    async def _ask(self, partition: int, above: int) -> None:
        host = self._host
        try:
            epoch = await self._control.grant_epoch(
                partition, host.node, host.engine.incarnation, above
            )
        except K2Error:
            self.refused += 1  # the replica asks again when its patience is over
            return
        finally:
            self._asking.pop(partition, None)
        self.epochs += 1
        host.campaign(partition, epoch)
