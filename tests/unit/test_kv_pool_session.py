"""Publishes of which a session does not know what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

import k2store
from k2store.testing import embedded
from kv_pool import keys
from kv_pool.directory import membership
from kv_pool.edge.pool import Pool
from kv_pool.records import Tier
from kv_pool.shots import Committed, Done, Failed, Shot, Store, Transaction
from tests.integration.pool_worker import NAMESPACE, names

R = TypeVar("R")
TTL_S = 600.0
HOUR_NS = 3_600 * 10**9


class Doubtful:
    """A store that loses its answers to some one-shots that write runs, before it does them or after."""

    def __init__(self, below: Store) -> None:
        self.below = below
        self.loses = 0
        self.does = True
        self.under_way = self.at_once = 0

    async def shoot(self, shot: Shot) -> Done | Failed:
        """Run it, and perhaps say nothing of it."""
        publishes = any(b"/" + keys.RUN in key and value for key, value in shot.writes)
        if not publishes:
            return await self.below.shoot(shot)
        self.under_way += 1
        self.at_once = max(self.at_once, self.under_way)
        try:
            await asyncio.sleep(0.01)
            lost, self.loses = self.loses > 0, max(0, self.loses - 1)
            done = None if lost and not self.does else await self.below.shoot(shot)
            if lost or done is None:
                raise k2store.OutcomeUnknown("the answer was lost")
            return done
        finally:
            self.under_way -= 1

    async def transact(self, function: Callable[[Transaction], Awaitable[R]]) -> Committed[R]:
        """As it is."""
        return await self.below.transact(function)


def test_what_is_in_doubt_while_a_lease_has_run_out_is_not_forgotten() -> None:
    """A publish stands of which nobody was told, and cannot be sent again without a lease. The session
    finds it, so that its blocks can be evicted: their places are not used for others before."""

    async def scene() -> None:
        async with embedded() as db, Pool(db, "fra") as pool:
            pool.store = store = Doubtful(pool.store)
            async with pool.worker("w", ttl_s=TTL_S) as worker:
                store.loses = 3
                with pytest.raises(k2store.OutcomeUnknown):
                    await worker.publish(NAMESPACE, names(1, 2), Tier.HOST)
                row = keys.run(worker.worker, NAMESPACE, Tier.HOST, names(1))
                assert await db.get(row) is not None
                await membership.renew(store, worker.registration, 0)
                assert (await worker.evict(Tier.HOST, names(1, 2))).gone == names(1, 2)
                assert await db.get(row) is None

    asyncio.run(scene())


def test_what_is_in_doubt_is_sent_by_one_at_a_time() -> None:
    """Several who need to know make one of them ask: of two answers one might be a refusal, after which the session
    would forget what the other one says is there."""

    async def scene() -> None:
        async with embedded() as db, Pool(db, "fra") as pool:
            pool.store = store = Doubtful(pool.store)
            async with pool.worker("w", ttl_s=TTL_S) as worker:
                store.does, store.loses = False, 3
                with pytest.raises(k2store.OutcomeUnknown):
                    await worker.publish(NAMESPACE, names(1, 2), Tier.HOST)
                evicted = await asyncio.gather(
                    *[worker.evict(Tier.HOST, names(3)) for _ in range(5)]
                )
                assert {one.gone for one in evicted} == {b""}
                assert store.at_once == 1
                assert worker.blocks == 2
                assert (await worker.evict(Tier.HOST, names(1, 2))).gone == names(1, 2)

    asyncio.run(scene())


def test_a_refusal_of_the_second_copy_is_not_taken_for_one_of_the_first() -> None:
    """A publish stands of which nobody was told; sent again it is refused, since the worker takes no new blocks
    by now. The session finds what stands, and evicts it."""

    async def scene() -> None:
        async with embedded() as db, Pool(db, "fra") as pool:
            pool.store = store = Doubtful(pool.store)
            async with pool.worker("w", ttl_s=TTL_S) as worker:
                store.loses = 3
                with pytest.raises(k2store.OutcomeUnknown):
                    await worker.publish(NAMESPACE, names(1, 2), Tier.HOST)
                await worker.drain()
                evicted = await worker.evict(Tier.HOST, names(1, 2))
                assert evicted.gone == names(1, 2)
                row = keys.run(worker.worker, NAMESPACE, Tier.HOST, names(1))
                assert await db.get(row) is None
                assert worker.blocks == 0

    asyncio.run(scene())


def test_what_never_took_stays_in_doubt_while_it_is_refused_for_now() -> None:
    """Neither is it given back as gone, which a late copy could prove wrong, nor does it keep others from being
    evicted; when the worker takes blocks again it is published."""

    async def scene() -> None:
        async with embedded() as db, Pool(db, "fra") as pool:
            pool.store = store = Doubtful(pool.store)
            async with pool.worker("w", ttl_s=TTL_S) as worker:
                await worker.publish(NAMESPACE, names(9), Tier.HOST)
                store.does, store.loses = False, 3
                with pytest.raises(k2store.OutcomeUnknown):
                    await worker.publish(NAMESPACE, names(1, 2), Tier.HOST)
                await worker.drain()
                evicted = await worker.evict(Tier.HOST, names(1, 2, 9))
                assert evicted.gone == names(9)
                assert evicted.pinned == b""
                await worker.resume()
                assert (await worker.evict(Tier.HOST, names(1, 2))).gone == names(1, 2)

    asyncio.run(scene())


def test_what_was_in_doubt_when_its_tier_was_cleared_is_not_published_anew() -> None:
    """The blocks are gone: neither the copy that took nor a new one may say that they are there."""

    async def scene() -> None:
        async with embedded() as db, Pool(db, "fra") as pool:
            pool.store = store = Doubtful(pool.store)
            async with pool.worker("w", ttl_s=TTL_S) as worker, pool.learner() as tree:
                store.does, store.loses = False, 3
                with pytest.raises(k2store.OutcomeUnknown):
                    await worker.publish(NAMESPACE, names(1, 2), Tier.HOST)
                at = await worker.clear(Tier.HOST)
                assert (await worker.evict(Tier.HOST, names(1, 2))).gone == b""
                await tree.caught_up(at, timeout=10.0)
                assert tree.longest(NAMESPACE, names(1, 2)).blocks == 0
                assert worker.blocks == 0

    asyncio.run(scene())
