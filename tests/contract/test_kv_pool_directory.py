"""The directory's transactions: one meaning over a dictionary and over the real store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

import k2store
from k2store.testing import embedded
from kv_pool import keys
from kv_pool.directory import (
    evicting,
    membership,
    moving,
    ownership,
    pinning,
    publishing,
    quotas,
    sweeping,
)
from kv_pool.directory.membership import Registration, register
from kv_pool.directory.publishing import Parent, Published, Stretch, publish
from kv_pool.edge.store import DirectoryStore
from kv_pool.learner import Learner
from kv_pool.records import Id, Phase, Pin, State, decode, decode_run
from kv_pool.shots import Done, Reason, Refused, Store
from tests.contract.kv_pool_store import (
    BOOT,
    NAMESPACE,
    A,
    B,
    MemoryStore,
    names,
    soon,
)

Program = Callable[[Store], Awaitable[None]]
CLAIM = b"a claim's number"
OTHER_CLAIM = b"another claim's."


@pytest.fixture(params=["memory", "embedded"])
def run(request) -> Callable[[Program], None]:
    """Runs a program on a fresh store of each kind."""

    def execute(program: Program) -> None:
        async def main() -> None:
            if request.param == "memory":
                await program(MemoryStore())
            else:
                async with embedded(storage__sync=False) as db:
                    await program(DirectoryStore(db))

        asyncio.run(main())

    return execute


async def rows(store: Store) -> dict[bytes, bytes]:
    """Everything there is."""

    async def look(txn):
        await txn.get(b"-")
        return {row.key: row.value async for row in txn.scan(b"", b"", 4096)}

    return (await store.transact(look)).value


async def learner_of(store: Store) -> Learner:
    """A learner with what the store has now."""
    learner = Learner()
    learner.begin("all")
    learner.load("all", sorted((await rows(store)).items()))

    async def nothing(txn):
        return await txn.get(b"-")

    learner.finish("all", (await store.transact(nothing)).at)
    return learner


def stretch(*numbers: int, number: int = 1, **fields) -> Stretch:
    """A stretch of blocks; by default the beginning of a prompt on the host tier."""
    usual: dict[str, Any] = {"depth": 0, "tier": 1, "locator": b"here", "stride": 64}
    usual |= {"namespace": NAMESPACE, "names": names(*numbers), "number": number}
    return Stretch(**usual | fields)


def behind(registration: Registration, first: int, blocks: int, number: int, tier: int = 1) -> dict:
    """Fields of a stretch that goes on behind some blocks of an earlier one."""
    parent = Parent(tier, names(first), registration.generation(number), blocks)
    return {"parent": parent, "depth": blocks, "parent_name": names(99)}


async def one_worker(store: Store, worker=A, boot: bytes = BOOT) -> Registration:
    """A live worker."""
    return await register(store, worker, boot, soon())


def refused(outcome: object) -> Reason | None:
    """Why something was refused; None when it was not."""
    return outcome.reason if isinstance(outcome, Refused) else None


def test_lives_of_a_worker(run) -> None:
    """The same boot is the same life; another boot is another, and what the first still tries is
    refused: renewing, publishing, clearing."""

    async def program(store: Store) -> None:
        first = await one_worker(store)
        again = await register(store, A, BOOT, soon(), ("tcp://a:1",))
        assert again.identity.incarnation == first.identity.incarnation == 1
        assert again.identity.endpoints == ("tcp://a:1",)
        assert isinstance(await membership.renew(store, first, soon()), Done)
        second = await one_worker(store, boot=b"boot of another.")
        assert second.identity.incarnation == 2
        assert refused(await membership.renew(store, first, soon())) is Reason.FENCED
        assert refused(await publish(store, first, stretch(1))) is Reason.FENCED
        assert refused(await membership.clear(store, first, 1)) is Reason.FENCED
        assert isinstance(await publish(store, second, stretch(1)), Published)
        with pytest.raises(ValueError, match="boot id"):
            await register(store, A, b"short", soon())

    run(program)


def test_fencing(run) -> None:
    """A worker is fenced when its lease has run out, not before, and once; then nothing of it can
    be claimed, published or renewed, and it comes back with another incarnation."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        await publish(store, mine, stretch(1, 2))
        cover = (await learner_of(store)).cover(A, NAMESPACE, names(1, 2))
        assert cover is not None
        assert refused(await membership.fence(store, A, mine.identity)) is Reason.ALIVE
        await membership.renew(store, mine, soon(-1))
        claim = await pinning.acquire(store, cover, "me", CLAIM, soon())
        assert refused(claim) is Reason.EXPIRED
        assert refused(await publish(store, mine, stretch(3, number=2))) is Reason.EXPIRED
        assert isinstance(await membership.fence(store, A, mine.identity), Done)
        assert refused(await membership.fence(store, A, mine.identity)) is Reason.FENCED
        assert refused(await membership.renew(store, mine, soon())) is Reason.FENCED
        assert refused(await publish(store, mine, stretch(3, number=3))) is Reason.FENCED
        claim = await pinning.acquire(store, cover, "me", CLAIM, soon())
        assert refused(claim) is Reason.FENCED
        learner = await learner_of(store)
        assert learner.match(NAMESPACE, names(1, 2)).blocks == 0
        assert learner.cover(A, NAMESPACE, names(1, 2)) is None
        back = await one_worker(store)
        assert back.identity.incarnation == 3
        assert back.identity.state == State.LIVE

    run(program)


