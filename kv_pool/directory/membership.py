"""Workers: who they are, how long they live, and how everything they have becomes worthless at once.

A worker's rows count only under its present *incarnation*, which the row ``id`` names. So a restart,
a death and the clearing of a tier are one written row each, however many blocks there are::

            register                    fence (the lease has run out)
    ────────▶ LIVE, incarnation n ───────────────▶ FENCED, incarnation n+1
                │      ▲                                   │
          drain │      │ resume                            │ register
                ▼      │                                   ▼
             DRAINING, n                            LIVE, incarnation n+2

The lease is a row of its own, so that renewing it every second touches nothing else.
Rows that count for nothing are removed later (`kv_pool.directory.sweeping`).
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from typing import Final

import msgspec
from msgspec import Struct

from kv_pool import keys
from kv_pool.keys import Worker
from kv_pool.records import ENCODE, EPOCHS, Id, Lease, State, decode
from kv_pool.shots import Committed, Compare, Done, Own, Reason, Refused, Rules, Store, Transaction

LEASE_NS: Final = 3_000_000_000
"""How long a worker lives without renewing, unless it says otherwise."""

GROUNDS_MAX: Final = 1_024
"""How many rules that transactions have in common a registration remembers."""

GENERATION_SHIFT: Final = 40
"""A generation is an incarnation and a number inside it, so no two lives share one."""


class Registration(Struct, frozen=True, dict=True):
    """A worker as its own process knows it; what it publishes rests on this."""

    worker: Worker
    identity: Id
    at: int

    @cached_property
    def grounds(self) -> dict[Hashable, Rules]:
        """Rules that many of its transactions rest on, made once; see `ground`."""
        return {}

    def ground(self, key: Hashable, rules: Rules) -> Rules:
        """Remember rules; the number of those is bounded, and none is missed."""
        if len(self.grounds) >= GROUNDS_MAX:
            self.grounds.clear()
        self.grounds[key] = rules
        return rules

    def generation(self, number: int) -> int:
        """A number of this life as a generation that no other life has."""
        assert 0 <= number < 1 << GENERATION_SHIFT, number
        return self.identity.incarnation << GENERATION_SHIFT | number


async def register(
    store: Store,
    worker: Worker,
    boot: bytes,
    expiry_ns: int,
    endpoints: tuple[str, ...] = (),
) -> Registration:
    """Begin a life of a worker; what an earlier one had counts for nothing from then on.

    boot       16 bytes that this process drew when it started. The same boot gets the same
               incarnation again, unless it has been fenced: registering twice is harmless.
    expiry_ns  when the lease runs out unless it is renewed, nanoseconds since the Unix epoch
    """
    if len(boot) != 16:
        raise ValueError(f"a boot id has 16 bytes, not {len(boot)}")

    async def begin(txn: Transaction) -> Id:
        value = await txn.get(keys.identity(worker))
        before = None if value is None else decode(Id, value)
        if before is None:
            identity = Id(1, boot, State.LIVE, endpoints=endpoints)
        elif before.boot == boot and before.state != State.FENCED:
            identity = msgspec.structs.replace(before, endpoints=endpoints)
        else:
            identity = Id(before.incarnation + 1, boot, State.LIVE, endpoints=endpoints)
        if identity != before:
            txn.put(keys.identity(worker), ENCODE(identity))
        txn.put(keys.lease(worker), ENCODE(Lease(identity.incarnation, expiry_ns)))
        return identity

    done = await store.transact(begin)
    return Registration(worker, done.value, done.at)


async def renew(store: Store, registration: Registration, expiry_ns: int) -> Done | Refused:
    """Live until `expiry_ns`. Refused for who has been fenced or replaced: it must register anew."""
    rules = Rules()
    still_lives(rules, registration)
    incarnation = registration.identity.incarnation
    rules.write(keys.lease(registration.worker), ENCODE(Lease(incarnation, expiry_ns)))
    return await rules.shoot(store)


async def fence(store: Store, worker: Worker, observed: Id) -> Done | Refused:
    """End a life whose lease has run out; anybody may.

    Once this is acknowledged no claim that begins can give one of the worker's blocks, and nothing
    that the worker still publishes takes effect. Refused as FENCED when it was ended already, as
    ALIVE while the lease runs.
    """
    key = keys.identity(worker)
    rules = Rules()
    rules.field(Reason.FENCED, key, Id, "incarnation", observed.incarnation)
    rules.field(
        Reason.ALIVE, keys.lease(worker), Lease, "expiry_ns", Own.TIME_NS, compare=Compare.LESS
    )
    dead = Id(observed.incarnation + 1, observed.boot, State.FENCED)
    rules.write(key, ENCODE(dead))
    return await rules.shoot(store)


async def clear(store: Store, registration: Registration, *tiers: int) -> Registration | Refused:
    """Everything in these tiers is gone: one row, whatever there was. Gives who the worker is now.

    Changes the row as it is and not as the caller knows it: what somebody else has changed in it
    meanwhile stays. Refused as CLEARED for a tier that was cleared since the caller looked.
    """
    known = registration.identity
    key = keys.identity(registration.worker)

    async def change(txn: Transaction) -> Id | Reason:
        value = await txn.get(key)
        if value is None:
            return Reason.UNKNOWN
        before = decode(Id, value)
        if before.incarnation != known.incarnation or before.state == State.FENCED:
            return Reason.FENCED
        if any(before.epoch(tier) != known.epoch(tier) for tier in tiers):
            return Reason.CLEARED
        epochs = {EPOCHS[tier]: before.epoch(tier) + 1 for tier in tiers}
        after = msgspec.structs.replace(before, **epochs)
        txn.put(key, ENCODE(after))
        return after

    done = await store.transact(change)
    if isinstance(done.value, Reason):
        return Refused(done.value, done.at)
    return Registration(registration.worker, done.value, done.at)


async def drain(store: Store, worker: Worker, incarnation: int) -> Id | Refused:
    """Take no new blocks from now on, and serve what is there until it is elsewhere or gone."""
    return await _change(store, worker, incarnation, {"state": int(State.DRAINING)})


async def resume(store: Store, worker: Worker, incarnation: int) -> Id | Refused:
    """Take new blocks again: the draining is called off."""
    return await _change(store, worker, incarnation, {"state": int(State.LIVE)})


async def suspect(
    store: Store, worker: Worker, incarnation: int, *, suspected: bool
) -> Id | Refused:
    """Say that the worker's events have a gap (or none any more): until then it is not claimed."""
    return await _change(store, worker, incarnation, {"suspect": suspected})


