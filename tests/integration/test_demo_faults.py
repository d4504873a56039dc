"""Faults of `k2 demo` on real nodes, with what watches real workers, and without models, which are not killed here."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from bench.demo.company import Company
from bench.demo.course import Course
from bench.demo.faults import LEADER, Faults
from bench.demo.leading import leader_of, look
from bench.demo.real.lookout import lookout
from bench.demo.regions import cluster
from bench.demo.run import Run
from kv_pool.edge.pool import Pool
from kv_pool.records import Tier
from tests.integration.pool_worker import NAMESPACE, names

REGIONS = ("fra", "iad", "sin")
BLOCKS = 8


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_leader_is_killed_and_comes_back(tmp_path: Path) -> None:
    """The node that leads a region's directory is killed while workers of all regions hold blocks. It is back and leads
    again, what survives a region was led elsewhere meanwhile, workers live on, and every learner equals the store with
    all blocks in it, those of the region that was away among them; nothing is amiss but what was planned."""
    said: list[str] = []

    async def scene() -> None:
        with cluster(REGIONS, "proxy", tmp_path) as regions, Company({}, {}, tmp_path) as company:
            async with AsyncExitStack() as stack:
                workers = {}
                for region in REGIONS:
                    db = await stack.enter_async_context(regions.connect(region))
                    pool = await stack.enter_async_context(Pool(db, region))
                    workers[region] = await stack.enter_async_context(pool.worker("w", ttl_s=60))
                watch = await stack.enter_async_context(lookout(regions, REGIONS, tmp_path))
                for number, worker in enumerate(workers.values()):
                    packed = names(*range(BLOCKS * number, BLOCKS * (number + 1)))
                    await worker.publish(NAMESPACE, packed, Tier.DEVICE)
                course = Course(began_ns=0)
                run = Run(regions, company, db, course.incidents, said.append)
                before = regions.nodes["iad-1"].process
                await Faults(run, watch, course.faults, (LEADER,)).inflict()
                run.look()
                (fault,) = course.faults
                assert course.incidents == []
                assert "iad-1" in fault.evidence
                assert "led elsewhere" in fault.evidence
                assert 1.0 < fault.recovery_s < 60
                assert regions.nodes["iad-1"].process != before
                assert leader_of(await look(regions), b"d/iad/")[0] == "iad-1"
                assert fault.compared.differences == []
                assert fault.compared.rows == len(REGIONS) * len(workers)
                for worker in workers.values():
                    assert not worker.lost.is_set()
                    assert worker.blocks == BLOCKS

    asyncio.run(scene())
    assert any("killed" in one for one in said)
    assert any("well again" in one for one in said)