def test_clearing_a_tier(run) -> None:
    """Clearing is one row: runs of that tier count for nothing, those of others stay."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        await publish(store, mine, stretch(1, 2))
        await publish(store, mine, stretch(1, 2, tier=2, number=2))
        before = await rows(store)
        cleared = await membership.clear(store, mine, 1)
        assert isinstance(cleared, Registration)
        after = await rows(store)
        assert [key for key in after if after[key] != before.get(key)] == [keys.identity(A)]
        assert refused(await publish(store, mine, stretch(7, number=3))) is Reason.CLEARED
        learner = await learner_of(store)
        assert {one.tier for one in learner.match(NAMESPACE, names(1, 2)).depths} == {2}
        # Its remains are written over, and go in a sweep where they are not.
        assert isinstance(await publish(store, cleared, stretch(1, number=4)), Published)
        assert (await sweeping.sweep(store, A)).removed == 0

    run(program)


def test_clearing_changes_nothing_else(run) -> None:
    """Who clears one tier with an old idea of the worker does not bring another tier back, nor undo
    a suspicion; the same tier is cleared once."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        await publish(store, mine, stretch(1, 2))
        assert isinstance(await membership.clear(store, mine, 1), Registration)
        await membership.suspect(store, A, 1, suspected=True)
        second = await membership.clear(store, mine, 0)
        assert isinstance(second, Registration)
        assert (second.identity.epoch_device, second.identity.epoch_host) == (1, 1)
        assert second.identity.suspect
        assert (await learner_of(store)).match(NAMESPACE, names(1)).blocks == 0
        assert refused(await membership.clear(store, mine, 1)) is Reason.CLEARED
        nobody = Registration(B, mine.identity, 0)
        assert refused(await membership.clear(store, nobody, 1)) is Reason.UNKNOWN

    run(program)


def test_publishing_goes_on_behind_what_is_there(run) -> None:
    """A stretch is accepted behind a block that is there, and refused behind one that is not."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        await publish(store, mine, stretch(1, 2, 3, number=1))
        good = stretch(5, 6, number=2, **behind(mine, 1, 2, 1))
        assert isinstance(await publish(store, mine, good), Published)
        for wrong in (
            behind(mine, 1, 4, 1),  # More than there is.
            behind(mine, 1, 2, 7),  # Another life of the row.
            behind(mine, 9, 1, 1),  # No such row.
            behind(mine, 1, 2, 1, tier=2),  # Elsewhere.
        ):
            assert refused(await publish(store, mine, stretch(8, number=3, **wrong))) is (
                Reason.PARENT
            )
        learner = await learner_of(store)
        assert learner.match(NAMESPACE, names(1, 2, 5, 6)).blocks == 4
        assert learner.match(NAMESPACE, names(1, 2, 3)).blocks == 3
        assert learner.match(NAMESPACE, names(8)).blocks == 0
        for bad in (b"", b"odd"):
            with pytest.raises(ValueError, match="names of some blocks"):
                await publish(store, mine, msgspec.structs.replace(stretch(1), names=bad))
        with pytest.raises(ValueError, match="parent"):
            await publish(store, mine, stretch(1, depth=1))

    run(program)


def test_publishing_again_changes_nothing(run) -> None:
    """The same stretch twice is there once; another one under its key is refused; an event of a
    stream is applied once, also when its rows are gone since."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        first = await publish(store, mine, stretch(1, 2))
        before = await rows(store)
        again = await publish(store, mine, stretch(1, 2))
        assert isinstance(first, Published)
        assert isinstance(again, Published)
        assert again.again
        assert again.runs == first.runs
        assert await rows(store) == before
        assert refused(await publish(store, mine, stretch(1, 9, number=2))) is Reason.TAKEN
        cursor = await publishing.open_stream(store, mine, "kv", BOOT)
        assert not isinstance(cursor, Refused)
        assert cursor.sequence == -1
        event = stretch(4, number=3, stream=("kv", BOOT, 0))
        done = await publish(store, mine, event)
        assert isinstance(done, Published)
        part = keys.run_id(NAMESPACE, 1, names(4))
        await evicting.evict(store, mine, part, done.runs[0][1])
        assert refused(await publish(store, mine, event)) is Reason.REPEATED
        later = await publishing.open_stream(store, mine, "kv", BOOT)
        assert not isinstance(later, Refused)
        assert later.sequence == 0
        reset = await publishing.open_stream(store, mine, "kv", b"boot of another.")
        assert not isinstance(reset, Refused)
        assert reset.sequence == -1

    run(program)


