"""Ownership: somebody, somewhere, must keep a precious run.

Inside a region `evict_guarded` reads the other copies. Across regions no transaction sees them all, so a run
that must not be lost has an *owner*: one row, in a keyspace that survives the loss of a region. The
owner keeps its copy. Everybody else may evict theirs, and the owner may when it has been relieved::

    owner a     has ──────────────── (asks) ─────────────── evicts
    worker b    has ── adopt: the row names b ── keeps ────────────▶

`adopt` is done by who will keep the run: it alone knows that it has a copy and is not about to evict it.
First the row changes, in its own transaction, and only then the copy goes: at every stamp the row
names somebody who keeps one. An owner that has died is replaced by `adopt` as well, once it is fenced.
"""

from __future__ import annotations

from msgspec import Struct

from kv_pool import keys
from kv_pool.keys import Worker
from kv_pool.records import ENCODE, decode
from kv_pool.shots import Absent, Done, Reason, Refused, Rules, Store, Transaction


class Owner(Struct, frozen=True, array_like=True, gc=False):
    """Who keeps a run."""

    region: str
    name: str

    @property
    def worker(self) -> Worker:
        """As a worker."""
        return Worker(self.region, self.name)


async def own(store: Store, part: bytes, worker: Worker) -> Done | Refused:
    """Make a run precious, and keep it; refused as TAKEN when somebody keeps it already."""
    key = keys.owner(part)
    rules = Rules()
    rules.require(Reason.TAKEN, Absent(key))
    rules.write(key, ENCODE(Owner(worker.region, worker.name)))
    return await rules.shoot(store)


async def adopt(store: Store, part: bytes, owner: Worker, worker: Worker) -> Done | Refused:
    """Keep a run in place of its owner; done by `worker`, which has a copy. Refused as CHANGED when
    somebody else keeps it by now."""
    key = keys.owner(part)
    rules = Rules()
    rules.field(Reason.CHANGED, key, Owner, "region", owner.region)
    rules.field(Reason.CHANGED, key, Owner, "name", owner.name)
    rules.write(key, ENCODE(Owner(worker.region, worker.name)))
    return await rules.shoot(store)


async def disown(store: Store, part: bytes, owner: Worker) -> Done | Refused:
    """The run is precious no longer."""
    key = keys.owner(part)
    rules = Rules()
    rules.field(Reason.CHANGED, key, Owner, "region", owner.region)
    rules.field(Reason.CHANGED, key, Owner, "name", owner.name)
    rules.write(key, None)
    return await rules.shoot(store)


async def owner_of(store: Store, part: bytes) -> Worker | None:
    """Who keeps a run; None for one that is not precious."""

    async def look(txn: Transaction) -> Owner | None:
        value = await txn.get(keys.owner(part))
        return None if value is None else decode(Owner, value)

    owner = (await store.transact(look)).value
    return None if owner is None else owner.worker
