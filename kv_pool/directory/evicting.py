"""Evicting: a pool asks, an engine tells.

Whoever manages a tier through the directory *asks* (`evict`): while a claim is on a run it is refused, or
the run is put on its way out (`retire`), so that nobody claims it any more and it can go when the
last claim has ended. Claims cover the beginning of a run; `trim` drops what lies behind all of them.
Bytes may be freed when the answer is there, not before: the answer waits until the transaction's
stamp, and with it every claim that had run out, has certainly passed.

An engine evicts when it must and *tells* (`report`): that is always accepted. What it breaks is said
claim by claim.

`evict_guarded` keeps the last copy of a run in its region: it reads the other copies in the
same transaction, so of two that evict the last two copies at the same time one is refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec
from msgspec import Struct

from kv_pool import keys
from kv_pool.blocks import NAME_BYTES, Names
from kv_pool.directory.membership import Registration, still_lives
from kv_pool.keys import Worker
from kv_pool.records import ENCODE, TIERS, Id, Lease, Phase, Pin, Run, decode, decode_run, position
from kv_pool.shots import (
    SCAN_ROWS_MAX,
    Compare,
    Done,
    NoRow,
    Own,
    Reason,
    Refused,
    Rules,
    Store,
    Transaction,
    prefix_end,
)
from truetime import timestamp


class Voided(Struct, frozen=True):
    """A claim that an engine broke: the run's part of the key, the claim's number, the pin."""

    part: bytes
    number: bytes
    pin: Pin


class Reported(Struct, frozen=True):
    """What an engine's report did: the rows as they are now (None: gone), the claims it broke."""

    at: int
    runs: tuple[tuple[bytes, Run | None], ...]
    voided: tuple[Voided, ...]


class Trimmed(Struct, frozen=True):
    """What is left of a run: its first `keep` blocks."""

    at: int
    keep: int


class Retired(Struct, frozen=True):
    """A run that is on its way out: the row as it is now."""

    at: int
    run: Run


async def evict(
    store: Store, registration: Registration, part: bytes, run: Run, keep: int = 0
) -> Done | Refused:
    """Ask to drop a run, or all of it behind its first `keep` blocks."""
    return await _eviction(registration, part, run, keep).shoot(store)


async def trim(
    store: Store, registration: Registration, part: bytes, run: Run, keep: int = 0
) -> Trimmed | Refused:
    """Ask to drop all of a run behind its first `keep` blocks, as far as no claim covers it.

    Refused as PINNED only if claims cover all of the run. What is left behind the `keep` that was asked for is
    claimed; the claims go on, and can be renewed.
    """
    outcome = await evict(store, registration, part, run, keep)
    if not isinstance(outcome, Refused):
        return Trimmed(outcome.at, keep)
    if outcome.reason is not Reason.PINNED:
        return outcome
    return await _trim_behind_claims(store, registration, part, run, keep)


async def _trim_behind_claims(
    store: Store, registration: Registration, part: bytes, run: Run, keep: int
) -> Trimmed | Refused:
    """Look how far claims reach, and drop what lies behind: a claim that is made meanwhile is refused, or
    this one begins anew with it."""
    worker = registration.worker
    rules = _as_seen(registration, part, run, shortens=True)

    async def drop(txn: Transaction) -> int | Reason:
        reason = await rules.apply(txn)
        if reason is not None:
            return reason
        left, pins = keep, 0
        async for _, value in _pins(txn, worker, part):
            pins += 1
            pin = decode(Pin, value)
            if pin.expiry_ns > timestamp.time_ns(txn.at):
                left = max(left, pin.blocks)
        if left >= run.live or pins == SCAN_ROWS_MAX:  # There may be more than were looked at.
            return Reason.PINNED
        key = worker.prefix + keys.RUN + part
        if left:
            txn.put(key, ENCODE(msgspec.structs.replace(run, live=left)))
        else:
            txn.delete(key)
        return left

    done = await store.transact(drop)
    if isinstance(done.value, Reason):
        return Refused(done.value, done.at)
    return Trimmed(done.at, done.value)