def test_long_stretches_are_several_rows_at_one_stamp(run) -> None:
    """A stretch longer than a row is cut, published at once, and matches as one."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        many = b"".join(number.to_bytes(16, "big") for number in range(1, 2_501))
        engine = b"".join(number.to_bytes(32, "big") for number in range(1, 2_501))
        long = msgspec.structs.replace(stretch(1), names=many, engine=engine)
        done = await publish(store, mine, long)
        assert isinstance(done, Published)
        assert [run.live for _, run in done.runs] == [1024, 1024, 452]
        assert [run.depth for _, run in done.runs] == [0, 1024, 2048]
        assert b"".join(run.engine for _, run in done.runs) == engine
        learner = await learner_of(store)
        assert learner.match(NAMESPACE, many).blocks == 2_500
        cover = learner.cover(A, NAMESPACE, many)
        assert cover is not None
        claim = await pinning.acquire(store, cover, "me", CLAIM, soon())
        assert not isinstance(claim, Refused)
        assert claim.blocks == 2_500

    run(program)


def test_runs_grow_where_they_end(run) -> None:
    """A run becomes longer under a claim of its beginning; one that was shortened or written anew
    does not; doing the same again changes nothing."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        await publish(store, mine, stretch(1, 2))
        cover = (await learner_of(store)).cover(A, NAMESPACE, names(1, 2))
        assert cover is not None
        claim = await pinning.acquire(store, cover, "me", CLAIM, soon())
        assert not isinstance(claim, Refused)
        longer = stretch(1, 2, 3, 4)
        for again in (False, True):
            grown = await publishing.extend(store, mine, longer, 2)
            assert isinstance(grown, Published)
            assert grown.again is again
        assert (await learner_of(store)).match(NAMESPACE, names(1, 2, 3, 4)).blocks == 4
        assert not isinstance(await pinning.renew(store, claim, soon()), Refused)
        other = stretch(1, 2, 3, 5)
        assert refused(await publishing.extend(store, mine, other, 2)) is Reason.CHANGED
        another = stretch(1, 2, 3, 4, 5, number=2)
        assert refused(await publishing.extend(store, mine, another, 4)) is Reason.CHANGED
        for before in (0, 4):
            with pytest.raises(ValueError, match="does not become"):
                await publishing.extend(store, mine, longer, before)
        await one_worker(store, boot=b"boot of another.")
        assert refused(await publishing.extend(store, mine, longer, 2)) is Reason.FENCED

    run(program)


def test_shortened_runs_do_not_grow(run) -> None:
    """Whoever saw a run before it was shortened knows where its last blocks were, under the generation that
    it still has: were it to grow again they would be told of bytes that are others' by now."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        longer = stretch(1, 2, 3, 4)
        done = await publish(store, mine, longer)
        assert isinstance(done, Published)
        part, row = keys.run_id(NAMESPACE, 1, names(1)), done.runs[0][1]
        old = (await learner_of(store)).cover(A, NAMESPACE, names(1, 2, 3, 4))
        assert isinstance(await evicting.evict(store, mine, part, row, keep=2), Done)
        elsewhere = msgspec.structs.replace(longer, locator=b"elsewhere")
        assert refused(await publishing.extend(store, mine, elsewhere, 2)) is Reason.CHANGED
        assert old is not None
        assert refused(await pinning.acquire(store, old, "me", CLAIM, soon())) is Reason.TOO_SHORT

    run(program)


def test_clearing_ends_claims(run) -> None:
    """What was claimed in a tier that was cleared is gone: the claim is not renewed, though its rows are
    still there; claims in other tiers are."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        claims = []
        for tier, number in ((0, 1), (1, 2)):
            await publish(store, mine, stretch(number, number=number, tier=tier))
            cover = (await learner_of(store)).cover(A, NAMESPACE, names(number))
            assert cover is not None
            claim = await pinning.acquire(store, cover, "me", CLAIM, soon())
            assert isinstance(claim, pinning.Claim)
            claims.append(claim)
        cleared = await membership.clear(store, mine, 1)
        assert isinstance(cleared, Registration)
        assert refused(await pinning.renew(store, claims[1], soon())) is Reason.CLEARED
        renewed = await pinning.renew(store, claims[0], soon())
        assert isinstance(renewed, pinning.Claim)
        assert renewed.renewed_at > cleared.at

    run(program)


