"""Follow a feed and count what it brings, exactly once, however often the reader restarts.

The effect and the cursor are written in one transaction, so either both are there or neither.

python examples/exactly_once.py [k2://host:port]
"""

from __future__ import annotations

import asyncio
import sys

import k2store

EVENTS = b"event/"
CURSOR = b"reader/cursor"
COUNT = b"reader/count"


async def read_until(db: k2store.Database, last: int, stop_after: int) -> None:
    """Count events up to the stamp `last`; end early after some commits, as a crash would."""
    cursor = int(await db.get(CURSOR) or 0)
    async with db.watch(k2store.prefix(EVENTS), since=cursor) as watch:
        async for event in watch:
            if isinstance(event, k2store.Changes):
                async for txn in db.transactions():
                    async with txn:
                        count = int(await txn.get(COUNT) or 0) + len(event.records)
                        txn.put(COUNT, b"%d" % count)
                        txn.put(CURSOR, b"%d" % event.at)
                stop_after -= 1
            if event.at >= last or not stop_after:
                return


async def main(address: str) -> None:
    async with k2store.connect(address) as db:
        # The feed begins here; it keeps what is newer.
        await db.put(CURSOR, b"%d" % await db.put(COUNT, b"0"))
        stamps = [await db.put(EVENTS + b"%d" % number, b"x") for number in range(10)]
        restarts = 0
        while int(await db.get(CURSOR) or 0) < stamps[-1]:
            await read_until(db, stamps[-1], stop_after=3)
            restarts += 1
        count = int(await db.get(COUNT) or 0)
        print(f"10 events, {restarts} readers one after the other, {count} counted")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "k2://127.0.0.1:7400"))