async def retire(
    store: Store, registration: Registration, part: bytes, run: Run
) -> Retired | Refused:
    """Let nobody claim the run any more; who has a claim keeps it.

    Refused as PINNED while a move from elsewhere counts on it: the other copy may have left for this one.
    """
    rules, after = retiring(registration, part, run)
    outcome = await rules.shoot(store)
    return outcome if isinstance(outcome, Refused) else Retired(outcome.at, after)


def retiring(registration: Registration, part: bytes, run: Run) -> tuple[Rules, Run]:
    """The rules of `retire`, and the row as it is then."""
    key = registration.worker.prefix + keys.RUN + part
    rules = Rules()
    still_lives(rules, registration)
    rules.field(Reason.CHANGED, key, Run, "generation", run.generation)
    rules.field(Reason.CHANGED, key, Run, "live", run.live)
    may_leave(rules, registration.worker, part)
    after = msgspec.structs.replace(run, phase=int(Phase.DRAINING))
    rules.write(key, ENCODE(after))
    return rules, after


def may_leave(rules: Rules, worker: Worker, part: bytes) -> None:
    """No move counts on the run: see `Pin.offered_ns`."""
    offered = NoRow(
        keys.pins(worker, part), position(Pin, "offered_ns"), Compare.GREATER, Own.TIME_NS
    )
    rules.require(Reason.PINNED, offered)


async def evict_guarded(
    store: Store,
    registration: Registration,
    part: bytes,
    run: Run,
    others: Sequence[Worker],
) -> Done | Refused:
    """Drop a run if one of the `others` has all of it, in any tier; else refuse as LAST_COPY.

    others  of the same region, as a learner names them
    """
    rules = _eviction(registration, part, run, 0)

    async def drop(txn: Transaction) -> Reason | None:
        for other in others:
            if other != registration.worker and await _has(txn, other, part, run):
                return await rules.apply(txn)
        return Reason.LAST_COPY

    done = await store.transact(drop)
    return Done(done.at) if done.value is None else Refused(done.value, done.at)


async def report(
    store: Store,
    registration: Registration,
    part: bytes,
    generation: int,
    gone: frozenset[int],
    number: int,
) -> Reported | Refused:
    """Blocks of a run, by their places in it, are gone from an engine's tier.

    What is left before the first of them stays under the row's key; each stretch behind becomes a
    row of its own, with `number` for its generation. Every claim that covers one of the blocks is
    void, and named; the others stay. Nothing happens when the row is not of this generation: the
    run that is meant went before.
    """
    worker = registration.worker
    key = worker.prefix + keys.RUN + part

    async def drop(
        txn: Transaction,
    ) -> tuple[list[tuple[bytes, Run | None]], list[Voided]] | Reason:
        value = await txn.get(keys.identity(worker))
        if value is None or decode(Id, value).incarnation != registration.identity.incarnation:
            return Reason.FENCED
        row = await txn.get(key)
        if row is None:
            return [], []
        run = decode_run(row)
        left = [place for place in range(run.live) if place not in gone]
        if len(left) == run.live or run.generation != generation:
            return [], []
        head = 0
        while head < len(left) and left[head] == head:
            head += 1
        voided = []
        async for pin_row in _pins(txn, worker, part):
            pin = decode(Pin, pin_row[1])
            if pin.blocks > head:
                txn.delete(pin_row[0])
                if pin.expiry_ns > timestamp.time_ns(txn.at) and pin.generation == run.generation:
                    voided.append(Voided(part, pin_row[0][-keys.PIN_BYTES :], pin))
        rows: list[tuple[bytes, Run | None]] = []
        if head:
            shorter = msgspec.structs.replace(run, live=head)
            txn.put(key, ENCODE(shorter))
            rows.append((part, shorter))
        else:
            txn.delete(key)
            rows.append((part, None))
        for start, end in _stretches(left[head:]):
            piece = cut(run, start, end, registration.generation(number))
            name = piece.names[:NAME_BYTES]
            piece_part = part[:-NAME_BYTES] + name
            txn.put(worker.prefix + keys.RUN + piece_part, ENCODE(piece))
            rows.append((piece_part, piece))
        return rows, voided

    done = await store.transact(drop)
    if isinstance(done.value, Reason):
        return Refused(done.value, done.at)
    rows, voided = done.value
    return Reported(done.at, tuple(rows), tuple(voided))