def test_reservations(run) -> None:
    """What is announced is not handed out; committed it is, aborted or late it is not."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        first = stretch(1, 2)
        reserved = await publishing.reserve(store, mine, first, soon())
        assert isinstance(reserved, Published)
        learner = await learner_of(store)
        assert learner.match(NAMESPACE, names(1)).blocks == 0
        assert [one.worker for one in learner.in_flight(NAMESPACE, names(1))] == [A]
        second = await publishing.reserve(store, mine, stretch(1, 2, number=2), soon())
        assert refused(second) is Reason.IN_FLIGHT
        done = await publishing.commit(store, mine, first, reserved)
        assert isinstance(done, Published)
        learner = await learner_of(store)
        assert learner.match(NAMESPACE, names(1, 2)).blocks == 2
        assert learner.in_flight(NAMESPACE, names(1)) == ()
        assert refused(await publishing.commit(store, mine, first, reserved)) is Reason.CHANGED
        assert refused(await publishing.abort(store, mine, first, reserved)) is Reason.CHANGED
        late = await publishing.reserve(store, mine, stretch(5, number=3), soon(-1))
        assert isinstance(late, Published)
        outcome = await publishing.commit(store, mine, stretch(5, number=3), late)
        assert refused(outcome) is Reason.CHANGED
        over = await publishing.reserve(store, mine, stretch(5, number=4), soon())
        assert isinstance(over, Published)
        aborted = await publishing.abort(store, mine, stretch(5, number=4), over)
        assert isinstance(aborted, Done)
        assert keys.run(A, NAMESPACE, 1, names(5)) not in await rows(store)

    run(program)


def test_claims_hold_off_eviction(run) -> None:
    """A claimed run cannot be evicted, shortened or not; put on its way out it is not claimed
    again; released it goes. A claim that has run out holds nothing."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        done = await publish(store, mine, stretch(1, 2, 3))
        assert isinstance(done, Published)
        (_, row), part = done.runs[0], keys.run_id(NAMESPACE, 1, names(1))
        cover = (await learner_of(store)).cover(A, NAMESPACE, names(1, 2, 3, 4))
        assert cover is not None
        claim = await pinning.acquire(store, cover, "me", CLAIM, soon())
        assert not isinstance(claim, Refused)
        assert (claim.blocks, claim.held[0].run.locator) == (3, b"here")
        assert claim.token > done.at
        for keep in (0, 1):
            outcome = await evicting.evict(store, mine, part, row, keep)
            assert refused(outcome) is Reason.PINNED
        renewed = await pinning.renew(store, claim, soon(90))
        assert not isinstance(renewed, Refused)
        pin = decode(Pin, (await rows(store))[keys.pin(A, part, CLAIM)])
        assert (pin.token, pin.expiry_ns, pin.holder) == (claim.token, renewed.expiry_ns, "me")
        retired = await evicting.retire(store, mine, part, row)
        assert isinstance(retired, evicting.Retired)
        leaving = retired.run
        # Whoever still has the row as it was before does not bring it back by shortening it.
        outcome = await evicting.evict(store, mine, part, row, 1)
        assert refused(outcome) is Reason.CHANGED
        other = await pinning.acquire(store, cover, "you", OTHER_CLAIM, soon())
        assert (refused(other), other.blocks) == (Reason.TOO_SHORT, 0)
        assert refused(await evicting.evict(store, mine, part, leaving)) is Reason.PINNED
        await pinning.release(store, renewed)
        assert refused(await pinning.renew(store, renewed, soon())) is Reason.LOST
        assert isinstance(await evicting.evict(store, mine, part, leaving), Done)
        assert refused(await evicting.evict(store, mine, part, leaving)) is Reason.CHANGED

    run(program)


