"""A worker's blocks: which are there, the page of each, and room for more.

Room is made by asking the directory first: a block goes from its slot only when no claim covers it. While that is
asked a block is *leaving*: it is not used any more, and whoever needs it waits until it is known whether it goes.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from typing import Final

import k2store
from kv_pool.blocks import NAME_BYTES, Names, split_names
from kv_pool.edge.refusals import Denied
from kv_pool.edge.session import WorkerSession
from kv_pool.pool.block_pool import BlockPool, Slot
from kv_pool.pool.eviction import LeastRecent
from kv_pool.records import Tier

TIER: Final = Tier.HOST
"""A tier that asks before it evicts."""
BATCH_BLOCKS: Final = 64
"""How many blocks are asked about at a time, at least."""
STAY_S: Final = 3.0
"""Before the directory is asked again about a block that was claimed."""
CHURN_S: Final = 5.0
"""Over how long evictions are counted to say how fast blocks go."""
_PAGE_TAG: Final = b"k2.demo.page"


def page_of(name: bytes) -> bytes:
    """The content of a block, in place of what a model would have computed."""
    return hashlib.sha256(_PAGE_TAG + name).digest()


class Shelf:
    """See the module."""

    def __init__(self, session: WorkerSession, slots: int) -> None:
        self._session = session
        self._pool = BlockPool([(slots, LeastRecent())])
        self._slots = slots
        self._pages: dict[int, bytes] = {}
        self._leaving: set[bytes] = set()
        self._left = asyncio.Condition()
        self._making_room = asyncio.Lock()
        self._staying: dict[bytes, float] = {}
        self._evictions: deque[tuple[float, int]] = deque()
        self.evicted = 0
        self.pinned = 0

    @property
    def free(self) -> int:
        """Free slots."""
        return self._pool.counts()[0][1]

    @property
    def blocks(self) -> int:
        """Blocks that are there."""
        return self._pool.counts()[0][0]

    @property
    def churn_per_s(self) -> float:
        """Share of the blocks that goes in a second, of late."""
        began_s = time.monotonic() - CHURN_S
        while self._evictions and self._evictions[0][0] < began_s:
            self._evictions.popleft()
        return sum([count for _, count in self._evictions]) / CHURN_S / max(1, self.blocks)

    async def hold(self, names: Names) -> tuple[Slot, ...]:
        """Keep what is there of a prompt's beginning until it is let go."""
        await self._settled(names)
        return self._pool.hold(names)

    def let_go(self, names: Names, slots: tuple[Slot, ...]) -> None:
        """Give back what `hold` gave."""
        self._pool.let_go(names, slots)

    async def put(self, names: Names) -> tuple[Slot, ...]:
        """Have the blocks of a prompt, as many as room can be made for, and hold them."""
        await self._settled(names)
        missing = len(names) // NAME_BYTES - self._pool.depth(names)
        if missing > self.free:
            # What is there of the prompt makes no room for the rest.
            held = self._pool.hold(names)
            try:
                await self._make_room(missing)
            finally:
                self._pool.let_go(names, held)
            await self._settled(names)
        missing = len(names) // NAME_BYTES - self._pool.depth(names)
        beyond = max(0, missing - self.free)
        kept = names[: len(names) - beyond * NAME_BYTES]
        put = self._pool.put(kept)
        assert not put.gone, "room was made before"
        for name, slot in zip(split_names(kept), put.slots, strict=True):
            self._pages[slot.number] = page_of(name)
        return self._pool.hold(kept)

    def pages(self, names: Names) -> list[bytes]:
        """Pages of the blocks, from the first on as far as they are there."""
        pages = []
        for name in split_names(names):
            slot = self._pool.find(name)
            if slot is None or name in self._leaving:
                break
            pages.append(self._pages[slot.number])
        return pages

    def slots_of(self, names: Names) -> list[int]:
        """Where blocks lie, for the journal; one that is not there has none."""
        found = [self._pool.find(name) for name in split_names(names)]
        return [slot.number for slot in found if slot is not None]

    async def _settled(self, names: Names) -> None:
        """Return when none of the blocks is leaving; nothing happens between that and the return."""
        wanted = set(split_names(names))
        while not wanted.isdisjoint(self._leaving):
            async with self._left:
                await self._left.wait()

    async def _make_room(self, blocks: int) -> None:
        """Have so many free slots, if claims and the directory allow."""
        async with self._making_room:
            wanted = min(blocks, self._slots) - self.free
            if wanted <= 0:
                return
            self._staying = {
                name: until_s
                for name, until_s in self._staying.items()
                if until_s > time.monotonic()
            }
            count = max(wanted, BATCH_BLOCKS) + len(self._staying)
            leaving = [name for name in self._pool.next_to_go(count) if name not in self._staying]
            if not leaving:
                return
            self._leaving.update(leaving)
            stays: set[bytes] = set()
            try:
                evicted = await self._session.evict(TIER, b"".join(leaving))
                stays.update(split_names(evicted.pinned))
            except (k2store.Unavailable, k2store.Deadline, k2store.OutcomeUnknown, Denied):
                # What the directory has been asked to drop and did not say it has stays for now.
                pass
            finally:
                gone = 0
                for name in leaving:
                    if name not in stays and not self._session.has(TIER, name):
                        gone += self._pool.drop(name, 0) is not None
                self.evicted += gone
                self.pinned += len(stays)
                self._staying |= dict.fromkeys(stays, time.monotonic() + STAY_S)
                self._evictions.append((time.monotonic(), gone))
                self._leaving.difference_update(leaving)
                async with self._left:
                    self._left.notify_all()
