"""A learner in each region, for whoever watches a run: who lives, how far behind, and whether it equals the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import k2store
from bench.demo.comparing import Shown, differences
from bench.demo.course import Compared
from bench.demo.crossings import crossings
from k2store.testing.cluster import LocalCluster
from kv_pool.blocks import NAME_BYTES
from kv_pool.edge.following import Tree
from kv_pool.edge.journal import Journal, Recording
from kv_pool.edge.pool import Pool
from kv_pool.edge.session import WorkerSession
from kv_pool.keys import Worker
from kv_pool.namespace import DIGEST_BYTES
from kv_pool.records import State, Tier

CATCH_UP_S = 30.0
PROBE_S = 30.0
"""Its lease: it is there for a moment, on a machine where everybody is starting."""
PROBE = "probe"
"""A member of each region that publishes a block of no prompt, so that round trips can be counted."""


class Lookout:
    """See the module; made by `lookout`."""

    def __init__(
        self,
        cluster: LocalCluster,
        regions: tuple[str, ...],
        trees: dict[str, tuple[Tree, Pool]],
    ) -> None:
        self._cluster = cluster
        self._regions = regions
        self._trees = trees

    def views_of(self, worker: str) -> list[tuple[int, bool]]:
        """What each learner says of a worker's life: which one, and whether it lasts."""
        region, _, name = worker.partition("/")
        found = []
        for tree, _ in self._trees.values():
            identity = tree.identity(Worker(region, name))
            if identity is None:
                found.append((0, False))
            else:
                found.append((identity.incarnation, identity.state != State.FENCED))
        return found

    def staleness_s(self) -> list[float]:
        """By how much each learner may lag behind."""
        return [tree.staleness_s for tree, _ in self._trees.values()]

    async def crossings(self) -> int:
        """Round trips between regions that a publish takes at home; for before prompts come."""
        async with AsyncExitStack() as stack:
            probes = {}
            for region, (_, pool) in self._trees.items():
                session = await stack.enter_async_context(pool.worker(PROBE, ttl_s=PROBE_S))
                # Left before it is closed: nothing of it stays for anybody to fence.
                stack.push_async_callback(session.leave)

                async def once(session: WorkerSession = session) -> None:
                    name = bytes(NAME_BYTES - 1) + b"p"
                    await session.publish(bytes(DIGEST_BYTES), name, Tier.DEVICE)
                    await session.evict(Tier.DEVICE, name)

                probes[f"{region}/{PROBE}"] = once
            return await crossings(probes, self._cluster)

    async def compare(self, region: str, at: int) -> Compared:
        """A region's learner beside the store, when it shows everything up to a stamp."""
        tree, pool = self._trees[region]
        try:
            if at:
                await tree.caught_up(at, timeout=CATCH_UP_S)
            shown = Shown(tree, self._regions, bytes(DIGEST_BYTES), [])
            rows, found = await differences(pool.db, shown)
        except k2store.K2Error as error:
            return Compared(0, 0, [f"{region}: {error}"])
        return Compared(rows, 0, [f"{region}: {one}" for one in found])


@asynccontextmanager
async def lookout(
    cluster: LocalCluster, regions: tuple[str, ...], folder: Path
) -> AsyncIterator[Lookout]:
    """Learners, for ``async with``; what it asks itself of the directory is in a journal in `folder`."""
    journal = Journal(folder / "lookout.journal", "lookout")
    async with AsyncExitStack() as stack:
        # After everybody who writes to it.
        stack.callback(journal.close)
        trees = {}
        for region in regions:
            db = await stack.enter_async_context(cluster.connect(region, name=f"lookout-{region}"))
            pool = await stack.enter_async_context(Pool(db, region))
            pool.store = Recording(pool.store, journal)
            tree = await stack.enter_async_context(pool.learner(regions=regions))
            trees[region] = tree, pool
        yield Lookout(cluster, regions, trees)