def test_what_lies_behind_claims_goes(run) -> None:
    """Of a run whose beginning is claimed the rest is dropped: as much as was asked for, and no more than the
    longest claim leaves. The claims go on, and who comes next is given what is left."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        done = await publish(store, mine, stretch(1, 2, 3, 4, 5, 6))
        assert isinstance(done, Published)
        (_, row), part = done.runs[0], keys.run_id(NAMESPACE, 1, names(1))
        learner = await learner_of(store)
        claims = []
        for number, blocks in ((CLAIM, 2), (OTHER_CLAIM, 3)):
            cover = learner.cover(A, NAMESPACE, names(*range(1, blocks + 1)))
            assert cover is not None
            claims.append(await pinning.acquire(store, cover, "me", number, soon()))
        short, long = claims
        assert not isinstance(short, Refused)
        assert not isinstance(long, Refused)
        trimmed = await evicting.trim(store, mine, part, row, 5)
        assert isinstance(trimmed, evicting.Trimmed)
        assert trimmed.keep == 5
        assert refused(await evicting.trim(store, mine, part, row)) is Reason.CHANGED
        row = replace(row, live=5)
        trimmed = await evicting.trim(store, mine, part, row)
        assert isinstance(trimmed, evicting.Trimmed)
        assert trimmed.keep == 3
        row = replace(row, live=3)
        assert decode_run((await rows(store))[keys.run(A, NAMESPACE, 1, names(1))]) == row
        for keep in (0, 2):
            assert refused(await evicting.trim(store, mine, part, row, keep)) is Reason.PINNED
        assert not isinstance(await pinning.renew(store, long, soon(90)), Refused)
        cover = (await learner_of(store)).cover(A, NAMESPACE, names(1, 2, 3, 4))
        assert cover is not None
        assert cover.blocks == 3
        # The longest is given back: the shorter one holds its own.
        await pinning.release(store, long)
        trimmed = await evicting.trim(store, mine, part, row)
        assert isinstance(trimmed, evicting.Trimmed)
        assert trimmed.keep == 2
        await pinning.release(store, short)
        trimmed = await evicting.trim(store, mine, part, replace(row, live=2))
        assert isinstance(trimmed, evicting.Trimmed)
        assert trimmed.keep == 0
        assert keys.run(A, NAMESPACE, 1, names(1)) not in await rows(store)

    run(program)


def test_who_is_dead_trims_nothing(run) -> None:
    """A life that has ended drops nothing of the row that its next one has, claimed or not; nor does a row on its
    way out come back by being shortened."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        done = await publish(store, mine, stretch(1, 2, 3))
        assert isinstance(done, Published)
        (_, row), part = done.runs[0], keys.run_id(NAMESPACE, 1, names(1))
        cover = (await learner_of(store)).cover(A, NAMESPACE, names(1))
        assert cover is not None
        assert not isinstance(await pinning.acquire(store, cover, "me", CLAIM, soon()), Refused)
        assert isinstance(await evicting.retire(store, mine, part, row), evicting.Retired)
        assert refused(await evicting.trim(store, mine, part, row)) is Reason.CHANGED
        leaving = replace(row, phase=int(Phase.DRAINING))
        trimmed = await evicting.trim(store, mine, part, leaving)
        assert isinstance(trimmed, evicting.Trimmed)
        assert trimmed.keep == 1
        there = decode_run((await rows(store))[keys.run(A, NAMESPACE, 1, names(1))])
        assert (there.live, there.phase) == (1, Phase.DRAINING)
        await one_worker(store, boot=b"another boot id.")
        assert refused(await evicting.trim(store, mine, part, replace(leaving, live=1))) is (
            Reason.FENCED
        )

    run(program)


def test_claims_that_have_run_out_hold_nothing(run) -> None:
    """Time ends a claim by itself: it cannot be renewed, and does not stop an eviction."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        done = await publish(store, mine, stretch(1))
        assert isinstance(done, Published)
        part = keys.run_id(NAMESPACE, 1, names(1))
        cover = (await learner_of(store)).cover(A, NAMESPACE, names(1))
        assert cover is not None
        claim = await pinning.acquire(store, cover, "me", CLAIM, soon(-1))
        assert not isinstance(claim, Refused)
        assert refused(await pinning.renew(store, claim, soon())) is Reason.LOST
        assert isinstance(await evicting.evict(store, mine, part, done.runs[0][1]), Done)
        assert (await sweeping.sweep(store, A)).removed == 1

    run(program)


def test_stale_hints_are_refused_or_cut(run) -> None:
    """A claim on rows that have changed takes what is there, if it is enough; else it says how much
    there is. A key that was written anew is another run."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        done = await publish(store, mine, stretch(1, 2, 3))
        assert isinstance(done, Published)
        part = keys.run_id(NAMESPACE, 1, names(1))
        cover = (await learner_of(store)).cover(A, NAMESPACE, names(1, 2, 3))
        assert cover is not None
        await evicting.evict(store, mine, part, done.runs[0][1], 2)
        outcome = await pinning.acquire(store, cover, "me", CLAIM, soon())
        assert (refused(outcome), outcome.blocks) == (Reason.TOO_SHORT, 2)
        claim = await pinning.acquire(store, cover, "me", CLAIM, soon(), blocks_min=1)
        assert not isinstance(claim, Refused)
        assert claim.blocks == 2
        await pinning.release(store, claim)
        row = decode_run((await rows(store))[A.prefix + keys.RUN + part])
        await evicting.evict(store, mine, part, row)
        anew = await publish(store, mine, stretch(1, 8, number=2))
        assert isinstance(anew, Published)
        outcome = await pinning.acquire(store, cover, "me", CLAIM, soon(), blocks_min=1)
        assert refused(outcome) is Reason.TOO_SHORT

    run(program)


