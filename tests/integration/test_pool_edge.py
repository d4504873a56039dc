"""Sessions of the pool against a real node process: members, claims, learners, deaths."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

import k2store
from k2store.testing import LocalNode, local_node
from kv_pool import keys
from kv_pool.edge.following import feeds_of
from kv_pool.edge.pool import Pool
from kv_pool.edge.refusals import Denied, Fenced
from kv_pool.keys import Worker
from kv_pool.namespace import Namespace
from kv_pool.records import Tier
from kv_pool.shots import Reason
from tests.integration.pool_worker import NAMESPACE, names

DEVICE, HOST = Tier.DEVICE, Tier.HOST


@pytest.fixture(scope="module")
def node() -> Iterator[LocalNode]:
    """A node process."""
    with local_node(clock__bound="200us") as running:
        yield running


@asynccontextmanager
async def opened(node: LocalNode, *workers: str, **options):
    """A pool in the region, its learner, and sessions of workers."""
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(node.connect())
        pool = await stack.enter_async_context(Pool(db, "fra"))
        tree = await stack.enter_async_context(pool.learner())
        sessions = [
            await stack.enter_async_context(pool.worker(name, **options)) for name in workers
        ]
        yield pool, tree, *sessions


@contextmanager
def worker_process(node: LocalNode, name: str, blocks: int, ttl_s: float) -> Iterator:
    """A worker in a process of its own; gives it when its blocks are published."""
    command = [sys.executable, "-m", "tests.integration.pool_worker", node.address, name]
    process = subprocess.Popen(
        [*command, str(blocks), str(ttl_s)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_chain_is_published_claimed_and_evicted(node: LocalNode) -> None:
    """New blocks of a prompt become known and known ones are skipped; what is claimed is not evicted,
    what is given back is."""

    async def scene() -> None:
        async with opened(node, "w1", endpoints=("tcp://here",)) as (pool, tree, worker):
            chain = await worker.publish(NAMESPACE, names(1, 2, 3), DEVICE)
            assert chain.new_blocks == 3
            assert (await worker.publish(NAMESPACE, names(1, 2, 3), DEVICE)).new_blocks == 0
            chain = await worker.publish(NAMESPACE, names(1, 2, 3, 4, 5), DEVICE)
            assert (chain.new_blocks, worker.blocks) == (2, 5)
            await tree.caught_up(chain.at)
            match = tree.match(NAMESPACE, names(1, 2, 3, 4, 5, 6))
            assert (match.blocks, match.holders[0].worker) == (5, worker.worker)
            assert tree.identity(worker.worker).endpoints == ("tcp://here",)
            cover = tree.cover(worker.worker, NAMESPACE, names(1, 2, 3, 4))
            async with pool.claim(cover, ttl_s=20) as claim:
                assert claim.blocks == 4
                assert pool.holds(claim)
                assert claim.token > chain.at
                evicted = await worker.evict(DEVICE, names(4, 5))
                assert (evicted.gone, evicted.pinned, worker.blocks) == (names(5), names(4), 4)
                evicted = await worker.evict(DEVICE, names(4))
                assert (evicted.gone, evicted.pinned, worker.blocks) == (b"", names(4), 4)
            with pytest.raises(Denied) as denied:
                await pool.acquire(_deeper(tree.cover(worker.worker, NAMESPACE, names(1, 2, 3, 4))))
            assert denied.value.reason is Reason.TOO_SHORT
            assert denied.value.blocks == 4
            assert denied.value.retry is k2store.Retry.NEVER
            again = await worker.publish(NAMESPACE, names(1, 2, 3, 4, 5), DEVICE)
            await tree.caught_up(again.at)
            assert tree.match(NAMESPACE, names(1, 2, 3, 4, 5)).blocks == 5
            with pytest.raises(k2store.Rejected):
                await worker.publish(NAMESPACE, names(9), DEVICE, parent=names(8))

    asyncio.run(scene())


def _deeper(cover):
    """A cover that believes in one block more than there is in its last row."""
    import msgspec

    last = cover.pieces[-1]
    run = msgspec.structs.replace(
        last.run, names=last.run.names + names(77), live=last.run.live + 1
    )
    piece = msgspec.structs.replace(last, blocks=last.blocks + 1, run=run)
    return msgspec.structs.replace(
        cover, blocks=cover.blocks + 1, pieces=(*cover.pieces[:-1], piece)
    )


def test_many_chains_at_once(node: LocalNode) -> None:
    """Chains that go behind one another wait for one another, others do not; all of them are there
    in the end, and the learner is a scan of the store."""

    async def scene() -> None:
        async with opened(node, "w2") as (pool, tree, worker):
            chains = [names(*range(100, 100 + end)) for end in range(5, 60, 5)]
            chains += [names(200 + way, *range(300, 310)) for way in range(40)]
            published = await asyncio.gather(
                *[worker.publish(NAMESPACE, chain, HOST) for chain in chains]
            )
            assert sum(one.new_blocks for one in published) == worker.blocks
            await tree.caught_up(max(one.at for one in published))
            for one in chains[:11]:
                assert tree.match(NAMESPACE, one).blocks == len(one) // 16
            async with pool.learner() as fresh:
                await tree.caught_up(fresh.as_of)
                assert fresh.counts().blocks == tree.counts().blocks
            await worker.clear(HOST)
            assert worker.blocks == 0
            chain = await worker.publish(NAMESPACE, chains[0], HOST)
            await tree.caught_up(chain.at)
            assert tree.match(NAMESPACE, chains[10]).blocks == 5
            assert await pool.sweep(worker.worker) > 40

    asyncio.run(scene())


def test_a_short_chain_goes_on_from_the_end_of_a_long_one(node: LocalNode) -> None:
    """A chain of several rows leaves as several transactions; what is published at the same moment behind
    the last of them waits for it, and is not refused because its predecessor is not there."""

    async def scene() -> None:
        async with opened(node, "long") as (_, tree, worker):
            long = range(10_000, 12_500)
            chains = await asyncio.gather(
                worker.publish(NAMESPACE, names(*long), DEVICE),
                worker.publish(NAMESPACE, names(*long, 1, 2), DEVICE),
                worker.publish(NAMESPACE, names(*long[:2_400], 3), DEVICE),
            )
            assert [chain.new_blocks for chain in chains] == [2_500, 2, 1]
            await tree.caught_up(max(chain.at for chain in chains))
            assert tree.longest(NAMESPACE, names(*long, 1, 2)).blocks == 2_502

    asyncio.run(scene())


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_publish_whose_caller_is_cancelled_is_made_up_for(node: LocalNode, turns: int) -> None:
    """However far it had come: what the session's book has is in the directory with the next renewal, so
    that others can go on from it."""

    async def scene() -> None:
        async with opened(node, f"hasty-{turns}", ttl_s=0.6) as (_, tree, worker):
            long = range(20_000, 22_500)
            task = asyncio.create_task(worker.publish(NAMESPACE, names(*long), DEVICE))
            await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            await asyncio.sleep(0.5)
            chain = await worker.publish(NAMESPACE, names(*long, 7), DEVICE)
            assert chain.new_blocks == 1
            await tree.caught_up(chain.at)
            assert (
                tree.match(NAMESPACE, names(*long, 7)).depths[
                    tree.learner.holder(worker.worker, DEVICE)
                ]
                == 2_501
            )

    asyncio.run(scene())


def test_what_is_announced_is_not_handed_out(node: LocalNode) -> None:
    """A reservation is seen as under way and not matched; committed it is matched, aborted it is gone
    and may be announced anew."""

    async def scene() -> None:
        async with opened(node, "w3") as (_, tree, worker):
            prompt = names(400, 401)
            reserved = await worker.reserve(NAMESPACE, prompt, HOST, within_s=5)
            await tree.caught_up(reserved.stretches[0][2].at)
            assert tree.match(NAMESPACE, prompt).blocks == 0
            assert tree.learner.in_flight(NAMESPACE, prompt[:16])[0].worker == worker.worker
            await worker.abort(reserved)
            assert worker.blocks == 0
            reserved = await worker.reserve(NAMESPACE, prompt, HOST, within_s=5)
            chain = await worker.commit(reserved)
            await tree.caught_up(chain.at)
            assert tree.match(NAMESPACE, prompt).blocks == 2
            late = await worker.reserve(NAMESPACE, names(402), HOST, within_s=0.05)
            await asyncio.sleep(0.1)
            with pytest.raises(Denied) as denied:
                await worker.commit(late)
            assert denied.value.reason is Reason.CHANGED
            assert worker.blocks == 2

    asyncio.run(scene())


def test_a_killed_worker_is_fenced_and_nothing_of_it_can_be_claimed(node: LocalNode) -> None:
    """A worker killed with -9: while its lease runs nobody may fence it, then it is fenced by whoever
    looks; from then on none of its blocks can be claimed, whatever a stale cover says."""

    async def scene() -> None:
        async with opened(node) as (pool, tree):
            db = pool.db
            with worker_process(node, "victim", 100, 1.5) as process:
                at = int(await asyncio.to_thread(process.stdout.readline))
                await tree.caught_up(at)
                victim = Worker("fra", "victim")
                covers = [tree.cover(victim, NAMESPACE, names(*range(end))) for end in (1, 50, 100)]
                assert [cover.blocks for cover in covers] == [1, 50, 100]
                await pool.release(await pool.acquire(covers[1]))
                with pytest.raises(Denied) as denied:
                    await pool.fence(victim)
                assert denied.value.reason is Reason.ALIVE
                process.kill()
                while victim not in await pool.fence_expired():
                    await asyncio.sleep(0.1)
            for cover in covers:
                with pytest.raises(Denied) as denied:
                    await pool.acquire(cover, blocks_min=1)
                assert denied.value.reason is Reason.FENCED
            async with db.snapshot(strong=True) as view:
                await view.get(b"d/")
            await tree.caught_up(view.at)
            assert victim not in tree.workers(NAMESPACE, names(*range(100)))
            assert tree.cover(victim, NAMESPACE, names(1)) is None
            assert await pool.fence_expired() == []
            pins = [row async for row in db.scan(victim.prefix + keys.PIN)]
            assert pins == []

    asyncio.run(scene())


def test_a_fenced_session_learns_it(node: LocalNode) -> None:
    """A second life under the same name ends the first: its session is lost, its calls raise
    `Fenced`, and nothing that it had counts."""

    async def scene() -> None:
        async with opened(node, "twice", ttl_s=0.6) as (pool, tree, first):
            await first.publish(NAMESPACE, names(500, 501), HOST)
            async with pool.worker("twice") as second:
                assert (
                    second.registration.identity.incarnation
                    == first.registration.identity.incarnation + 1
                )
                async with asyncio.timeout(5):
                    await first.lost.wait()
                with pytest.raises(Fenced) as fenced:
                    await first.publish(NAMESPACE, names(500, 501, 502), HOST)
                assert fenced.value.what == "registration"
                await tree.caught_up(second.registration.at)
                assert tree.match(NAMESPACE, names(500)).blocks == 0
                await second.drain()
                with pytest.raises(Denied) as denied:
                    await second.publish(NAMESPACE, names(510), HOST)
                assert denied.value.reason is Reason.NOT_LIVE
                await second.resume()
                await second.publish(NAMESPACE, names(510), HOST)
                await second.leave()
                assert second.lost.is_set()

    asyncio.run(scene())


def test_a_lost_claim_ends_its_block(node: LocalNode) -> None:
    """When the claimed worker is fenced the block that holds the claim is left with `Denied`."""

    async def scene() -> None:
        async with opened(node, "w6") as (pool, tree, worker):
            chain = await worker.publish(NAMESPACE, names(600), HOST)
            await tree.caught_up(chain.at)
            cover = tree.cover(worker.worker, NAMESPACE, names(600))
            with pytest.raises(Denied) as denied:
                async with pool.claim(cover, ttl_s=0.6), asyncio.timeout(10):
                    await worker.leave()
                    await asyncio.sleep(20)
            assert denied.value.reason is Reason.FENCED

    asyncio.run(scene())


def test_a_learner_outlives_its_node(tmp_path: Path) -> None:
    """A node that is killed and comes back: the learner answers all the while, says how stale it is, and
    goes on without a new snapshot; the worker's session goes on, too."""

    async def scene(own: LocalNode) -> None:
        async with opened(own, "w7", ttl_s=30) as (_, tree, worker):
            chain = await worker.publish(NAMESPACE, names(700, 701), HOST)
            await tree.caught_up(chain.at)
            await asyncio.to_thread(own.kill)
            await asyncio.sleep(0.2)
            assert tree.match(NAMESPACE, names(700, 701)).blocks == 2
            assert tree.staleness_s > 0.15
            with pytest.raises(k2store.Deadline):
                await tree.within("100ms", timeout=0.3)
            await asyncio.to_thread(own.start)
            chain = await worker.publish(NAMESPACE, names(700, 701, 702), HOST)
            await tree.caught_up(chain.at, timeout=20)
            assert tree.match(NAMESPACE, names(700, 701, 702)).blocks == 3
            assert tree.snapshots == len(feeds_of(["fra"]))
            assert await tree.within("2s") < 2

    with local_node(tmp_path) as own:
        asyncio.run(scene(own))


def test_namespaces_are_declared_once(node: LocalNode) -> None:
    """A namespace is a row under its digest, which learners know; declaring it again changes nothing."""
    namespace = Namespace(
        tenant="", model="m", revision="r", dtype="bf16", layout="NHD", block_tokens=16
    )

    async def scene() -> None:
        async with node.connect() as db, Pool(db, "fra") as pool:
            digest = await pool.declare(namespace)
            first = await db.get_record(keys.namespace(digest))
            assert first is not None
            assert await pool.declare(namespace) == digest
            assert await db.get_record(keys.namespace(digest)) == first
            async with pool.learner() as tree:
                await tree.caught_up(first.version)
                assert tree.learner.namespace(digest) == namespace
            with pytest.raises(k2store.Rejected):
                Pool(db, "no/region")
            with pytest.raises(k2store.Rejected):
                pool.worker("no/worker")

    asyncio.run(scene())
