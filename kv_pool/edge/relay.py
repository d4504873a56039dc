"""A relay makes an unmodified engine a member of the pool: its events become the worker's rows.

::

    engine ──PUB──▶ stream ──▶ wire ──▶ engine's book ──▶ actions ──▶ transactions
           ◀──DEALER/ROUTER── replay of what was missed

    connection up     a new life: register, and have everything told anew
    number missing    suspect, until the replay has filled the gap; else everything is cleared
    connection down   suspect at once, no renewal: who waits long enough fences it

A new connection is a new life even where the engine may have lived on: nothing in the stream says whether it
did, and a restarted engine's first numbers can look like a gap. With a replay socket the blocks are back
after one batch.

The relay renews the lease only while the engine's transport answers. Batches that cannot be read are
counted; no bytes that come in end the relay. While the store cannot be reached batches wait: first
here, then in the socket, and what that drops is a gap like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import Struct

import k2store
from kv_pool import keys
from kv_pool.blocks import NAME_BYTES
from kv_pool.directory.evicting import Voided
from kv_pool.events.engine import Action, Begin, Engine
from kv_pool.events.member import Member
from kv_pool.events.stream import Mark, Passed, Step, Stream
from kv_pool.events.wire import decode_batch
from kv_pool.keys import Worker
from kv_pool.ledger import Publish, Report

if TYPE_CHECKING:
    from kv_pool.edge.engine_sockets import EngineSockets
    from kv_pool.edge.pool import Pool
    from kv_pool.edge.scopes import Scopes

R = TypeVar("R")

_BILLION: Final = 1_000_000_000
QUEUE: Final = 4_096
"""Batches that wait here for the store."""
TOGETHER: Final = 64
"""Batches whose publishes are sent at the same time, at most."""
TICK_S: Final = 0.25
_PAUSE_S: Final = 0.05
_PAUSE_MAX_S: Final = 2.0


class RelayFigures(Struct):
    """What a relay has done so far.

    batches     that passed in order
    unreadable  batches that were none
    strange     events that were not understood
    lives       registrations
    refused     refusals that ended a life
    retries     transactions that were sent again
    """

    batches: int = 0
    unreadable: int = 0
    strange: int = 0
    blocks: int = 0
    orphans: int = 0
    gaps: int = 0
    lives: int = 0
    refused: int = 0
    retries: int = 0
    voided: int = 0
    is_connected: bool = False


class Relay:
    """See the module; `run` does it until it is cancelled.

    voided  is told each claim that the engine broke by evicting
    """

    def __init__(
        self,
        pool: Pool,
        worker: Worker,
        sockets: EngineSockets,
        scopes: Scopes,
        *,
        ttl_s: float = 3.0,
        endpoints: tuple[str, ...] = (),
        voided: Callable[[Voided], None] = lambda _: None,
    ) -> None:
        self._pool = pool
        self._sockets = sockets
        self._scopes = scopes
        self._ttl_s = ttl_s
        self._voided = voided
        self._engine = Engine(scopes.resolve)
        self._stream = Stream(can_replay=sockets.can_replay)
        self._member = Member(pool.store, worker, self._boot, self._expiry_ns, endpoints=endpoints)
        self._epoch = 0
        self._queue: asyncio.Queue[tuple[int, Step]] = asyncio.Queue(QUEUE)
        self._replays = 0
        self._advancing = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None
        self._figures = RelayFigures()
        self.worker = worker

    @property
    def figures(self) -> RelayFigures:
        """How it goes."""
        figures = self._figures
        figures.blocks, figures.orphans = self._engine.blocks, self._engine.orphans
        figures.strange = self._engine.figures.strange
        return msgspec.structs.replace(figures, gaps=figures.gaps + self._stream.gaps)

    async def run(self) -> None:
        """Relay; ends with the error of the store that does not pass, if there is one."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._receive(), name=f"events of {self.worker}")
                group.create_task(self._carry_on(), name=f"transactions of {self.worker}")
                group.create_task(self._tick(), name=f"clock of {self.worker}")
                group.create_task(self._renew(), name=f"lease of {self.worker}")
                group.create_task(self._attend(), name=f"presence of {self.worker}")
        except* k2store.K2Error as errors:
            raise _first(errors) from None

    async def leave(self) -> None:
        """End the worker's life at once, after `run` has ended."""
        if self._member.registration is not None:
            await self._pool.end_life(self._member.registration)

    # ------------------------------------------------------------------------------ in

    async def _attend(self) -> None:
        async with aclosing(self._sockets.presence()) as presence:
            async for is_there in presence:
                self._figures.is_connected = is_there
                if is_there:
                    self._begin_anew()
                    await self._queue.put((self._epoch, Mark.NEW_LIFE))
                else:
                    await self._queue.put((self._epoch, Mark.SUSPECT))

    async def _receive(self) -> None:
        async with aclosing(self._sockets.batches()) as batches:
            async for number, payload in batches:
                self._stream.receive(number, payload, self._now_ns())
                await self._advance()

    async def _replay(self, replay: int, stream: Stream, start: int) -> None:
        async with aclosing(self._sockets.replayed(start)) as batches:
            async for number, payload in batches:
                if replay != self._replays:
                    return
                stream.replayed(number, payload)
                await self._advance()
        if replay == self._replays:
            stream.replay_ended()
            await self._advance()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now_ns = self._now_ns()
            self._stream.tick(now_ns)
            self._engine.tick(now_ns)
            await self._advance()

    async def _advance(self) -> None:
        """Hand on what the stream has ready, in order whoever asks."""
        async with self._advancing:
            epoch, stream = self._epoch, self._stream
            ready = stream.ready()
            if ready.replay_from is not None:
                assert self._group is not None, "a relay advances while it runs"
                self._replays += 1
                self._group.create_task(self._replay(self._replays, stream, ready.replay_from))
            for step in ready.steps:
                await self._queue.put((epoch, step))

    def _begin_anew(self) -> None:
        """Whatever is under way belongs to a life that is over."""
        self._epoch += 1
        self._figures.gaps += self._stream.gaps
        self._stream = Stream(can_replay=self._sockets.can_replay)
        self._replays += 1

    # ----------------------------------------------------------------------------- out

    async def _carry_on(self) -> None:
        while True:
            waiting = [await self._queue.get()]
            while len(waiting) < TOGETHER and not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            actions: list[Action] = []
            for epoch, step in waiting:
                if epoch == self._epoch:
                    actions += self._actions(step)
            for namespace in self._scopes.take_new():
                await self._until_done(partial(self._pool.declare, namespace))
            if await self._carry(actions):
                continue
            self._figures.refused += 1
            await asyncio.sleep(_PAUSE_S)
            # Of an engine that has gone nothing is told; when it comes back a new life begins anyway.
            if self._figures.is_connected:
                self._begin_anew()
                await self._carry(self._engine.mark(Mark.NEW_LIFE))

    def _actions(self, step: Step) -> list[Action]:
        if not isinstance(step, Passed):
            return self._engine.mark(step)
        self._figures.batches += 1
        try:
            batch = decode_batch(step.payload)
        except ValueError:
            self._figures.unreadable += 1
            return []
        return self._engine.apply(batch, self._now_ns())

    async def _carry(self, actions: Sequence[Action]) -> bool:
        """Carry actions out; publishes that follow on each other together. False: refused."""
        at = 0
        while at < len(actions):
            publishes: list[Publish] = []
            for action in actions[at:]:
                if not isinstance(action, Publish):
                    break
                publishes.append(action)
            if publishes:
                at += len(publishes)
                done = await self._publish(publishes)
            else:
                action = actions[at]
                at += 1
                done = await self._carry_one(action)
            if not done:
                return False
        return True

    async def _publish(self, publishes: list[Publish]) -> bool:
        """Each behind the run that it goes on from, otherwise all at once."""
        if self._member.registration is None:
            await self._carry_one(Begin())
        under_way: dict[bytes, asyncio.Task[bool]] = {}

        async def one(publish: Publish, before: asyncio.Task[bool] | None) -> bool:
            if before is not None and not await before:
                return False
            return await self._carry_one(publish)

        async with asyncio.TaskGroup() as group:
            for part, publish in _merged(publishes).items():
                before = None
                if publish.parent is not None:
                    first = publish.parent.first
                    before = under_way.get(
                        keys.run_id(publish.namespace, publish.parent.tier, first)
                    )
                under_way[part] = group.create_task(one(publish, before))
        return all(task.result() for task in under_way.values())

    async def _carry_one(self, action: Action) -> bool:
        """One transaction; False when the directory refuses it, or nobody knows who the worker is now."""
        if isinstance(action, Begin):
            self._figures.lives += 1
        # Publishes, reports and registrations may be sent twice; what changes the worker's row may not.
        again = isinstance(action, Publish | Report | Begin)
        try:
            carried = await self._until_done(partial(self._member.carry, [action]), again=again)
        except k2store.OutcomeUnknown:
            return False
        for one in carried.voided:
            self._figures.voided += 1
            self._voided(one)
        return carried.refused is None

    async def _until_done(self, call: Callable[[], Awaitable[R]], *, again: bool = True) -> R:
        """Again and again while the store cannot be reached; `again`: also when nobody knows whether
        it was done."""
        pause_s = _PAUSE_S
        while True:
            try:
                return await call()
            except k2store.K2Error as error:
                if error.retry is k2store.Retry.NEVER or (
                    error.retry is k2store.Retry.RESOLVE and not again
                ):
                    raise
            self._figures.retries += 1
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    async def _renew(self) -> None:
        """As long as the engine answers. Who was fenced meanwhile begins anew."""
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            if not self._figures.is_connected or self._member.registration is None:
                continue
            epoch = self._epoch
            try:
                refused = await self._member.renew()
            except k2store.K2Error:
                continue
            if refused is not None and epoch == self._epoch:
                self._figures.refused += 1
                self._begin_anew()
                await self._queue.put((self._epoch, Mark.NEW_LIFE))

    # -------------------------------------------------------------------------- inside

    def _now_ns(self) -> int:
        return self._pool.bounds.mark()

    def _boot(self) -> bytes:
        return self._pool.db.rng.getrandbits(128).to_bytes(16, "big")

    def _expiry_ns(self) -> int:
        return self._pool.bounds.earliest_ns() + int(self._ttl_s * _BILLION)


def _merged(publishes: list[Publish]) -> dict[bytes, Publish]:
    """One publish for each run: what makes it longer goes with what came before, by the run's key.

    What goes on from a run comes behind it in either list.
    """
    found: dict[bytes, Publish] = {}
    for publish in publishes:
        part = keys.run_id(publish.namespace, publish.tier, publish.names[:NAME_BYTES])
        before = found.get(part)
        if before is not None:
            assert publish.extends, "a run that was not reported gone is begun once"
            publish = msgspec.structs.replace(publish, extends=before.extends)
        found[part] = publish
    return found


def _first(errors: BaseExceptionGroup[k2store.K2Error]) -> k2store.K2Error:
    """An error out of a group of groups."""
    one = errors.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one
