"""A router of the load: it asks its learner, claims, reads under its claims, fences the dead, sweeps, ends moves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

import k2store
from jepsen_like.pool.load import (
    NAMESPACE,
    POOL,
    PROMPTS,
    Load,
    all_rows,
    finish,
    paused,
    prompt_names,
    run_name,
)
from jepsen_like.pool.truth import Look
from kv_pool import keys
from kv_pool.blocks import NAME_BYTES, split_names
from kv_pool.directory import membership, moving, pinning
from kv_pool.directory.membership import Registration
from kv_pool.directory.moving import Move, Step
from kv_pool.directory.pinning import Claim
from kv_pool.keys import Worker
from kv_pool.records import State, decode
from kv_pool.shots import Refused
from truetime.timestamp import ceiling as stamp_at

if TYPE_CHECKING:
    from kv_pool.edge.following import Tree
    from kv_pool.edge.pool import Pool

CLAIMERS: Final = 3
MOVES_MAX: Final = 100
"""Steps until every move that was begun must have ended."""
AGAIN_S: Final = 0.2
TASKS: Final = k2store.prefix(keys.TASKS)


Duty: TypeAlias = Callable[[], Awaitable[object]]


class _Renewed(msgspec.Struct, frozen=True):
    claim: Claim
    at: int


class RouterLoad:
    """One router."""

    def __init__(
        self,
        load: Load,
        pool: Pool,
        tree: Tree,
        rng: random.Random,
        *,
        pause_s: float,
        workers: tuple[Worker, ...],
    ) -> None:
        self._load = load
        self._pool = pool
        self._tree = tree
        self._rng = rng
        self._pause_s = pause_s
        self._workers = workers

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Several claims at a time and other duties beside them, until it is over."""
        duties: list[Duty] = [
            self.fence_the_dead,
            self.fence_the_dead,
            self.advance_moves,
            self.compare,
            self._sweep,
        ]
        tasks = [self._go_on([self._claim], is_over) for _ in range(CLAIMERS)]
        await asyncio.gather(self._go_on(duties, is_over), *tasks)

    async def _go_on(self, kinds: Sequence[Duty], is_over: Callable[[], bool]) -> None:
        while not is_over():
            step = self._rng.choice(kinds)
            try:
                await step()
            except k2store.K2Error:
                self._load.count("failed")
            await paused(self._rng, self._pause_s)

    # ----------------------------------------------------------------------------- claims

    async def _claim(self) -> None:
        """Claim what the learner shows of a prompt somewhere, read it while the claim holds, give it back."""
        rng = self._rng
        names = prompt_names(rng.randrange(PROMPTS))
        match = self._tree.match(NAMESPACE, names)
        if not match.holders or rng.random() < 0.5:
            worker = rng.choice(self._workers)
        else:
            worker = rng.choice(match.holders).worker
        cover = self._tree.cover(worker, NAMESPACE, names)
        if cover is None:
            return
        ttl_s = rng.choice((0.3, 1.0, 3.0))
        claim = await self._load.told(
            "acquire",
            {},
            self._pool.acquire(cover, ttl_s=ttl_s, blocks_min=rng.choice((0, 1))),
            words,
            lambda claim: claim.token,
        )
        if claim is None:
            return
        self._read(claim, names)
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(rng.random() * ttl_s / 2)
            self._read(claim, names)
            if rng.random() < 0.3:
                renewed = await self._renew(claim, ttl_s)
                if renewed is None:
                    break
                claim = renewed
        await self._load.told("release", {"claim": claim.number.hex()}, self._released(claim))

    async def _released(self, claim: Claim) -> _Renewed | Refused:
        done = await pinning.release(self._pool.store, claim)
        return done if isinstance(done, Refused) else _Renewed(claim, done.at)

    async def _renew(self, claim: Claim, ttl_s: float) -> Claim | None:
        expiry_ns = self._pool.bounds.earliest_ns() + int(ttl_s * 1e9)
        return await self._load.told(
            "renew",
            {"claim": claim.number.hex(), "until": stamp_at(expiry_ns)},
            pinning.renew(self._pool.store, claim, expiry_ns),
            stamp=lambda claim: claim.renewed_at,
        )

    def _read(self, claim: Claim, names: bytes) -> None:
        """The bytes under a claim that holds are those that were claimed."""
        memory = self._load.memories.of(claim.worker)
        if memory is None:
            return
        start = 0
        for held in claim.held:
            wanted = split_names(names[start * NAME_BYTES : (start + held.blocks) * NAME_BYTES])
            start += held.blocks
            life = (claim.incarnation, held.run.epoch)
            if held.part[16] != POOL or memory.life != life:
                continue
            slots = held.run.locator
            there = [memory.read(slots[place]) for place in range(held.blocks)]
            # Only what was read before the claim ran out, and before the worker began anew, was to be there.
            if not self._pool.holds(claim) or memory.life != life:
                continue
            self._load.count("read")
            if there != list(wanted):
                self._load.problems.append(
                    f"bytes: claim {claim.number.hex()} on {claim.worker} holds, and of its run "
                    f"{run_name(held.part)} there is {[one.hex()[:4] for one in there]}"
                )

    # ------------------------------------------------------------------------------ others

    async def fence_the_dead(self) -> None:
        """End the lives of workers anywhere whose leases have run out."""
        for worker in self._workers:
            observed = await self._pool.identity(worker)
            if observed is not None and observed.state != State.FENCED:
                await self._load.told(
                    "fence",
                    {"worker": str(worker), "incarnation": observed.incarnation + 1},
                    membership.fence(self._pool.store, worker, observed),
                )

    async def _sweep(self) -> None:
        await self._pool.sweep(self._rng.choice(self._workers))
        self._load.count("sweep")

    async def advance_moves(self, *, everywhere: bool = False) -> int:
        """Take the next step of every move whose source is in this region; gives how many there are."""
        _, rows = await all_rows(self._pool.db, TASKS)
        mine = 0
        for key, value in sorted(rows.items()):
            move = decode(Move, value)
            if everywhere or move.source_region == self._pool.region:
                mine += 1
                await self._advance(key.rpartition(b"/")[2].decode(), move)
        return mine

    async def _advance(self, task: str, move: Move) -> None:
        store = self._pool.store
        if move.step == Step.LANDED:
            outcome = await self._retire(move)
            if outcome is not None and not isinstance(
                await moving.advance(store, task, move, Step.RETIRED), Refused
            ):
                self._load.count("retired")
            return
        # The task gives back what it has held since the landing.
        done = await self._load.told(
            "release", {"claim": move.number.hex()}, moving.finish(store, task, move)
        )
        if done is not None:
            self._load.count("moved")

    async def _retire(self, move: Move) -> object | None:
        """Put the source on its way out; anything but None when there is nothing to wait for."""
        learner = self._tree.learner
        run = learner.run(move.source, move.part)
        identity = learner.identity(move.source)
        if run is None or identity is None or run.generation != move.source_generation:
            # Whatever happened to the source: the copy has landed, and is an ordinary one.
            return move
        retired = await self._load.told(
            "retire",
            {
                "worker": str(move.source),
                "run": run_name(move.part),
                "generation": move.source_generation,
                "other": str(move.destination),
            },
            moving.retire_source(
                self._pool.store, Registration(move.source, identity, 0), move, run, learner
            ),
        )
        if retired is None and self._pool.bounds.earliest_ns() > move.expiry_ns:
            # The task holds the copy no more: it stays a copy, and the source stays, too.
            return move
        return retired

    async def close(self) -> list[str]:
        """When all others have ended and everything has run out: end what is begun, sweep, look at what is
        left; gives what should not be."""
        for _ in range(MOVES_MAX):
            if not await self.advance_moves(everywhere=True):
                break
            await asyncio.sleep(AGAIN_S)
        for worker in self._workers:
            while await self._pool.sweep(worker):
                pass
        await self.agree()
        return await finish(self._pool.db, self._load)

    async def agree(self) -> None:
        """The learner comes to show what is committed by now, in all regions, and that is what the store has."""
        async with self._pool.db.snapshot(strong=True) as view:
            await view.scan(k2store.KeyRange(b"d/", b"e"), limit=1).all()
        await self._tree.caught_up(view.at)
        await self.compare()

    async def compare(self) -> None:
        """The learner is what the store was at its stamp."""
        prompts = [(NAMESPACE, prompt_names(prompt)) for prompt in range(PROMPTS)]
        look = Look(self._tree, prompts)
        self._load.problems += await look.differences(self._pool.db)
        self._load.count("compare")
        if any(look.shown.values()):
            self._load.count("compare something")


def words(claim: Claim) -> dict[str, object]:
    """The history's words for a claim."""
    return {
        "claim": claim.number.hex(),
        "until": stamp_at(claim.expiry_ns),
        "held": [
            {
                "worker": str(claim.worker),
                "incarnation": claim.incarnation,
                "run": run_name(held.part),
                "generation": held.run.generation,
                "blocks": held.blocks,
            }
            for held in claim.held
        ],
    }
