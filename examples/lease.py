"""One of several workers does the work at a time, and a late one cannot do harm.

The token of a lease grows from holder to holder. What is protected refuses smaller ones: here, a
row that remembers the largest token it has seen.

python examples/lease.py [k2://host:port]
"""

from __future__ import annotations

import asyncio
import sys

import k2store

TASK = b"task/7"
RESULT = b"task/7/result"


async def work(db: k2store.Database, name: str) -> None:
    async with db.lease(TASK, ttl="5s", holder=name.encode()) as lease:
        token = lease.token
        async for txn in db.transactions():
            async with txn:
                before = await txn.get(RESULT)
                newest = int(before.split()[0]) if before else 0
                if token <= newest:
                    raise RuntimeError(f"{name} has been overtaken")
                txn.put(RESULT, b"%d %s" % (token, name.encode()))


async def main(address: str) -> None:
    async with k2store.connect(address) as db:
        await db.delete(RESULT)
        async with asyncio.TaskGroup() as group:
            for name in ("ada", "bob", "cyn"):
                group.create_task(work(db, name))
        versions = await db.history(RESULT, limit=3)
        tokens = [int(version.value.split()[0]) for version in versions if version.value]
        print(f"{len(tokens)} holders, tokens grow: {tokens == sorted(tokens, reverse=True)}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "k2://127.0.0.1:7400"))
