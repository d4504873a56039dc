"""A trace in order through directory and learner: what is hit is what an endless cache would hit.

Each request is matched on the learner after everything that was published before is applied there, claimed
if asked, and its new blocks are published by a worker that has most of it. So every hit that falls short
of the ideal would be a fault of the pool, not of timing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from msgspec import Struct

from kv_pool.blocks import NAME_BYTES
from kv_pool.edge.pool import Pool
from kv_pool.edge.trace import Namer, Request, ideal_hits
from kv_pool.namespace import Namespace
from kv_pool.records import Tier


class Replayed(Struct, kw_only=True):
    """What came of a replay so far.

    block_references  blocks of all requests
    block_hits        of those, found on one worker from the prompt's beginning on
    ideal_hits        what an endless cache that knows everything at once would have had
    claimed_blocks    of the hits, those that were claimed, too
    """

    requests: int = 0
    block_references: int = 0
    block_hits: int = 0
    ideal_hits: int = 0
    claimed_blocks: int = 0
    publishes: int = 0
    published_blocks: int = 0
    workers: int = 0
    elapsed_s: float = 0.0


async def replay(
    pool: Pool,
    requests: Sequence[Request],
    *,
    workers: int,
    claims: bool,
    block_tokens: int,
    progress: Callable[[Replayed], None],
) -> Replayed:
    """Replay requests in order, on so many workers; `progress` is called after each."""
    began_s = time.monotonic()
    namer = Namer()
    namespace = await pool.declare(
        Namespace(
            tenant="",
            model="trace",
            revision=pool.db.rng.getrandbits(64).to_bytes(8, "big").hex(),
            dtype="none",
            layout="none",
            block_tokens=block_tokens,
        )
    )
    figures = Replayed(workers=workers)
    async with AsyncExitStack() as stack:
        tree = await stack.enter_async_context(pool.learner())
        opening = [pool.worker(f"replay-{number}") for number in range(workers)]
        for session in opening:
            await stack.enter_async_context(session)
        sessions = {session.worker: session for session in opening}
        at = max([session.registration.at for session in opening])
        for request, ideal in zip(requests, ideal_hits(requests), strict=True):
            names = namer.names(request)
            await tree.caught_up(at, timeout=60.0)
            match = tree.match(namespace, names)
            if match.holders:
                session = sessions[match.holders[0].worker]
            else:
                session = opening[figures.requests % workers]
            if match.blocks and claims:
                cover = tree.cover(session.worker, namespace, names)
                assert cover is not None, "who matches can be claimed"
                claim = await pool.acquire(cover)
                figures.claimed_blocks += claim.blocks
                await pool.release(claim)
            chain = await session.publish(namespace, names, Tier.HOST)
            at = max(at, chain.at)
            figures.requests += 1
            figures.block_references += len(names) // NAME_BYTES
            figures.block_hits += match.blocks
            figures.ideal_hits += ideal
            figures.publishes += bool(chain.new_blocks)
            figures.published_blocks += chain.new_blocks
            figures.elapsed_s = time.monotonic() - began_s
            progress(figures)
        await asyncio.gather(*[session.leave() for session in opening])
    return figures