def test_engines_tell(run) -> None:
    """A report cuts the run where blocks are gone, keeps the stretches behind as runs of their own,
    and names exactly the claims that it broke."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        await publish(store, mine, stretch(1, 2, 3, 4, 5, 6, tier=0))
        learner = await learner_of(store)
        part = keys.run_id(NAMESPACE, 0, names(1))
        for number, prompt in ((CLAIM, names(1, 2)), (OTHER_CLAIM, names(1, 2, 3, 4))):
            cover = learner.cover(A, NAMESPACE, prompt)
            assert cover is not None
            assert not isinstance(
                await pinning.acquire(store, cover, "me", number, soon()), Refused
            )
        first = mine.generation(1)
        other = await evicting.report(store, mine, part, mine.generation(9), frozenset({0}), 2)
        assert isinstance(other, evicting.Reported)
        assert other.runs == other.voided == ()
        told = await evicting.report(store, mine, part, first, frozenset({2, 4}), 2)
        assert isinstance(told, evicting.Reported)
        assert [one.number for one in told.voided] == [OTHER_CLAIM]
        assert [(row_part[-16:], row and row.live) for row_part, row in told.runs] == [
            (names(1), 2),
            (names(4), 1),
            (names(6), 1),
        ]
        learner = await learner_of(store)
        assert learner.match(NAMESPACE, names(1, 2, 3, 4)).blocks == 2
        assert learner.match(NAMESPACE, names(4)).blocks == 1
        told = await evicting.report(store, mine, part, first, frozenset({0}), 3)
        assert isinstance(told, evicting.Reported)
        assert [one.number for one in told.voided] == [CLAIM]
        again = await evicting.report(store, mine, part, first, frozenset({0}), 4)
        assert isinstance(again, evicting.Reported)
        learner = await learner_of(store)
        assert learner.match(NAMESPACE, names(1, 2)).blocks == 0
        assert learner.match(NAMESPACE, names(2)).blocks == 1

    run(program)


def test_the_last_copy_stays(run) -> None:
    """Of two that drop the last two copies of a run, one is refused, also at the same time."""

    async def program(store: Store) -> None:
        ends = []
        for worker in (A, B):
            mine = await one_worker(store, worker)
            done = await publish(store, mine, stretch(1, 2))
            assert isinstance(done, Published)
            ends.append((mine, done.runs[0][1]))
        part = keys.run_id(NAMESPACE, 1, names(1))
        outcomes = await asyncio.gather(
            *(evicting.evict_guarded(store, mine, part, row, [A, B]) for mine, row in ends)
        )
        assert sorted(str(refused(one)) for one in outcomes) == ["None", str(Reason.LAST_COPY)]
        left = [key for key in await rows(store) if keys.RUN in key]
        assert len(left) == 1

    run(program)


def test_a_precious_run_has_one_owner(run) -> None:
    """The row names one owner at a time; who adopts first relieves it, and a second is refused."""

    async def program(store: Store) -> None:
        part = keys.run_id(NAMESPACE, 1, names(1))
        there = keys.Worker("iad", "c")
        assert await ownership.owner_of(store, part) is None
        assert isinstance(await ownership.own(store, part, A), Done)
        assert refused(await ownership.own(store, part, B)) is Reason.TAKEN
        outcomes = await asyncio.gather(
            *(ownership.adopt(store, part, A, worker) for worker in (B, there))
        )
        assert sorted(str(refused(one)) for one in outcomes) == ["None", str(Reason.CHANGED)]
        owner = await ownership.owner_of(store, part)
        assert owner in {B, there}
        assert refused(await ownership.disown(store, part, A)) is Reason.CHANGED
        assert isinstance(await ownership.disown(store, part, owner), Done)
        assert await ownership.owner_of(store, part) is None

    run(program)


def test_moving_inside_a_region(run) -> None:
    """One transaction makes the destination ready and the source leave; if the source has changed
    meanwhile neither happens."""

    async def program(store: Store) -> None:
        source, target = await one_worker(store, A), await one_worker(store, B)
        done = await publish(store, source, stretch(1, 2))
        assert isinstance(done, Published)
        row, part = done.runs[0][1], keys.run_id(NAMESPACE, 1, names(1))
        reserved = await publishing.reserve(store, target, stretch(1, 2), soon())
        assert isinstance(reserved, Published)
        moved = await moving.migrate(store, target, stretch(1, 2), reserved, A, part, row)
        assert isinstance(moved, Published)
        match = (await learner_of(store)).match(NAMESPACE, names(1, 2))
        assert [one.worker for one in match.depths] == [B]
        again = await moving.migrate(store, target, stretch(1, 2), reserved, A, part, row)
        assert refused(again) is Reason.CHANGED
        leaving = decode_run((await rows(store))[A.prefix + keys.RUN + part])
        assert leaving.phase == Phase.DRAINING
        assert isinstance(await evicting.evict(store, source, part, leaving), Done)

    run(program)


def test_moving_between_regions(run) -> None:
    """The source leaves only when its region has seen the destination; until the task is done the
    destination is held."""

    async def program(store: Store) -> None:
        there = keys.Worker("iad", "c")
        source, target = await one_worker(store, A), await one_worker(store, there)
        done = await publish(store, source, stretch(1, 2))
        assert isinstance(done, Published)
        row, part = done.runs[0][1], keys.run_id(NAMESPACE, 1, names(1))
        blind = await learner_of(store)
        reserved = await publishing.reserve(store, target, stretch(1, 2), soon())
        assert isinstance(reserved, Published)
        move = await moving.land(
            store, target, stretch(1, 2), reserved, "m1", A, row, CLAIM, soon()
        )
        assert isinstance(move, moving.Move)
        outcome = await moving.retire_source(store, source, move, row, blind)
        assert refused(outcome) is Reason.LAST_COPY
        landed = reserved.runs[0][1]
        ready = msgspec.structs.replace(landed, phase=int(Phase.READY), deadline_ns=0)
        assert refused(await evicting.evict(store, target, part, ready)) is Reason.PINNED
        assert refused(await moving.finish(store, "m1", move)) is Reason.TASK
        # Nor does it leave for elsewhere: the source may be on its way out already, for this copy.
        assert refused(await evicting.retire(store, target, part, ready)) is Reason.PINNED
        third = await one_worker(store, keys.Worker("iad", "d"))
        taking = await publishing.reserve(store, third, stretch(1, 2), soon())
        assert isinstance(taking, Published)
        onwards = moving.migrate(store, third, stretch(1, 2), taking, there, part, ready)
        assert refused(await onwards) is Reason.PINNED
        seeing = await learner_of(store)
        # An older copy under the same name does not stand for the one that has landed, and nobody is told
        # anything by a learner once the task may hold the copy no more.
        older = msgspec.structs.replace(move, generation=move.generation + 1)
        outcome = await moving.retire_source(store, source, older, row, seeing)
        assert refused(outcome) is Reason.LAST_COPY
        late = msgspec.structs.replace(move, expiry_ns=soon(-1))
        assert refused(await moving.retire_source(store, source, late, row, seeing)) is Reason.LOST
        assert (await learner_of(store)).run(A, part) == row
        leaving = await moving.retire_source(store, source, move, row, seeing)
        assert isinstance(leaving, evicting.Retired)
        retired = await moving.advance(store, "m1", move, moving.Step.RETIRED)
        assert isinstance(retired, moving.Move)
        assert isinstance(await moving.finish(store, "m1", retired), Done)
        assert isinstance(await moving.finish(store, "m1", retired), Done)
        assert isinstance(await evicting.retire(store, target, part, ready), evicting.Retired)
        assert isinstance(await evicting.evict(store, target, part, ready), Done)
        assert keys.task("iad", "m1") not in await rows(store)

    run(program)


def test_draining_can_be_called_off(run) -> None:
    """A draining worker serves and takes nothing new; resumed it takes again."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        await publish(store, mine, stretch(1))
        assert isinstance(await membership.drain(store, A, 1), Id)
        assert refused(await publish(store, mine, stretch(2, number=2))) is Reason.NOT_LIVE
        cover = (await learner_of(store)).cover(A, NAMESPACE, names(1))
        assert cover is not None
        assert not isinstance(await pinning.acquire(store, cover, "me", CLAIM, soon()), Refused)
        assert isinstance(await membership.resume(store, A, 1), Id)
        assert isinstance(await publish(store, mine, stretch(2, number=3)), Published)
        assert refused(await membership.drain(store, A, 7)) is Reason.FENCED
        assert refused(await membership.drain(store, B, 1)) is Reason.UNKNOWN

    run(program)


