"""Quotas: how many bytes of a tenant a region holds, without a row that everybody writes.

A tenant's bytes lie in a few rows (*escrow*). A worker takes a portion for itself (*grant*) and then
publishes against that: each publish states what the worker has of the tenant, and is refused when
that is more than its grant. Only the worker publishes its rows, so only it counts; the store never
does. What is free and what is granted together is the tenant's quota at every stamp.
"""

from __future__ import annotations

from kv_pool import keys
from kv_pool.directory.membership import Registration
from kv_pool.keys import Worker
from kv_pool.records import ENCODE, Escrow, Grant, Id, State, decode
from kv_pool.shots import Reason, Refused, Store, Transaction


async def open_quota(store: Store, region: str, tenant: str, total_bytes: int, shards: int) -> int:
    """Give a tenant its bytes in a region, once; gives the stamp. Nothing changes if it has some."""
    if total_bytes < 0 or not 1 <= shards <= 64:
        raise ValueError(f"{total_bytes} bytes in {shards} rows are no quota")

    async def begin(txn: Transaction) -> None:
        if await txn.get(keys.escrow(region, tenant, 0)) is not None:
            return
        for shard in range(shards):
            share = total_bytes // shards + (shard < total_bytes % shards)
            txn.put(keys.escrow(region, tenant, shard), ENCODE(Escrow(share)))

    return (await store.transact(begin)).at


async def take(
    store: Store, registration: Registration, tenant: str, wanted_bytes: int, shard: int
) -> Grant | Refused:
    """Take up to so many bytes more from one row of the tenant's; gives what the worker has then.

    Refused as QUOTA when that row has none: another may.
    """
    return await _transfer(store, registration, tenant, wanted_bytes, shard)


async def give_back(
    store: Store, registration: Registration, tenant: str, spare_bytes: int, shard: int
) -> Grant | Refused:
    """Give up to so many bytes back; the caller no longer uses them."""
    return await _transfer(store, registration, tenant, -spare_bytes, shard)


async def _transfer(
    store: Store, registration: Registration, tenant: str, wanted_bytes: int, shard: int
) -> Grant | Refused:
    worker = registration.worker
    incarnation = registration.identity.incarnation
    escrow_key = keys.escrow(worker.region, tenant, shard)
    key = keys.quota(worker, tenant)

    async def move(txn: Transaction) -> Grant | Reason:
        value = await txn.get(keys.identity(worker))
        if value is None or decode(Id, value).incarnation != incarnation:
            return Reason.FENCED
        value = await txn.get(escrow_key)
        if value is None:
            return Reason.QUOTA
        free = decode(Escrow, value).free_bytes
        value = await txn.get(key)
        granted = 0 if value is None else decode(Grant, value).granted_bytes
        moved = min(wanted_bytes, free) if wanted_bytes >= 0 else -min(-wanted_bytes, granted)
        if not moved:
            return Reason.QUOTA
        grant = Grant(incarnation, granted + moved)
        txn.put(escrow_key, ENCODE(Escrow(free - moved)))
        txn.put(key, ENCODE(grant))
        return grant

    done = await store.transact(move)
    return Refused(done.value, done.at) if isinstance(done.value, Reason) else done.value


async def reclaim(store: Store, worker: Worker, tenant: str, shard: int) -> int | Refused:
    """Take back everything that a fenced worker was granted; gives the bytes.

    Refused as ALIVE for a worker that lives.
    """
    key = keys.quota(worker, tenant)
    escrow_key = keys.escrow(worker.region, tenant, shard)

    async def move(txn: Transaction) -> int | Reason:
        value = await txn.get(keys.identity(worker))
        if value is not None and decode(Id, value).state != State.FENCED:
            return Reason.ALIVE
        value = await txn.get(key)
        if value is None:
            return 0
        granted = decode(Grant, value).granted_bytes
        value = await txn.get(escrow_key)
        free = 0 if value is None else decode(Escrow, value).free_bytes
        txn.put(escrow_key, ENCODE(Escrow(free + granted)))
        txn.delete(key)
        return granted

    done = await store.transact(move)
    return Refused(done.value, done.at) if isinstance(done.value, Reason) else done.value
