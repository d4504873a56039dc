"""Questions about the pool that a node answers, for callers that hold no learner: over gRPC, in three regions."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack

import pytest
from click.testing import CliRunner

import k2store
from k2store.cli.group import k2
from k2store.testing import local_node
from k2store.testing.cluster import LocalCluster, local_cluster
from kv_pool.directory import publishing
from kv_pool.directory.publishing import Published, Stretch
from kv_pool.edge.layout import keyspaces
from kv_pool.edge.pool import Pool
from kv_pool.edge.thin import NOT_SERVED, HeldBy, ThinMatcher
from kv_pool.keys import Worker
from kv_pool.namespace import Namespace
from kv_pool.records import Tier
from tests.integration.pool_worker import NAMESPACE, names

REGIONS = ("fra", "iad", "sin")
KEYSPACES = tuple(one.word() for one in keyspaces(REGIONS))
SHARED = Namespace(tenant="", model="m", revision="1", dtype="bf16", layout="NHD", block_tokens=16)
OWN = Namespace(
    tenant="t",
    model="m",
    revision="1",
    dtype="bf16",
    layout="NHD",
    block_tokens=16,
    parent=SHARED.digest(),
)


async def patiently(matcher: ThinMatcher, since: int):
    """What a node says of block 1, once its learner is there."""
    why = ""
    for _ in range(100):
        try:
            return await matcher.match([(NAMESPACE, names(1))], since=since, timeout=20)
        except k2store.Unavailable as error:
            why = str(error)
            await asyncio.sleep(0.1)
    raise AssertionError(why)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_region_answers_for_all() -> None:
    """A node in each region tells of workers in all of them, how stale that is, and with which rows to claim;
    one that is cut off goes on, and says that it is not as fresh as was asked for."""

    async def scene(cluster: LocalCluster) -> None:
        async with AsyncExitStack() as stack:
            pools = {}
            for region in REGIONS:
                db = await stack.enter_async_context(cluster.connect(region))
                pools[region] = await stack.enter_async_context(Pool(db, region))
            matchers = {
                region: await stack.enter_async_context(
                    ThinMatcher(cluster.address(region).split(",")[0], tls=cluster.tls)
                )
                for region in REGIONS
            }
            fra = await stack.enter_async_context(pools["fra"].worker("w", ttl_s=60))
            sin = await stack.enter_async_context(pools["sin"].worker("w", ttl_s=60))
            await sin.publish(NAMESPACE, names(1, 2), Tier.HOST)
            chain = await fra.publish(NAMESPACE, names(1, 2, 3), Tier.DEVICE)
            expected = [HeldBy(fra.worker, Tier.DEVICE, 3), HeldBy(sin.worker, Tier.HOST, 2)]
            for region in REGIONS:
                await patiently(matchers[region], chain.at)
                match = await matchers[region].match([(NAMESPACE, names(1, 2, 3, 4))])
                assert (match.blocks, list(match.holders)) == (3, expected)
                assert match.as_of >= chain.at
                longest = await matchers[region].match(
                    [(NAMESPACE, names(1, 2, 3, 4))], longest_only=True, max_staleness="20s"
                )
                assert list(longest.holders) == expected[:1]
                assert 0 < longest.staleness_s < 20

            cover = await matchers["sin"].cover(fra.worker, NAMESPACE, names(1, 2, 3, 4))
            assert cover is not None
            claim = await pools["sin"].acquire(cover)
            assert claim.blocks == 3
            assert (await fra.evict(Tier.DEVICE, names(3))).gone == b""
            await pools["sin"].release(claim)
            nobody = await matchers["sin"].cover(Worker("iad", "x"), NAMESPACE, names(1))
            assert nobody is None

            # A prompt that begins in a namespace that others share.
            for namespace in (SHARED, OWN):
                await pools["fra"].declare(namespace)
            await fra.publish(SHARED.digest(), names(10, 11), Tier.HOST)
            last = await fra.publish(OWN.digest(), names(12), Tier.HOST)
            parts = [(SHARED.digest(), names(10, 11)), (OWN.digest(), names(12, 13))]
            across = await matchers["iad"].match(parts, since=last.at)
            assert list(across.holders) == [HeldBy(fra.worker, Tier.HOST, 3)]
            with pytest.raises(k2store.Rejected):
                await matchers["iad"].match([(OWN.digest(), names(12)), parts[0]])

            # Blocks by their content.
            content = hashlib.sha256(b"tokens").digest()[:16]
            stretch = Stretch(
                namespace=NAMESPACE,
                tier=Tier.DISK,
                names=names(50),
                depth=0,
                number=1_000,
                content=content,
            )
            told = await publishing.publish(pools["fra"].store, fra.registration, stretch)
            assert isinstance(told, Published)
            places, none = await matchers["iad"].find(content + names(9), since=told.at)
            assert [(one.worker, one.first, one.offset) for one in places] == [
                (fra.worker, names(50), 0)
            ]
            assert none == ()

            for wrong in ([], [(b"short", names(1))], [(NAMESPACE, b"short")], [(NAMESPACE, b"")]):
                with pytest.raises(k2store.Rejected):
                    await matchers["fra"].match(wrong)

            cluster.wan.isolate("sin")
            await asyncio.sleep(1.0)
            with pytest.raises(k2store.Deadline):
                await matchers["sin"].match(
                    [(NAMESPACE, names(1))], max_staleness="100ms", timeout=2
                )
            old = await matchers["sin"].match([(NAMESPACE, names(1, 2, 3))])
            assert old.blocks == 3
            assert old.staleness_s > 0.9
            own = await sin.publish(NAMESPACE, names(1, 2, 70), Tier.HOST)
            for _ in range(200):
                seen = await matchers["sin"].match([(NAMESPACE, names(1, 2, 70))])
                if seen.blocks == 3:
                    break
                await asyncio.sleep(0.05)
            # Its own region's news reach it all the while; the answer as a whole is no younger for that.
            assert (seen.blocks, seen.as_of < own.at) == (3, True)
            cluster.wan.heal()

    with local_cluster(REGIONS, wan="proxy", keyspaces=KEYSPACES, node__services="pool") as cluster:
        asyncio.run(scene(cluster))


@pytest.mark.timeout(120)
def test_a_node_that_serves_no_pool_says_so() -> None:
    """The question is refused with the setting that is missing; the verb then makes a learner of its own; a
    service that nobody offers keeps the node from starting."""

    async def scene(address: str) -> None:
        async with k2store.connect(address) as db, Pool(db, "local") as pool:
            async with pool.worker("w", ttl_s=60) as worker:
                await worker.publish(NAMESPACE, names(1, 2), Tier.HOST)
            async with ThinMatcher(address) as matcher:
                with pytest.raises(k2store.Rejected) as refused:
                    await matcher.match([(NAMESPACE, names(1))])
                assert refused.value.field == NOT_SERVED

    with local_node() as node:
        asyncio.run(scene(node.address))
        words = ["pool", "match", NAMESPACE.hex(), "--names", names(1, 2, 3).hex(), "--json"]
        done = CliRunner().invoke(k2, [*words, "--address", node.address])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["longest"] == 2
    with pytest.raises(k2store.K2Error), local_node(node__services="pool, nonsense"):
        raise AssertionError("a node starts with a service that nobody offers")


@pytest.mark.timeout(120)
def test_the_verb_asks_a_node_that_serves_the_pool() -> None:
    """What was committed before is in the answer, without a learner in the asking process."""

    async def scene(address: str) -> None:
        async with (
            k2store.connect(address) as db,
            Pool(db, "local") as pool,
            pool.worker("w", ttl_s=60) as worker,
            ThinMatcher(address) as matcher,
        ):
            chain = await worker.publish(NAMESPACE, names(1, 2), Tier.HOST)
            await patiently(matcher, chain.at)

    with local_node(node__services="pool") as node:
        asyncio.run(scene(node.address))
        words = ["pool", "match", NAMESPACE.hex(), "--names", names(1, 2, 3).hex(), "--json"]
        done = CliRunner().invoke(k2, [*words, "--address", node.address])
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        assert told["holders"] == [{"worker": "local/w", "tier": "host", "blocks": 2}]
