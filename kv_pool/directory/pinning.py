"""Claims: what is acquired stays until it is released or its time has passed.

A learner proposes rows (`kv_pool.learner.Cover`); an *acquire* checks in the worker's own partition that
each of them still is what it was and writes one *pin* for each, all in one transaction. From its
stamp on, until the pins expire, no transaction evicts those blocks (an engine that drops its own
blocks is told what it broke). The stamp is the claim's *token*: whoever serves bytes for a claim can
refuse an older one.

All ranks of a worker use one claim, so they agree on its length.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from kv_pool import keys
from kv_pool.blocks import NAME_BYTES, is_weak
from kv_pool.keys import Worker
from kv_pool.learner import Cover, Piece
from kv_pool.namespace import DIGEST_BYTES
from kv_pool.records import ENCODE, EPOCHS, Id, Lease, Phase, Pin, Run, State, decode, decode_run
from kv_pool.shots import Compare, Done, Own, Reason, Refused, Rules, Store, Transaction
from truetime import timestamp


class Held(Struct, frozen=True):
    """One row of a claim: which, how many of its blocks, and the row as it was."""

    part: bytes
    blocks: int
    run: Run


class Claim(Struct, frozen=True):
    """Blocks that stay.

    number      16 bytes that name the claim
    holder      who has it
    blocks      from the prompt's beginning on
    expiry_ns   until when, nanoseconds since the Unix epoch; in bounded time: it holds as long as the
                latest moment that it can be is before
    token       stamp of the acquire
    renewed_at  stamp of the latest renewal; 0 before the first one
    """

    worker: Worker
    incarnation: int
    number: bytes
    holder: str
    blocks: int
    held: tuple[Held, ...]
    expiry_ns: int
    token: int
    renewed_at: int = 0


async def acquire(
    store: Store,
    cover: Cover,
    holder: str,
    number: bytes,
    expiry_ns: int,
    blocks_min: int = 0,
) -> Claim | Refused:
    """Claim the beginning of a prompt on one worker: one round trip when the cover is right.

    number      16 random bytes, of this claim alone
    expiry_ns   when the claim ends by itself
    blocks_min  how much it must be; 0 for all that the cover names

    When the cover is out of date the claim is made on what is there of it, if that is enough; else
    it is refused, with how much there would be.
    """
    held = tuple(
        [
            Held(keys.run_id(piece.namespace, piece.tier, piece.first), piece.blocks, piece.run)
            for piece in cover.pieces
        ]
    )
    rules = Rules()
    _serves(rules, cover.worker, cover.identity, [piece.tier for piece in cover.pieces])
    for piece, one in zip(cover.pieces, held, strict=True):
        _is_there(rules, cover.worker, piece, one)
        pin = Pin(holder, expiry_ns, one.blocks, one.run.generation)
        rules.write(keys.pin(cover.worker, one.part, number), ENCODE(pin))
    outcome = await rules.shoot(store)
    incarnation = cover.identity.incarnation
    if isinstance(outcome, Done):
        return Claim(
            cover.worker, incarnation, number, holder, cover.blocks, held, expiry_ns, outcome.at
        )
    return await _acquire_rest(store, cover, holder, number, expiry_ns, blocks_min or cover.blocks)


async def _acquire_rest(
    store: Store, cover: Cover, holder: str, number: bytes, expiry_ns: int, blocks_min: int
) -> Claim | Refused:
    """The cover is out of date: look what there is, and take it if it is enough."""

    async def take(txn: Transaction) -> tuple[int, Id, tuple[Held, ...]] | tuple[Reason, int]:
        value = await txn.get(keys.identity(cover.worker))
        lease = await txn.get(keys.lease(cover.worker))
        if value is None or lease is None:
            return Reason.UNKNOWN, 0
        identity = decode(Id, value)
        if identity.state == State.FENCED:
            return Reason.FENCED, 0
        if identity.suspect:
            return Reason.SUSPECT, 0
        if decode(Lease, lease).expiry_ns <= timestamp.time_ns(txn.at):
            return Reason.EXPIRED, 0
        held = await _what_is_there(txn, cover, identity)
        blocks = sum([one.blocks for one in held])
        if blocks < max(1, blocks_min):
            return Reason.TOO_SHORT, blocks
        for one in held:
            pin = Pin(holder, expiry_ns, one.blocks, one.run.generation)
            txn.put(keys.pin(cover.worker, one.part, number), ENCODE(pin))
        return blocks, identity, held

    done = await store.transact(take)
    match done.value:
        case (Reason() as reason, int(blocks)):
            return Refused(reason, done.at, blocks)
        case (int(blocks), Id() as identity, held):
            return Claim(
                cover.worker,
                identity.incarnation,
                number,
                holder,
                blocks,
                held,
                expiry_ns,
                done.at,
            )


async def _what_is_there(txn: Transaction, cover: Cover, identity: Id) -> tuple[Held, ...]:
    """The beginning of a cover that still is as it says."""
    held = []
    for piece in cover.pieces:
        part = keys.run_id(piece.namespace, piece.tier, piece.first)
        row = await txn.get(cover.worker.prefix + keys.RUN + part)
        run = None if row is None else decode_run(row)
        if run is None or not run.is_valid(identity, piece.tier) or not run.live:
            break
        blocks = min(run.live, piece.blocks)
        same = run.names.startswith(piece.run.names[: NAME_BYTES * blocks])
        if not same or (run.parent, run.depth) != (piece.run.parent, piece.run.depth):
            break
        held.append(Held(part, blocks, run))
        if blocks < piece.blocks:
            break
    return tuple(held)


async def renew(store: Store, claim: Claim, expiry_ns: int) -> Claim | Refused:
    """Hold the claim until `expiry_ns`. Refused as LOST once it has run out or was voided, as CLEARED when
    its tier was: what was claimed may be gone then, and no later claim makes up for that."""
    rules = Rules()
    identity = keys.identity(claim.worker)
    rules.field(Reason.FENCED, identity, Id, "incarnation", claim.incarnation)
    for tier, epoch in sorted({(one.part[DIGEST_BYTES], one.run.epoch) for one in claim.held}):
        # Clearing a tier leaves rows and pins where they are, and they count for nothing.
        rules.field(Reason.CLEARED, identity, Id, EPOCHS[tier], epoch)
    for one in claim.held:
        key = keys.pin(claim.worker, one.part, claim.number)
        row = claim.worker.prefix + keys.RUN + one.part
        rules.field(Reason.LOST, key, Pin, "expiry_ns", Own.TIME_NS, Compare.GREATER)
        rules.field(Reason.LOST, row, Run, "generation", one.run.generation)
        rules.field(Reason.LOST, row, Run, "live", one.blocks, Compare.AT_LEAST)
        pin = Pin(claim.holder, expiry_ns, one.blocks, one.run.generation, claim.token)
        rules.write(key, ENCODE(pin))
    outcome = await rules.shoot(store)
    if isinstance(outcome, Refused):
        return outcome
    return msgspec.structs.replace(claim, expiry_ns=expiry_ns, renewed_at=outcome.at)


async def release(store: Store, claim: Claim) -> Done | Refused:
    """Give the claim back. Harmless when it has ended already, so nobody needs to wait for it."""
    rules = Rules()
    for one in claim.held:
        rules.write(keys.pin(claim.worker, one.part, claim.number), None)
    return await rules.shoot(store)


def _serves(rules: Rules, worker: Worker, identity: Id, tiers: Sequence[int]) -> None:
    """The worker is who it was, lives, and none of the tiers was cleared."""
    key = keys.identity(worker)
    rules.field(Reason.FENCED, key, Id, "incarnation", identity.incarnation)
    rules.field(Reason.FENCED, key, Id, "state", int(State.FENCED), Compare.NOT_EQUAL)
    rules.field(Reason.SUSPECT, key, Id, "suspect", False)
    for tier in sorted(set(tiers)):
        rules.field(Reason.CLEARED, key, Id, EPOCHS[tier], identity.epoch(tier))
    lease = keys.lease(worker)
    rules.field(Reason.EXPIRED, lease, Lease, "expiry_ns", Own.TIME_NS, Compare.GREATER)


def _is_there(rules: Rules, worker: Worker, piece: Piece, held: Held) -> None:
    """The row is the one that was seen, with as many blocks as are claimed."""
    key = worker.prefix + keys.RUN + held.part
    run = held.run
    rules.field(Reason.CHANGED, key, Run, "generation", run.generation)
    rules.field(Reason.CHANGED, key, Run, "phase", int(Phase.READY))
    rules.field(Reason.CHANGED, key, Run, "live", held.blocks, Compare.AT_LEAST)
    if is_weak(piece.first):
        # 64 bits alone may be those of another prompt: then it stands elsewhere.
        rules.field(Reason.CHANGED, key, Run, "parent", run.parent)
        rules.field(Reason.CHANGED, key, Run, "depth", run.depth)