def test_suspects_are_not_claimed(run) -> None:
    """What a worker with a gap in its events holds is a guess: matched, and not covered."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        await publish(store, mine, stretch(1))
        old = (await learner_of(store)).cover(A, NAMESPACE, names(1))
        await membership.suspect(store, A, 1, suspected=True)
        learner = await learner_of(store)
        assert learner.match(NAMESPACE, names(1)).blocks == 1
        assert learner.cover(A, NAMESPACE, names(1)) is None
        assert old is not None
        # Nor by somebody who has not heard of it yet.
        for least in (0, 1):
            outcome = await pinning.acquire(store, old, "me", CLAIM, soon(), least)
            assert refused(outcome) is Reason.SUSPECT
        await membership.suspect(store, A, 1, suspected=False)
        assert (await learner_of(store)).cover(A, NAMESPACE, names(1)) is not None

    run(program)


def test_sweeping(run) -> None:
    """A sweep removes what counts for nothing, some rows a step, and nothing else; twice is once."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        for number in range(1, 9):
            await publish(store, mine, stretch(number, number=number))
        mine = await one_worker(store, boot=b"boot of another.")
        await publish(store, mine, stretch(3, number=1))
        late = await publishing.reserve(store, mine, stretch(20, number=2), soon(-1))
        assert isinstance(late, Published)
        after, removed, steps = b"", 0, 0
        while steps == 0 or after:
            step = await sweeping.sweep(store, A, after, rows=3)
            after, removed, steps = step.after, removed + step.removed, steps + 1
        assert steps > 2
        assert removed == 8
        left = sorted(key for key in await rows(store) if keys.RUN in key)
        assert left == [keys.run(A, NAMESPACE, 1, names(3))]
        assert (await sweeping.sweep(store, A)).removed == 0
        with pytest.raises(ValueError, match="rows a step"):
            await sweeping.sweep(store, A, rows=0)

    run(program)


