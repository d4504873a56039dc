"""The pool over three regions of real nodes, with delays between them, and one that is cut off."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

import k2store
from bench.demo.crossings import crossings
from k2store.testing.cluster import LocalCluster, local_cluster
from kv_pool import keys
from kv_pool.directory import membership
from kv_pool.edge.following import FOLLOWED, feeds_of
from kv_pool.edge.layout import keyspaces
from kv_pool.edge.pool import Pool
from kv_pool.edge.refusals import Denied
from kv_pool.learner import Cover
from kv_pool.records import Tier
from kv_pool.shots import Reason
from tests.integration.pool_worker import NAMESPACE, names
from truetime.timestamp import time_ns

REGIONS = ("fra", "iad", "sin")
KEYSPACES = tuple(one.word() for one in keyspaces(REGIONS))
WORKER_ROWS = k2store.prefix(b"d/fra/w/")
CLOCK_NS = 5_000_000
"""Clocks of one machine do not differ; what is declared of them is less than this."""
ONE_WAY_S = 0.04
"""Less than any delay between two of the regions."""


def test_feeds_cover_everything_once() -> None:
    """The ranges of the feeds follow on each other without gap or overlap, for any set of regions."""
    for regions in ([], ["fra"], ["fra", "iad", "fra"], ["z", "a", "a-b"]):
        ranges = sorted(feeds_of(regions).values(), key=lambda each: each.start)
        assert ranges[0].start == FOLLOWED.start
        assert ranges[-1].end == FOLLOWED.end
        assert all(left.end == right.start for left, right in zip(ranges, ranges[1:], strict=False))
        assert all(each.start < each.end for each in ranges)
        assert set(regions) <= set(feeds_of(regions))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_regions_share_one_directory() -> None:
    """A publish stays in its region and is seen in the others, late by the delay and told so; a claim
    and a fence reach over; what is cut off goes on by itself, and nobody waits for it."""

    async def scene(cluster: LocalCluster) -> None:
        async with AsyncExitStack() as stack:
            pools, trees = {}, {}
            for region in REGIONS:
                db = await stack.enter_async_context(cluster.connect(region))
                pools[region] = await stack.enter_async_context(Pool(db, region))
                learner = pools[region].learner(regions=REGIONS)
                trees[region] = await stack.enter_async_context(learner)
            workers = {
                region: await stack.enter_async_context(pools[region].worker("w", ttl_s=60))
                for region in REGIONS
            }
            fra, sin = workers["fra"], workers["sin"]
            took_s = []
            for number in range(10):
                began_s = time.monotonic()
                chain = await fra.publish(NAMESPACE, names(number), Tier.DEVICE)
                took_s.append(time.monotonic() - began_s)
            # The quickest of them: no round trip between regions, however busy the machine is.
            assert min(took_s) < ONE_WAY_S
            chain = await fra.publish(NAMESPACE, names(*range(100, 110)), Tier.DEVICE)
            for region in REGIONS:
                await trees[region].caught_up(chain.at, timeout=20)
                assert trees[region].match(NAMESPACE, names(*range(100, 111))).blocks == 10
            assert trees["sin"].in_region("fra")[1] > ONE_WAY_S
            assert trees["sin"].as_of <= trees["sin"].in_region("sin")[0]
            cover = trees["sin"].cover(fra.worker, NAMESPACE, names(*range(100, 110)))
            assert cover is not None
            claim = await pools["sin"].acquire(cover)
            assert (claim.blocks, (await fra.evict(Tier.DEVICE, names(109))).gone) == (10, b"")
            await pools["sin"].release(claim)

            cluster.wan.isolate("sin")
            cut_at = trees["fra"].in_region("sin")[0]
            here = await sin.publish(NAMESPACE, names(200, 201), Tier.HOST)
            await trees["sin"].caught_up(here.at, region="sin", timeout=20)
            assert trees["sin"].match(NAMESPACE, names(200, 201)).blocks == 2
            there = await fra.publish(NAMESPACE, names(300, 301), Tier.HOST)
            for region in ("fra", "iad"):
                await trees[region].caught_up(there.at, region="fra", timeout=20)
                assert trees[region].match(NAMESPACE, names(300, 301)).blocks == 2
                assert trees[region].match(NAMESPACE, names(200)).blocks == 0
            assert trees["sin"].match(NAMESPACE, names(300)).blocks == 0
            assert trees["sin"].match(NAMESPACE, names(*range(100, 110))).blocks == 10
            with pytest.raises(k2store.Deadline):
                await trees["fra"].caught_up(here.at, timeout=0.5)
            assert trees["fra"].as_of < there.at
            assert trees["fra"].in_region("sin")[0] < here.at
            assert cut_at

            cluster.wan.heal()
            for region in REGIONS:
                await trees[region].caught_up(max(here.at, there.at), timeout=30)
                assert trees[region].match(NAMESPACE, names(200, 201)).blocks == 2
                assert trees[region].match(NAMESPACE, names(300, 301)).blocks == 2
            assert {tree.snapshots for tree in trees.values()} == {len(feeds_of(REGIONS))}

            await fra.leave()
            with pytest.raises(Denied) as denied:
                await pools["sin"].acquire(cover, blocks_min=1)
            assert denied.value.reason is Reason.FENCED
            with pytest.raises(k2store.Rejected):
                trees["sin"].in_region("elsewhere")

    with local_cluster(REGIONS, wan="proxy", keyspaces=KEYSPACES) as cluster:
        asyncio.run(scene(cluster))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_fence_is_one_row_and_a_publish_stays_at_home() -> None:
    """With nothing crossing between regions a worker publishes 100,000 blocks; ending its life writes one row, and
    then nobody anywhere is given one of them. Meanwhile far learners say what they know, and how old that is."""

    async def scene(cluster: LocalCluster) -> None:
        async with AsyncExitStack() as stack:
            pools, trees = {}, {}
            for region in REGIONS:
                db = await stack.enter_async_context(cluster.connect(region))
                pools[region] = await stack.enter_async_context(Pool(db, region))
                learner = pools[region].learner(regions=REGIONS)
                trees[region] = await stack.enter_async_context(learner)
            fra = await stack.enter_async_context(pools["fra"].worker("w", ttl_s=120))
            cluster.wan.isolate("fra")
            before = _crossed(cluster)
            chains = [range(start, start + 1_000) for start in range(0, 100_000, 1_000)]
            packed = [names(*chain) for chain in chains]
            last = 0
            for chain in packed:
                last = (await fra.publish(NAMESPACE, chain, Tier.DEVICE)).at
            # Nothing has come out of the region or into it all the while.
            assert _crossed(cluster) == before
            assert trees["sin"].match(NAMESPACE, packed[-1]).blocks == 0
            assert trees["sin"].in_region("fra")[0] < last
            cluster.wan.heal()

            while (reached := trees["sin"].in_region("fra")[0]) < last:
                now_ns = time.time_ns()
                at, lag_s = trees["sin"].in_region("fra")
                assert time_ns(at) + lag_s * 1e9 >= now_ns - CLOCK_NS
                assert trees["sin"].match(NAMESPACE, packed[-1]).blocks == 0
                await asyncio.sleep(0.005)
            assert reached >= last
            covers = {}
            for region in REGIONS:
                await trees[region].caught_up(last, timeout=30)
                covers[region] = [
                    cover
                    for chain in packed[::20]
                    if (cover := trees[region].cover(fra.worker, NAMESPACE, chain)) is not None
                ]
                assert [cover.blocks for cover in covers[region]] == [1_000] * 5
            claim = await pools["iad"].acquire(covers["iad"][0])
            await pools["iad"].release(claim)

            async with pools["fra"].db.snapshot(strong=True) as view:
                rows = {row.key: row.value for row in await view.scan(WORKER_ROWS).all()}
            registration = fra.registration
            # While it dies everybody everywhere goes on claiming.
            tries: list[tuple[str, float, bool]] = []
            over = asyncio.Event()
            claiming = [
                asyncio.create_task(_claim(pools[region], covers[region], region, tries, over))
                for region in REGIONS
            ]
            await _until(lambda: {one for one, _, granted in tries if granted} == set(REGIONS))
            await membership.renew(pools["fra"].store, registration, 0)
            at = await pools["iad"].fence(fra.worker)
            fenced_s = time.monotonic()
            await _until(
                lambda: {one for one, began_s, _ in tries if began_s > fenced_s} == set(REGIONS)
            )
            over.set()
            await asyncio.gather(*claiming)
            assert not [one for one in tries if one[1] > fenced_s and one[2]]
            async with pools["fra"].db.snapshot(at=at) as view:
                now = {row.key: row.value for row in await view.scan(WORKER_ROWS).all()}
            changed = {
                key
                for key in rows.keys() | now.keys()
                if rows.get(key) != now.get(key) and keys.PIN not in key
            }
            assert changed <= {keys.identity(fra.worker), keys.lease(fra.worker)}
            assert keys.identity(fra.worker) in changed
            assert len(now) > 100
            for region in REGIONS:
                for cover in covers[region]:
                    with pytest.raises(Denied) as denied:
                        await pools[region].acquire(cover, blocks_min=1)
                    assert denied.value.reason is Reason.FENCED
                await trees[region].caught_up(at, timeout=30)
                assert trees[region].match(NAMESPACE, packed[0]).blocks == 0
            assert await pools["fra"].sweep(fra.worker) >= 100

    with local_cluster(REGIONS, wan="proxy", keyspaces=KEYSPACES) as cluster:
        asyncio.run(scene(cluster))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("layout", "count"), [(KEYSPACES, 0), (("default:region:fra",), 2)])
def test_round_trips_of_a_publish_are_counted(layout: tuple[str, ...], count: int) -> None:
    """With its rows at home in its region a publish takes none. Where they live elsewhere and survive a region,
    it is sent on to another region, and waits for a third one."""

    async def scene(cluster: LocalCluster) -> None:
        async with (
            cluster.connect("iad") as db,
            Pool(db, "iad") as pool,
            pool.worker("w", ttl_s=120) as worker,
        ):
            numbers = itertools.count(1)

            async def publish() -> None:
                await worker.publish(NAMESPACE, names(next(numbers)), Tier.DEVICE)

            await publish()
            assert await crossings({"iad/w": publish}, cluster) == count

    with local_cluster(REGIONS, wan="proxy", keyspaces=layout) as cluster:
        asyncio.run(scene(cluster))


async def _claim(
    pool: Pool,
    covers: list[Cover],
    region: str,
    tries: list[tuple[str, float, bool]],
    over: asyncio.Event,
) -> None:
    """Claim and let go until it is over: from where, when each try began, and whether it was granted."""
    for cover in itertools.cycle(covers):
        if over.is_set():
            return
        began_s = time.monotonic()
        try:
            claim = await pool.acquire(cover, blocks_min=1)
        except Denied:
            tries.append((region, began_s, False))
            continue
        tries.append((region, began_s, True))
        await pool.release(claim)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


def _crossed(cluster: LocalCluster) -> int:
    """Bytes that have arrived from fra in other regions, or from them."""
    return sum(
        counts.delivered_bytes
        for ends, counts in cluster.wan.statistics().items()
        if ends.count("fra") == 1
    )
