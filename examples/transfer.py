"""Move money between accounts, a thousand times at once, and lose none of it.

python examples/transfer.py [k2://host:port]
"""

from __future__ import annotations

import asyncio
import random
import sys

import k2store

ACCOUNTS = [b"account/%d" % number for number in range(10)]


async def transfer(txn: k2store.Transaction, source: bytes, target: bytes, amount: int) -> bool:
    """Everything in here happens at one stamp, or not at all; it may run several times."""
    held = int(await txn.get(source) or 0)
    if held < amount:
        return False
    txn.put(source, b"%d" % (held - amount))
    txn.put(target, b"%d" % (int(await txn.get(target) or 0) + amount))
    return True


async def main(address: str, transfers: int = 1_000) -> None:
    rng = random.Random(7)
    async with k2store.connect(address) as db:
        await db.transact(writes=[(account, b"100") for account in ACCOUNTS])

        async def user() -> None:
            for _ in range(transfers // 10):
                source, target = rng.sample(ACCOUNTS, 2)
                await db.run(transfer, source, target, rng.randrange(1, 50))

        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(user())
        # One moment of the whole store: the sum is right in every one of them.
        async with db.snapshot(strong=True) as view:
            rows = await view.scan(b"account/").all()
        print(f"{len(rows)} accounts hold {sum(int(row.value) for row in rows)} together")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "k2://127.0.0.1:7400"))
