"""A worker of the load: it lives, publishes, makes room, takes over runs of others, dies and comes back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

import k2store
from jepsen_like.pool.load import (
    ENGINE,
    NAMESPACE,
    POOL,
    PROMPTS,
    STRETCHES,
    Load,
    block,
    parent_name,
    paused,
    published,
    run_name,
    stretch_names,
)
from kv_pool import keys
from kv_pool.blocks import NAME_BYTES
from kv_pool.directory import evicting, moving, publishing
from kv_pool.directory.publishing import Parent, Published, Stretch
from kv_pool.edge.refusals import Fenced
from kv_pool.keys import Worker
from kv_pool.records import Phase, Run
from kv_pool.shots import Refused
from truetime.timestamp import ceiling as stamp_at

if TYPE_CHECKING:
    from kv_pool.directory.membership import Registration
    from kv_pool.edge.pool import Pool
    from kv_pool.edge.session import WorkerSession

ANNOUNCED_S: Final = 2.0
"""How long a reservation stands."""
TRIES: Final = 3
EVERY_PLACE: Final = frozenset(range(64))


class _Mine(msgspec.Struct):
    """A run that this worker has: the row as it knows it, and its slots."""

    run: Run
    slots: list[int]


class _Done(msgspec.Struct, frozen=True):
    """Something was done at this stamp."""

    at: int


class WorkerLoad:
    """One worker, over all its lives."""

    def __init__(
        self,
        load: Load,
        pool: Pool,
        name: str,
        rng: random.Random,
        *,
        ttl_s: float,
        pause_s: float,
        others: tuple[Worker, ...],
    ) -> None:
        """`others`: workers of all regions, of which copies may be taken over."""
        self._load = load
        self._pool = pool
        self._rng = rng
        self._ttl_s = ttl_s
        self._pause_s = pause_s
        self._others = others
        self._session: WorkerSession
        self._mine: dict[bytes, _Mine] = {}
        self._numbers = 0
        self._former: Registration | None = None
        self.worker = Worker(pool.region, name)
        self._memory = load.memories.mine(self.worker)

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Life after life, until it is over."""
        while not is_over():
            session = self._pool.worker(self.worker.name, ttl_s=self._ttl_s)
            born = await self._load.told(
                "register",
                {"worker": str(self.worker)},
                self._begin(session),
                lambda born: {"worker": str(self.worker), "incarnation": born.identity.incarnation},
            )
            if born is None:
                await asyncio.sleep(self._pause_s)
                continue
            try:
                await self._live(session, is_over)
            except k2store.OutcomeUnknown:
                self._load.count("in doubt at birth")
            finally:
                await session.__aexit__(None, None, None)

    async def _begin(self, session: WorkerSession) -> Registration:
        await session.__aenter__()
        return session.registration

    async def _live(self, session: WorkerSession, is_over: Callable[[], bool]) -> None:
        self._session = session
        self._mine = {}
        self._numbers = 0
        self._remember()
        former, self._former = self._former, session.registration
        if former is not None:
            await self._speak_from_the_grave(former)
        kinds = [
            (self._publish, 10.0),
            (self._evict, 6.0),
            (self._take_over, 2.0),
            (self._clear, 0.2),
            (self._drain, 0.2),
            (self._leave, 0.15),
        ]
        while not (is_over() or session.lost.is_set()):
            step = self._rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[
                0
            ]
            # A life that has ended meanwhile, or a doubt that could not be settled: a new one begins.
            try:
                await step()
            except (k2store.Expired, k2store.OutcomeUnknown):
                return
            except k2store.K2Error:
                self._load.count("failed")
            await paused(self._rng, self._pause_s)

    def _remember(self) -> None:
        """Empty slots, for the present epoch of this life."""
        identity = self._session.registration.identity
        self._memory.begin(identity.incarnation, identity.epoch(POOL))

    @property
    def _mine_now(self) -> Registration:
        return self._session.registration

    # ------------------------------------------------------------------------- publishing

    def _stretch(self, part: bytes, blocks: int) -> Stretch | None:
        """What is to be published under a part of the key; None while what comes before is not here."""
        tier, prompt = part[16], part[17]
        number = 0 if part == self._part(tier, prompt, 0) else 1
        parent = None
        if number:
            before = self._mine.get(self._part(tier, prompt, 0))
            if before is None or before.run.live < STRETCHES[0]:
                return None
            first = block(prompt, 0)
            parent = Parent(tier, first, before.run.generation, STRETCHES[0])
        self._numbers += 1
        return Stretch(
            namespace=NAMESPACE,
            tier=tier,
            names=stretch_names(prompt, number)[: blocks * NAME_BYTES],
            depth=sum(STRETCHES[:number]),
            number=self._numbers,
            parent=parent,
            parent_name=parent_name(prompt, number),
        )

    def _part(self, tier: int, prompt: int, number: int) -> bytes:
        return keys.run_id(NAMESPACE, tier, stretch_names(prompt, number)[:NAME_BYTES])

    async def _publish(self) -> None:
        """One run of a prompt: at once, in two steps, or half of it and then the rest."""
        rng = self._rng
        number = rng.choice((0, 0, 1))
        part = self._part(rng.choice((ENGINE, POOL, POOL)), rng.randrange(PROMPTS), number)
        if part in self._mine:
            await self._grow(part)
            return
        whole = STRETCHES[number]
        blocks = rng.choice((whole, whole, 2))
        stretch = self._stretch(part, blocks)
        slots = None if stretch is None else self._place(part, stretch.names)
        if stretch is None or slots is None:
            return
        stretch = msgspec.structs.replace(stretch, locator=bytes(slots))
        registration = self._mine_now
        words = published(
            self.worker,
            registration.identity.incarnation,
            part,
            registration.generation(stretch.number),
            blocks,
            slots,
        )
        if rng.random() < 0.25:
            done = await self._in_two_steps(stretch, words)
        else:
            done = await self._persistently(stretch, words)
        if done is None:
            self._give_up(part, slots)
        else:
            self._mine[part] = _Mine(done.runs[0][1], slots)

    async def _persistently(self, stretch: Stretch, words: dict[str, object]) -> Published | None:
        """Publish; what nobody knows is asked again, since publishing twice changes nothing."""
        for left in reversed(range(TRIES)):
            try:
                return await self._load.told(
                    "publish",
                    words,
                    publishing.publish(self._pool.store, self._mine_now, stretch),
                )
            except k2store.OutcomeUnknown:
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _in_two_steps(self, stretch: Stretch, words: dict[str, object]) -> Published | None:
        store, registration = self._pool.store, self._mine_now
        deadline_ns = self._pool.bounds.earliest_ns() + int(ANNOUNCED_S * 1e9)
        reserved = await publishing.reserve(store, registration, stretch, deadline_ns)
        if isinstance(reserved, Refused):
            self._load.count(f"reserve {reserved.reason.name}")
            return None
        if self._rng.random() < 0.3:
            await publishing.abort(store, registration, stretch, reserved)
            self._load.count("abort")
            return None
        await paused(self._rng, self._pause_s)
        return await self._load.told(
            "publish", words, publishing.commit(store, registration, stretch, reserved)
        )

    async def _grow(self, part: bytes) -> None:
        """A run that is not whole yet gets the rest of its blocks."""
        mine = self._mine[part]
        before = mine.run.live
        number = part != self._part(part[16], part[17], 0)
        whole = stretch_names(part[17], int(number))
        missing = whole[before * NAME_BYTES :]
        if not missing or mine.run.phase != Phase.READY:
            return
        slots = self._place(part, missing)
        if slots is None:
            return
        registration = self._mine_now
        generation = mine.run.generation
        stretch = Stretch(
            namespace=NAMESPACE,
            tier=part[16],
            names=whole,
            depth=mine.run.depth,
            number=generation - registration.generation(0),
            parent_name=mine.run.parent,
            locator=bytes([*mine.slots, *slots]),
        )
        words = published(
            self.worker,
            registration.identity.incarnation,
            part,
            generation,
            len(whole) // NAME_BYTES,
            [*mine.slots, *slots],
        )
        done = await self._load.told(
            "publish",
            words,
            publishing.extend(self._pool.store, registration, stretch, before),
        )
        if done is None:
            self._give_up(part, slots)
        else:
            mine.run = done.runs[0][1]
            mine.slots += slots
            self._load.count("extend")

    def _place(self, part: bytes, names: bytes) -> list[int] | None:
        """Slots with these blocks in them; only the pool's tier is looked at."""
        return self._memory.take(names) if part[16] == POOL else []

    def _give_up(self, part: bytes, slots: list[int]) -> None:
        if part[16] == POOL:
            self._memory.free(slots)

    async def _speak_from_the_grave(self, former: Registration) -> None:
        """What an earlier life had sent arrives only now."""
        part = self._part(ENGINE, self._rng.randrange(PROMPTS), 0)
        stretch = self._stretch(part, STRETCHES[0])
        assert stretch is not None, "a prompt's first run has none before it"
        words = published(
            self.worker,
            former.identity.incarnation,
            part,
            former.generation(stretch.number),
            STRETCHES[0],
            [],
        )
        await self._load.told(
            "publish", words, publishing.publish(self._pool.store, former, stretch)
        )

    # --------------------------------------------------------------------------- evicting

    async def _evict(self) -> None:
        """Make room: the engine tells, the pool asks; sometimes all behind the first two blocks."""
        if not self._mine:
            return
        rng = self._rng
        part = rng.choice(sorted(self._mine))
        mine = self._mine[part]
        keep = rng.choice((0, 0, 2)) if mine.run.live > 2 else 0
        words: dict[str, object] = {
            "worker": str(self.worker),
            "run": run_name(part),
            "generation": mine.run.generation,
            "keep": keep,
        }
        if part[16] == ENGINE:
            await self._report(part, mine, words, keep)
        elif rng.random() < 0.15:
            del words["keep"]
            retired = await self._load.told(
                "retire", words, evicting.retire(self._pool.store, self._mine_now, part, mine.run)
            )
            if retired is not None:
                mine.run = retired.run
        else:
            await self._ask(part, mine, words, keep)

    async def _ask(self, part: bytes, mine: _Mine, words: dict[str, object], keep: int) -> None:
        """Ask for a run of the pool's tier: slots are filled again as soon as it is granted."""
        store, registration = self._pool.store, self._mine_now
        if not keep and self._rng.random() < 0.3:
            words["guarded"] = True
            beside = [other for other in self._others if other.region == self.worker.region]
            guarded = evicting.evict_guarded(store, registration, part, mine.run, beside)
            if await self._load.told("evict", words, guarded) is not None:
                self._drop(part, 0)
            return
        trimmed = await self._load.told(
            "evict",
            words,
            evicting.trim(store, registration, part, mine.run, keep),
            lambda trimmed: words | {"keep": trimmed.keep},
        )
        if trimmed is not None:
            self._drop(part, trimmed.keep)
            if trimmed.keep > keep:
                self._load.count("evicted behind claims")

    async def _report(self, part: bytes, mine: _Mine, words: dict[str, object], keep: int) -> None:
        self._numbers += 1
        told = await self._load.told(
            "report",
            words,
            evicting.report(
                self._pool.store,
                self._mine_now,
                part,
                mine.run.generation,
                EVERY_PLACE - frozenset(range(keep)),
                self._numbers,
            ),
            lambda told: words | {"voided": [one.number.hex() for one in told.voided]},
        )
        if told is not None:
            self._drop(part, keep)
            self._load.count("voided" if told.voided else "report of nobody's")

    def _drop(self, part: bytes, keep: int) -> None:
        mine = self._mine[part]
        if part[16] == POOL:
            self._memory.free(mine.slots[keep:])
        if keep:
            mine.run = msgspec.structs.replace(mine.run, live=keep)
            mine.slots = mine.slots[:keep]
        else:
            del self._mine[part]

    async def _clear(self) -> None:
        """One tier is gone at once."""
        tier = self._rng.choice((ENGINE, POOL))
        cleared = await self._load.told(
            "clear", {"worker": str(self.worker), "tier": tier}, self._cleared(tier)
        )
        if cleared is not None:
            self._mine = {part: mine for part, mine in self._mine.items() if part[16] != tier}
            if tier == POOL:
                self._remember()

    async def _cleared(self, tier: int) -> _Done:
        return _Done(await self._session.clear(tier))

    async def _drain(self) -> None:
        """Take nothing new for a while."""
        await self._session.drain()
        self._load.count("drain")
        await paused(self._rng, self._pause_s)
        await self._session.resume()

    async def _leave(self) -> None:
        """End the life by itself, at once."""
        next_life = self._mine_now.identity.incarnation + 1
        await self._load.told(
            "fence", {"worker": str(self.worker), "incarnation": next_life}, self._left()
        )

    async def _left(self) -> _Done:
        await self._session.leave()
        try:
            lives = self._session.registration
        except Fenced as over:
            return _Done(over.at)
        raise AssertionError(f"{lives.worker} has left and lives")

    # ----------------------------------------------------------------------------- moving

    async def _take_over(self) -> None:
        """Copy a run of another worker's, and sometimes have the other one give its own up for it."""
        tree = self._load.trees.get(self.worker.region)
        others = [other for other in self._others if other != self.worker]
        if tree is None or not others:
            return
        source = self._rng.choice(others)
        part = self._part(POOL, self._rng.randrange(PROMPTS), 0)
        run = tree.learner.run(source, part)
        known = run is not None and run.phase == Phase.READY and run.live == STRETCHES[0]
        if run is None or not known or part in self._mine:
            return
        stretch = self._stretch(part, run.live)
        slots = None if stretch is None else self._place(part, stretch.names)
        if stretch is None or slots is None:
            return
        stretch = msgspec.structs.replace(stretch, locator=bytes(slots))
        done = await self._arrived(source, part, run, stretch, slots)
        if done is None:
            self._give_up(part, slots)
        else:
            self._mine[part] = _Mine(done, slots)

    async def _arrived(
        self, source: Worker, part: bytes, run: Run, stretch: Stretch, slots: list[int]
    ) -> Run | None:
        store, registration = self._pool.store, self._mine_now
        deadline_ns = self._pool.bounds.earliest_ns() + int(ANNOUNCED_S * 1e9)
        reserved = await publishing.reserve(store, registration, stretch, deadline_ns)
        if isinstance(reserved, Refused):
            return None
        await paused(self._rng, self._pause_s)
        words = published(
            self.worker,
            registration.identity.incarnation,
            part,
            registration.generation(stretch.number),
            run.live,
            slots,
        )
        ready = msgspec.structs.replace(reserved.runs[0][1], phase=int(Phase.READY), deadline_ns=0)
        landed: object
        if source.region != self.worker.region:
            landed = await self._land(source, run, stretch, reserved, words)
        elif self._rng.random() < 0.3:
            landed = await self._load.told(
                "publish", words, publishing.commit(store, registration, stretch, reserved)
            )
        else:
            left = {"worker": str(source), "run": run_name(part), "generation": run.generation}
            landed = await self._load.told(
                "migrate",
                {"from": left, "to": words},
                moving.migrate(store, registration, stretch, reserved, source, part, run),
            )
        if landed is not None:
            return ready
        await publishing.abort(store, registration, stretch, reserved)
        return None

    async def _land(
        self,
        source: Worker,
        run: Run,
        stretch: Stretch,
        reserved: Published,
        words: dict[str, object],
    ) -> moving.Move | None:
        """The first step of a move between regions; routers take the others."""
        number = self._rng.randbytes(16)
        expiry_ns = self._pool.bounds.earliest_ns() + int(self._rng.choice((0.5, 3.0)) * 1e9)
        return await self._load.told(
            "land",
            {"to": words, "claim": number.hex(), "until": stamp_at(expiry_ns)},
            moving.land(
                self._pool.store,
                self._mine_now,
                stretch,
                reserved,
                f"{self.worker.name}-{number.hex()[:8]}",
                source,
                run,
                number,
                expiry_ns,
            ),
        )
