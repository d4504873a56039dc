"""A conversation that moves to another region: its prefix is read there, and not computed again."""

from __future__ import annotations

import asyncio

import pytest

from k2store.testing.cluster import LocalCluster, local_cluster
from tests.integration.serving_fleet import fleets, now, said
from tests.unit.serving_engines import answer_of, prompt_of

REGIONS = ("fra", "iad", "sin")
KEYSPACES = (*[f"{each}:d/{each}/:zone:{each}" for each in REGIONS], "default:region:fra")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_second_turn_in_another_region_computes_what_is_new() -> None:
    """The first turn is answered in Frankfurt, the second one in Singapore: it reads the first one's pages over the
    WAN's directory, computes the new tokens alone, and says what Frankfurt would have said."""
    first = prompt_of(100, 4)

    async def scene(cluster: LocalCluster) -> None:
        async with fleets(cluster.connect) as fleet:
            fra = await fleet.worker("w", "fra", regions=REGIONS, lease_s=20.0)
            sin = await fleet.worker("w", "sin", regions=REGIONS, lease_s=20.0)
            router = await fleet.router("sin")
            tokens, _ = await said(fra.generate, first)
            await fra.idle()
            await sin.tree.caught_up(await now(fra.pool), timeout=30)
            await router._tree.caught_up(sin.tree.as_of, timeout=30)
            second = (*first, *tokens, *prompt_of(20))
            answer, usage = await said(router.generate, second)
            assert answer == answer_of(second, 12)
            # All whole blocks of the first turn, answer included but for its last token, which has none.
            assert usage.cached == (len(first) + len(tokens) - 1) // 16 * 16
            assert sin.exchange.counts.fetched_blocks == usage.cached // 16
            tcp = sin.links.endpoints[-1].counts
            assert (
                tcp.read_bytes
                == sin.exchange.counts.fetched_blocks * fra.mem_pool.geometry.page_bytes
            )
            await sin.check_integrity()
            await fra.check_integrity()

    with local_cluster(REGIONS, wan="proxy", keyspaces=KEYSPACES) as cluster:
        asyncio.run(scene(cluster))
