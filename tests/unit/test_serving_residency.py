"""Blocks of a worker's device in the directory, while the directory cannot be asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import k2store
from k2store.testing import embedded
from kv_pool.blocks import ROOT_NAME
from kv_pool.edge.pool import Pool
from kv_pool.edge.session import WorkerSession
from kv_pool.keys import RUN
from kv_pool.pool.block_pool import Slot
from kv_pool.records import Tier
from kv_pool.shots import Committed, Done, Failed, Shot, Store, Transaction
from serving.instance.residency import Residency
from serving.pages.mem_pool import Block
from tests.integration.pool_worker import NAMESPACE, names

R = TypeVar("R")
TTL_S = 600.0


class Failing:
    """A store that cannot be asked for what changes runs, or loses the answers to that, for as often as is said."""

    def __init__(self, below: Store) -> None:
        self.below = below
        self.away = 0
        self.loses: Callable[[], Awaitable[None]] | None = None
        """What happens meanwhile, when the next answer is lost."""

    async def shoot(self, shot: Shot) -> Done | Failed:
        """Run it, unless it fails."""
        if not any(b"/" + RUN in key for key, _ in shot.writes):
            return await self.below.shoot(shot)
        if self.away:
            self.away -= 1
            raise k2store.Unavailable("nobody leads")
        if self.loses is not None:
            meanwhile, self.loses = self.loses, None
            await meanwhile()
            raise k2store.OutcomeUnknown("the answer was lost")
        return await self.below.shoot(shot)

    async def transact(self, function: Callable[[Transaction], Awaitable[R]]) -> Committed[R]:
        """As it is."""
        return await self.below.transact(function)


class Pages:
    """Pages that are held; implements `serving.instance.residency.Holding`."""

    page_tokens = 16

    def __init__(self) -> None:
        self.held: list[Slot] = []

    def hold(self, slots: Sequence[Slot]) -> None:
        """Keep them."""
        self.held += slots

    async def release(self, slots: Sequence[Slot]) -> None:
        """Let go."""
        for slot in slots:
            self.held.remove(slot)


def block(number: int) -> tuple[Block, Slot]:
    """A prompt of one block, and where it lies."""
    stored = Block(NAMESPACE, names(number), ROOT_NAME, 0, bytes(64))
    return stored, Slot(Tier.DEVICE, number, 1)


def play(scene: Callable[[Failing, WorkerSession, Residency, Pages], Awaitable[None]]) -> None:
    """Run a scene with room for two blocks in the directory."""
    ended: list[BaseException] = []

    async def main() -> None:
        async with embedded() as db, Pool(db, "fra") as pool:
            store = Failing(pool.store)
            pool.store = store
            async with pool.worker("w", ttl_s=TTL_S) as session:
                residency, pages = Residency(session, NAMESPACE, 2), Pages()
                residency.start(pages, ended.append)
                await scene(store, session, residency, pages)
                await residency.stop()

    asyncio.run(main())
    assert ended == []


def test_a_store_that_is_away_ends_no_worker() -> None:
    """Room is made when it is back: what could not be taken out of the directory is held until then."""

    async def scene(
        store: Failing, session: WorkerSession, residency: Residency, pages: Pages
    ) -> None:
        for number in (1, 2):
            residency.stored(*block(number))
        await asyncio.sleep(0)
        await residency.settled()
        residency.stored(*block(3))
        await asyncio.sleep(0.01)
        await residency.settled()
        assert residency.blocks == 2  # one has made room
        residency.stored(*block(4))
        store.away = 0
        await asyncio.sleep(0.01)
        await residency.settled()
        residency.stored(*block(5))
        store.away = 2  # the publish, and what would make room
        await asyncio.sleep(0.01)
        await residency.settled()
        assert len(pages.held) == residency.blocks == 3
        residency.stored(*block(6))
        await asyncio.sleep(0.01)
        await residency.settled()
        assert len(pages.held) == residency.blocks == 2

    play(scene)


def test_pages_of_a_publish_that_may_stand_are_held() -> None:
    """Refused when it was sent again, since the worker takes no new blocks by now; but the first copy may still
    come. When the worker takes blocks again it is published, and its page is held all the while."""

    async def scene(
        store: Failing, session: WorkerSession, residency: Residency, pages: Pages
    ) -> None:
        store.loses = session.drain
        residency.stored(*block(1))
        await asyncio.sleep(0.01)
        await residency.settled()
        assert session.has(Tier.DEVICE, names(1))
        assert len(pages.held) == residency.blocks == 1
        await session.resume()
        assert (await session.evict(Tier.DEVICE, names(1))).gone == names(1)

    play(scene)