def cut(run: Run, start: int, end: int, generation: int) -> Run:
    """Blocks of a run as a run of their own."""
    names: Names = run.names[start * NAME_BYTES : end * NAME_BYTES]
    width = len(run.engine) * NAME_BYTES // len(run.names)
    return msgspec.structs.replace(
        run,
        parent=run.names[(start - 1) * NAME_BYTES : start * NAME_BYTES] if start else run.parent,
        depth=run.depth + start,
        names=names,
        live=end - start,
        generation=generation,
        locator=run.locator if not start else b"",
        engine=run.engine[start * width : end * width],
        content=run.content[start * NAME_BYTES : end * NAME_BYTES],
    )


def _eviction(registration: Registration, part: bytes, run: Run, keep: int) -> Rules:
    if not 0 <= keep < run.live:
        raise ValueError(f"{keep} of {run.live} blocks cannot be kept by an eviction")
    worker = registration.worker
    key = worker.prefix + keys.RUN + part
    rules = _as_seen(registration, part, run, shortens=keep > 0)
    expiry = position(Pin, "expiry_ns")
    pins = keys.pins(worker, part)
    rules.require(Reason.PINNED, NoRow(pins, expiry, Compare.GREATER, Own.TIME_NS))
    rules.write(key, ENCODE(msgspec.structs.replace(run, live=keep)) if keep else None)
    return rules


def _as_seen(registration: Registration, part: bytes, run: Run, *, shortens: bool) -> Rules:
    """The worker lives, and the row is the one that was seen."""
    key = registration.worker.prefix + keys.RUN + part
    rules = Rules()
    still_lives(rules, registration)
    rules.field(Reason.CHANGED, key, Run, "generation", run.generation)
    rules.field(Reason.CHANGED, key, Run, "live", run.live)
    if shortens:
        # What is left is written as it was seen: a run on its way out must not come back by that.
        rules.field(Reason.CHANGED, key, Run, "phase", int(run.phase))
    return rules


async def _has(txn: Transaction, worker: Worker, part: bytes, run: Run) -> bool:
    """Whether a worker has all blocks of a run, in any tier, under the same first name."""
    value = await txn.get(keys.identity(worker))
    lease = await txn.get(keys.lease(worker))
    if value is None or lease is None:
        return False
    if decode(Lease, lease).expiry_ns <= timestamp.time_ns(txn.at):
        return False
    identity = decode(Id, value)
    for tier in range(TIERS):
        other_part = part[: -NAME_BYTES - 1] + tier.to_bytes(1, "big") + part[-NAME_BYTES:]
        row = await txn.get(worker.prefix + keys.RUN + other_part)
        if row is None:
            continue
        other = decode_run(row)
        if other.is_valid(identity, tier) and other.live_names().startswith(run.live_names()):
            return True
    return False


async def _pins(
    txn: Transaction, worker: Worker, part: bytes
) -> AsyncIterator[tuple[bytes, bytes]]:
    """Keys and values of all pins of a run, those that have run out included."""
    prefix = keys.pins(worker, part)
    async for row in txn.scan(prefix, prefix_end(prefix), SCAN_ROWS_MAX):
        yield row.key, row.value


def _stretches(places: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending places as half-open intervals of consecutive ones."""
    found: list[tuple[int, int]] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found
