"""Sweeping: rows that count for nothing are removed, some at a time.

Fencing, clearing and restarting write one row and leave the others where they are. Nobody is misled by them,
they only take room. A sweep looks at a bounded number of rows in each transaction and goes on behind
the last one; sweeping twice, or by two at once, does no harm.

Removed are runs of an earlier life or epoch or without a block, announcements whose deadline has
passed, and pins that have run out or whose run is another one by now.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from kv_pool import keys
from kv_pool.keys import PIN_BYTES, RUN_BYTES, Worker
from kv_pool.records import Id, Phase, Pin, Run, decode, decode_run
from kv_pool.shots import SCAN_ROWS_MAX, Store, Transaction, prefix_end
from truetime import timestamp

ROWS: Final = 256
"""Rows that one transaction of a sweep looks at, unless told otherwise."""


class Swept(Struct, frozen=True):
    """What one step removed, and where to go on; empty when everything was looked at."""

    removed: int
    after: bytes
    at: int


async def sweep(store: Store, worker: Worker, after: bytes = b"", rows: int = ROWS) -> Swept:
    """Remove what counts for nothing among a worker's next rows."""
    if not 1 <= rows <= SCAN_ROWS_MAX:
        raise ValueError(f"a sweep looks at 1 to {SCAN_ROWS_MAX} rows a step, not {rows}")
    end = prefix_end(worker.prefix)

    async def step(txn: Transaction) -> tuple[int, bytes]:
        value = await txn.get(keys.identity(worker))
        identity = None if value is None else decode(Id, value)
        now_ns = timestamp.time_ns(txn.at)
        start = after + b"\x00" if after else worker.prefix
        seen, removed, last = 0, 0, b""
        async for row in txn.scan(start, end, rows):
            seen += 1
            last = row.key
            rest = row.key[len(worker.prefix) :]
            if rest.startswith(keys.RUN):
                tier = rest[len(keys.RUN) + 16]
                if _is_dead(decode_run(row.value), identity, tier, now_ns):
                    txn.delete(row.key)
                    removed += 1
            elif rest.startswith(keys.PIN):
                part = rest[len(keys.PIN) : len(keys.PIN) + RUN_BYTES]
                assert len(rest) == len(keys.PIN) + RUN_BYTES + PIN_BYTES, "a pin has one width"
                pin = decode(Pin, row.value)
                run = await txn.get(worker.prefix + keys.RUN + part)
                gone = run is None or decode_run(run).generation != pin.generation
                if gone or pin.expiry_ns <= now_ns:
                    txn.delete(row.key)
                    removed += 1
        return removed, last if seen == rows else b""

    done = await store.transact(step)
    return Swept(*done.value, done.at)


def _is_dead(run: Run, identity: Id | None, tier: int, now_ns: int) -> bool:
    """Whether a row counts for nothing and never will."""
    if identity is None or not run.live:
        return True
    if run.incarnation != identity.incarnation or run.epoch != identity.epoch(tier):
        return True
    return run.phase == Phase.RESERVED and run.deadline_ns <= now_ns
