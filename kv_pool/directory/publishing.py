"""Publishing: a stretch of a prompt becomes known whole, or not at all.

What a worker computed is one stretch of blocks behind one it has already. It becomes one row, a *run*;
a very long one several rows, in one transaction. The conditions are what makes it safe: the worker
is who it thinks it is, alive and not cleared meanwhile, and the block before the first one is there.

::

    publish ─────────────────────────────▶ READY          the blocks are there
    extend  ────────────────▶ READY, longer               more blocks at the end of a run
    reserve ──▶ RESERVED ──commit──▶ READY                the blocks are under way
                    └──────abort───▶ (no row)             or the deadline passed, and a sweep came by

Publishing again what is there already, after an answer was lost, changes nothing: the generation in the
row says whose it is. Rows of an earlier life under the same key are written over.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from kv_pool import keys
from kv_pool.blocks import NAME_BYTES, ROOT_NAME, Names
from kv_pool.directory.membership import Registration, may_publish, still_lives
from kv_pool.records import ENCODE, Cursor, Grant, Id, Phase, Run, decode, decode_run
from kv_pool.shots import (
    Absent,
    Compare,
    Done,
    Own,
    Reason,
    Refused,
    Rules,
    Store,
    Transaction,
)
from truetime import timestamp

RUN_BLOCKS_MAX: Final = 1_024
"""Blocks of one row, at most: 16 KiB of names."""


class Parent(Struct, frozen=True):
    """The block before a stretch: in which run of the same worker, and the how-many-th there."""

    tier: int
    first: bytes
    generation: int
    blocks: int


class Stretch(Struct, frozen=True, kw_only=True):
    """Blocks to publish.

    depth       how many blocks of the prompt lie before them
    parent      where the block before them is; None at the beginning of a prompt
    number      differs for each stretch of one life of the worker
    parent_name its name; `ROOT_NAME` at the beginning of a prompt
    stream      event stream and sequence that brought them, to apply each event once
    used_bytes  what the tenant has on this worker with them, if it has a quota
    """

    namespace: bytes
    tier: int
    names: Names
    depth: int
    number: int
    parent: Parent | None = None
    parent_name: bytes = ROOT_NAME
    locator: bytes = b""
    stride: int = 0
    shards: int = 1
    engine: bytes = b""
    content: bytes = b""
    stream: tuple[str, bytes, int] | None = None
    tenant: str = ""
    used_bytes: int = 0


class Published(Struct, frozen=True):
    """The rows of a stretch: name of the first block and row, in order. `again`: they were there."""

    at: int
    runs: tuple[tuple[bytes, Run], ...]
    again: bool = False


async def publish(
    store: Store, registration: Registration, stretch: Stretch
) -> Published | Refused:
    """Make a stretch known: one round trip, one transaction."""
    return await _enter(store, registration, stretch, Phase.READY, 0)


async def find(store: Store, registration: Registration, stretch: Stretch) -> Published | None:
    """The rows of a stretch, if an earlier `publish` of it has taken and they are whole: one read."""
    runs = rows_of(registration, stretch, Phase.READY)

    async def look(txn: Transaction) -> bool:
        for first, run in runs:
            key = keys.run(registration.worker, stretch.namespace, stretch.tier, first)
            value = await txn.get(key)
            if value is None or decode_run(value).generation != run.generation:
                return False
        return True

    done = await store.transact(look)
    return Published(done.at, runs, again=True) if done.value else None


async def extend(
    store: Store, registration: Registration, stretch: Stretch, before: int
) -> Published | Refused:
    """Make a run of `before` blocks longer, where it ends: one round trip, one row as it was.

    stretch  the run as it is to be, whole, with the number it was published with. Who claims the
             first blocks is not concerned: the generation stays.

    Refused as CHANGED when the row is another one, has another length by now, or was ever shortened.
    """
    runs = rows_of(registration, stretch, Phase.READY)
    if len(runs) != 1 or not 0 < before < runs[0][1].live:
        raise ValueError(f"a run of {before} blocks does not become one of {stretch.names!r}")
    first, run = runs[0]
    key = keys.run(registration.worker, stretch.namespace, stretch.tier, first)
    rules = Rules()
    may_publish(rules, registration, stretch.tier)
    _is_new(rules, registration, stretch)
    _fits_quota(rules, registration, stretch)
    rules.field(Reason.CHANGED, key, Run, "generation", run.generation)
    rules.field(Reason.CHANGED, key, Run, "phase", int(Phase.READY))
    rules.field(Reason.CHANGED, key, Run, "epoch", run.epoch)
    rules.field(Reason.CHANGED, key, Run, "live", before)
    # One that was shortened names more than it has. Somebody may still know where the rest was, under the
    # same generation: it grows no more.
    rules.field(Reason.CHANGED, key, Run, "names", run.names[: before * NAME_BYTES])
    rules.write(key, ENCODE(run))
    outcome = await rules.shoot(store)
    if not isinstance(outcome, Refused):
        return Published(outcome.at, runs)
    if outcome.reason is not Reason.CHANGED:
        return outcome

    async def look(txn: Transaction) -> bool:
        value = await txn.get(key)
        return value is not None and decode_run(value) == run

    done = await store.transact(look)
    # The same was done before, and its answer lost.
    return Published(done.at, runs, again=True) if done.value else outcome


async def reserve(
    store: Store, registration: Registration, stretch: Stretch, deadline_ns: int
) -> Published | Refused:
    """Announce a stretch that is under way, until `deadline_ns`; nobody is handed it before
    `commit`. Refused as IN_FLIGHT while an earlier announcement of this worker stands."""
    return await _enter(store, registration, stretch, Phase.RESERVED, deadline_ns)


async def commit(
    store: Store, registration: Registration, stretch: Stretch, reserved: Published
) -> Published | Refused:
    """What was announced is there. Refused as CHANGED when the announcement stands no more."""
    rules = Rules()
    may_publish(rules, registration, stretch.tier)
    _has_parent(rules, registration, stretch)
    ready = []
    for first, run in reserved.runs:
        key = keys.run(registration.worker, stretch.namespace, stretch.tier, first)
        rules.field(Reason.CHANGED, key, Run, "generation", run.generation)
        rules.field(Reason.CHANGED, key, Run, "phase", int(Phase.RESERVED))
        rules.field(Reason.CHANGED, key, Run, "deadline_ns", Own.TIME_NS, Compare.GREATER)
        run = msgspec.structs.replace(run, phase=int(Phase.READY), deadline_ns=0)
        rules.write(key, ENCODE(run))
        ready.append((first, run))
    outcome = await rules.shoot(store)
    return outcome if isinstance(outcome, Refused) else Published(outcome.at, tuple(ready))


async def abort(
    store: Store, registration: Registration, stretch: Stretch, reserved: Published
) -> Done | Refused:
    """What was announced will not come."""
    rules = Rules()
    still_lives(rules, registration)
    for first, run in reserved.runs:
        key = keys.run(registration.worker, stretch.namespace, stretch.tier, first)
        rules.field(Reason.CHANGED, key, Run, "generation", run.generation)
        rules.field(Reason.CHANGED, key, Run, "phase", int(Phase.RESERVED))
        rules.write(key, None)
    return await rules.shoot(store)


def rows_of(
    registration: Registration, stretch: Stretch, phase: Phase, deadline_ns: int = 0
) -> tuple[tuple[bytes, Run], ...]:
    """The rows that a stretch becomes."""
    size = RUN_BLOCKS_MAX * NAME_BYTES
    width = len(stretch.engine) * NAME_BYTES // len(stretch.names) if stretch.names else 0
    identity = registration.identity
    generation = registration.generation(stretch.number)
    rows = []
    for at in range(0, len(stretch.names), size):
        names = stretch.names[at : at + size]
        blocks = len(names) // NAME_BYTES
        skipped = at // NAME_BYTES
        run = Run(
            identity.incarnation,
            identity.epoch(stretch.tier),
            stretch.names[at - NAME_BYTES : at] if at else stretch.parent_name,
            stretch.depth + skipped,
            names,
            blocks,
            int(phase),
            generation,
            deadline_ns,
            stretch.locator,
            stretch.stride,
            stretch.shards,
            stretch.engine[skipped * width : (skipped + blocks) * width],
            stretch.content[at : at + size],
        )
        rows.append((names[:NAME_BYTES], run))
    return tuple(rows)


async def _enter(
    store: Store, registration: Registration, stretch: Stretch, phase: Phase, deadline_ns: int
) -> Published | Refused:
    if not stretch.names or len(stretch.names) % NAME_BYTES:
        raise ValueError(f"{len(stretch.names)} bytes are not the names of some blocks")
    if (stretch.parent is None) != (stretch.depth == 0):
        raise ValueError("a stretch has a parent, unless it begins a prompt")
    runs = rows_of(registration, stretch, phase, deadline_ns)
    rules = Rules()
    may_publish(rules, registration, stretch.tier)
    _has_parent(rules, registration, stretch)
    _is_new(rules, registration, stretch)
    _fits_quota(rules, registration, stretch)
    places = []
    for first, run in runs:
        key = keys.run(registration.worker, stretch.namespace, stretch.tier, first)
        places.append(len(rules.conditions))
        rules.require(Reason.TAKEN, Absent(key))
        rules.write(key, ENCODE(run))
    outcome = await rules.shoot(store)
    if not isinstance(outcome, Refused):
        return Published(outcome.at, runs)
    if outcome.reason is not Reason.TAKEN:
        return outcome
    return await _enter_over(store, registration, stretch, runs, rules, places[0])


async def _enter_over(
    store: Store,
    registration: Registration,
    stretch: Stretch,
    runs: tuple[tuple[bytes, Run], ...],
    rules: Rules,
    places: int,
) -> Published | Refused:
    """The rows are there: as ours already, as somebody's of now, or as remains to write over."""
    rest = Rules()
    for condition, reason in zip(rules.conditions[:places], rules.reasons, strict=False):
        rest.require(reason, condition)
    for key, value in rules.writes:
        rest.write(key, value)

    async def enter(txn: Transaction) -> Reason | bool:
        same = 0
        for first, run in runs:
            key = keys.run(registration.worker, stretch.namespace, stretch.tier, first)
            value = await txn.get(key)
            if value is None:
                continue
            there = decode_run(value)
            if there.generation == run.generation:
                same += 1
                continue
            identity = await txn.get(keys.identity(registration.worker))
            if identity is None:
                return Reason.FENCED
            reason = stands(there, decode(Id, identity), stretch.tier, txn.at)
            if reason is not None:
                return reason
        if same == len(runs):
            return True
        reason = await rest.apply(txn)
        return False if reason is None else reason

    done = await store.transact(enter)
    if isinstance(done.value, Reason):
        return Refused(done.value, done.at)
    return Published(done.at, runs, again=done.value)