async def _change(
    store: Store, worker: Worker, incarnation: int, fields: dict[str, int]
) -> Id | Refused:
    key = keys.identity(worker)

    async def change(txn: Transaction) -> Id | Reason:
        value = await txn.get(key)
        if value is None:
            return Reason.UNKNOWN
        before = decode(Id, value)
        if before.incarnation != incarnation or before.state == State.FENCED:
            return Reason.FENCED
        after = msgspec.structs.replace(before, **fields)
        if after != before:
            txn.put(key, ENCODE(after))
        return after

    return refusable(await store.transact(change))


def refusable(done: Committed[Id | Reason]) -> Id | Refused:
    """What a transaction gave, or why it did nothing."""
    return Refused(done.value, done.at) if isinstance(done.value, Reason) else done.value


def still_lives(rules: Rules, registration: Registration) -> None:
    """The worker has the incarnation that it thinks it has, and nobody has ended it."""
    key = keys.identity(registration.worker)
    rules.field(Reason.FENCED, key, Id, "incarnation", registration.identity.incarnation)
    rules.field(Reason.FENCED, key, Id, "state", int(State.FENCED), compare=Compare.NOT_EQUAL)


def may_publish(rules: Rules, registration: Registration, tier: int) -> None:
    """The worker lives, takes blocks, has its lease, and the tier was not cleared meanwhile.

    The first thing that is required: every publish of a worker rests on the same conditions.
    """
    rules.rest_on(registration.grounds.get(tier) or _may_publish(registration, tier))


def _may_publish(registration: Registration, tier: int) -> Rules:
    rules = Rules()
    key = keys.identity(registration.worker)
    identity = registration.identity
    rules.field(Reason.FENCED, key, Id, "incarnation", identity.incarnation)
    rules.field(Reason.NOT_LIVE, key, Id, "state", int(State.LIVE))
    rules.field(Reason.CLEARED, key, Id, EPOCHS[tier], identity.epoch(tier))
    lease = keys.lease(registration.worker)
    rules.field(Reason.EXPIRED, lease, Lease, "expiry_ns", Own.TIME_NS, Compare.GREATER)
    return registration.ground(tier, rules)
