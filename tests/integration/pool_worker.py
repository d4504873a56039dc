"""A worker of the pool as a process of its own, to be killed: publishes blocks, says so, and waits."""

from __future__ import annotations

import asyncio
import hashlib
import sys

import k2store
from kv_pool.edge.pool import Pool
from kv_pool.records import Tier

NAMESPACE = b"pool worker test"


def names(*blocks: int) -> bytes:
    """Names of blocks, packed."""
    return b"".join([hashlib.sha256(b"%d" % block).digest()[:16] for block in blocks])


async def main(address: str, name: str, blocks: int, ttl_s: float) -> None:
    """Register, publish so many blocks in runs of ten, then stay alive."""
    async with (
        k2store.connect(address) as db,
        Pool(db, "fra") as pool,
        pool.worker(name, ttl_s=ttl_s) as worker,
    ):
        at = 0
        for end in range(10, blocks + 1, 10):
            chain = await worker.publish(NAMESPACE, names(*range(end)), Tier.DEVICE)
            at = chain.at
        sys.stdout.write(f"{at}\n")
        sys.stdout.flush()
        await worker.lost.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