def stands(run: Run, identity: Id, tier: int, at: int) -> Reason | None:
    """Why a row must not be written over at a stamp; None for what counts for nothing."""
    if run.incarnation != identity.incarnation or run.epoch != identity.epoch(tier):
        return None
    if run.phase == Phase.RESERVED:
        return Reason.IN_FLIGHT if run.deadline_ns > timestamp.time_ns(at) else None
    return Reason.TAKEN


def _has_parent(rules: Rules, registration: Registration, stretch: Stretch) -> None:
    """The block before the stretch is there: in a ready run of this life, long enough.

    Prompts branch off from few blocks, so this too is shared by many.
    """
    parent = stretch.parent
    if parent is not None:
        known = registration.grounds.get((stretch.namespace, parent))
        rules.rest_on(known or _is_behind(registration, stretch, parent))


def _is_behind(registration: Registration, stretch: Stretch, parent: Parent) -> Rules:
    rules = Rules()
    key = keys.run(registration.worker, stretch.namespace, parent.tier, parent.first)
    epoch = registration.identity.epoch(parent.tier)
    rules.field(Reason.PARENT, key, Run, "generation", parent.generation)
    rules.field(Reason.PARENT, key, Run, "phase", int(Phase.READY))
    rules.field(Reason.PARENT, key, Run, "epoch", epoch)
    rules.field(Reason.PARENT, key, Run, "live", parent.blocks, Compare.AT_LEAST)
    return registration.ground((stretch.namespace, parent), rules)