def test_quotas(run) -> None:
    """A tenant's bytes are free or granted, never more than its quota; a publish beyond the grant is
    refused; a fenced worker's grant is taken back."""

    async def program(store: Store) -> None:
        await quotas.open_quota(store, "fra", "acme", 1_001, 2)
        await quotas.open_quota(store, "fra", "acme", 9_999, 2)
        mine = await one_worker(store)
        first = stretch(1, tenant="acme", used_bytes=64)
        assert refused(await publish(store, mine, first)) is Reason.QUOTA
        grant = await quotas.take(store, mine, "acme", 100, 0)
        assert not isinstance(grant, Refused)
        assert grant.granted_bytes == 100
        assert isinstance(await publish(store, mine, first), Published)
        second = stretch(2, number=2, tenant="acme", used_bytes=128)
        assert refused(await publish(store, mine, second)) is Reason.QUOTA
        grant = await quotas.take(store, mine, "acme", 10_000, 1)
        assert not isinstance(grant, Refused)
        assert grant.granted_bytes == 600
        assert refused(await quotas.take(store, mine, "acme", 1, 1)) is Reason.QUOTA
        grant = await quotas.give_back(store, mine, "acme", 50, 1)
        assert not isinstance(grant, Refused)
        assert grant.granted_bytes == 550
        assert refused(await quotas.reclaim(store, A, "acme", 0)) is Reason.ALIVE
        await membership.renew(store, mine, soon(-1))
        await membership.fence(store, A, mine.identity)
        assert await quotas.reclaim(store, A, "acme", 0) == 550
        assert await quotas.reclaim(store, A, "acme", 0) == 0
        free = [value for key, value in (await rows(store)).items() if key.startswith(b"q/")]
        assert sum(msgspec.msgpack.decode(value)[0] for value in free) == 1_001

    run(program)


def test_weak_names_are_looked_at_closer(run) -> None:
    """A claim on a block with a 64-bit name holds only where it stands where it was seen."""

    async def program(store: Store) -> None:
        mine = await one_worker(store)
        weak = bytes(8) + b"8 bytes."
        await publish(store, mine, stretch(1))
        weak_stretch = msgspec.structs.replace(
            stretch(1, number=2, **behind(mine, 1, 1, 1)), names=weak
        )
        assert isinstance(await publish(store, mine, weak_stretch), Published)
        cover = (await learner_of(store)).cover(A, NAMESPACE, weak)
        assert cover is not None
        piece = cover.pieces[0]
        moved = msgspec.structs.replace(
            cover,
            pieces=(
                msgspec.structs.replace(piece, run=msgspec.structs.replace(piece.run, depth=7)),
            ),
        )
        assert refused(await pinning.acquire(store, moved, "me", CLAIM, soon())) is Reason.TOO_SHORT
        assert not isinstance(await pinning.acquire(store, cover, "me", CLAIM, soon()), Refused)

    run(program)


def test_failures_of_the_store_pass_through() -> None:
    """What the store itself refuses is its own error, not a refusal of the directory."""

    async def main() -> None:
        async with embedded(storage__sync=False) as db:
            store = DirectoryStore(db)
            mine = await one_worker(store)
            long = msgspec.structs.replace(stretch(1), locator=bytes(2_000_000))
            with pytest.raises(k2store.Rejected):
                await publish(store, mine, long)

    asyncio.run(main())