def _is_new(rules: Rules, registration: Registration, stretch: Stretch) -> None:
    """The event that brought the stretch was not applied before; and now it is."""
    if stretch.stream is None:
        return
    name, boot, sequence = stretch.stream
    key = keys.cursor(registration.worker, name)
    rules.field(Reason.REPEATED, key, Cursor, "boot", boot)
    rules.field(Reason.REPEATED, key, Cursor, "sequence", sequence, Compare.LESS)
    rules.write(key, ENCODE(Cursor(boot, sequence)))


def _fits_quota(rules: Rules, registration: Registration, stretch: Stretch) -> None:
    """The tenant may have so many bytes on this worker. Only the worker knows what it has: it alone
    publishes, so nothing is counted up and down in the store."""
    if stretch.tenant:
        key = keys.quota(registration.worker, stretch.tenant)
        rules.field(Reason.QUOTA, key, Grant, "granted_bytes", stretch.used_bytes, Compare.AT_LEAST)


async def open_stream(
    store: Store, registration: Registration, stream: str, boot: bytes
) -> Cursor | Refused:
    """Begin to apply a stream of events, or go on: gives what is applied already.

    Another boot than before begins at the beginning.
    """
    key = keys.cursor(registration.worker, stream)

    async def begin(txn: Transaction) -> Cursor | Reason:
        value = await txn.get(keys.identity(registration.worker))
        if value is None:
            return Reason.UNKNOWN
        if decode(Id, value).incarnation != registration.identity.incarnation:
            return Reason.FENCED
        value = await txn.get(key)
        before = None if value is None else decode(Cursor, value)
        if before is not None and before.boot == boot:
            return before
        cursor = Cursor(boot, -1)
        txn.put(key, ENCODE(cursor))
        return cursor

    done = await store.transact(begin)
    return Refused(done.value, done.at) if isinstance(done.value, Reason) else done.value
