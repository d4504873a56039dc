"""The engine's pages, as the loop uses them: each call runs in the engine's thread, between two steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, TypeVar

import k2store
from kv_pool.pool.block_pool import Slot
from serving.pages.mem_pool import Held, MemPool
from serving.transport import Address, Local, Memory

if TYPE_CHECKING:
    from serving.engine.engine import Engine
    from serving.engine.front import Front

T = TypeVar("T")


class EnginePages:
    """See the module. `memory` is where the device's pages lie, and what peers reach of it."""

    def __init__(self, pool: MemPool, memory: Memory) -> None:
        self._pool = pool
        self._memory = memory
        self._front: Front | None = None
        self._undoing: set[asyncio.Future[None]] = set()

    def attach(self, front: Front) -> None:
        """The front whose thread has the pool."""
        self._front = front

    @property
    def front(self) -> Front:
        """See `attach`."""
        assert self._front is not None, "it was attached"
        return self._front

    @property
    def page_tokens(self) -> int:
        """Tokens of a page."""
        return self._pool.page_tokens

    @property
    def page_bytes(self) -> int:
        """Bytes of a page."""
        return self._memory.geometry.page_bytes

    def count(self, tokens: int) -> int:
        """Pages for so many tokens, the last one perhaps not full."""
        return -(-tokens // self.page_tokens)

    # ----------------------------------------------------------------- in the engine's thread

    def hold(self, slots: Sequence[Slot]) -> None:
        """Keep pages of the index once more."""
        self._pool.hold(slots)

    def revoke(self, slots: Sequence[Slot]) -> None:
        """Peers may not write these pages any more."""
        for slot in slots:
            self._memory.free(slot.number)

    # ---------------------------------------------------------------------------- on the loop

    async def release(self, slots: Sequence[Slot]) -> None:
        """Let go of pages, once each."""
        if slots:
            await self._surely(lambda engine: engine.pool.release(slots))

    async def acquire(self, tokens: Sequence[int]) -> Held:
        """Hold what is here of the beginning of some tokens, on the device."""
        return await self._obtain(
            lambda engine: engine.pool.acquire(tokens), lambda held: self.release(held.pages)
        )

    async def take(self, count: int) -> tuple[Slot, ...]:
        """Pages to be filled by this process; `k2store.Overloaded` without room."""
        return await self._obtain(lambda engine: engine.pool.alloc_mem(count), self.give_back)

    async def take_for_peers(self, count: int) -> tuple[Slot, ...]:
        """Pages that peers may fill."""

        def take(engine: Engine) -> tuple[Slot, ...]:
            slots = engine.pool.alloc_mem(count)
            for slot in slots:
                self._memory.grant(slot.number, slot.generation)
            return slots

        return await self._obtain(take, self.give_back)

    async def give_back(self, slots: Sequence[Slot]) -> None:
        """Pages that were taken, and not inserted, are not needed."""
        if slots:
            await self._surely(lambda engine: engine.pool.free_mem(slots))

    async def insert(
        self,
        tokens: Sequence[int],
        start: int,
        slots: Sequence[Slot],
        namespace: bytes | None = None,
    ) -> int:
        """Pages that were taken hold the blocks of `tokens` from the `start`-th on; they are the cache's now.

        namespace  of the blocks, where it is not that of prompts

        Gives how many of them are there. What comes before must be in the cache; if it has gone
        meanwhile, so do these.
        """
        size = self.page_tokens
        end = start + len(slots)

        def insert(engine: Engine) -> int:
            self.revoke(slots)
            pool = engine.pool
            held = pool.acquire(tokens[: start * size], namespace)
            if held.chain.blocks < start:
                pool.release(held.pages)
                pool.free_mem(slots)
                return 0
            fresh = tokens[start * size : end * size]
            _, kept = pool.insert(held.chain, fresh, slots, namespace)
            pool.release((*held.pages, *kept))
            return len(kept)

        return await self._surely(insert)

    async def _surely(self, function: Callable[[Engine], T]) -> T:
        """Have it done even if nobody waits for it any more."""
        return await asyncio.shield(asyncio.ensure_future(self.front.call(function)))

    async def _obtain(
        self, function: Callable[[Engine], T], undo: Callable[[T], Coroutine[None, None, None]]
    ) -> T:
        """Have it done; what it gives is given back if nobody waits for it any more."""
        task = asyncio.ensure_future(self.front.call(function))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            undoing = asyncio.ensure_future(_undo(task, undo))
            self._undoing.add(undoing)
            undoing.add_done_callback(self._undoing.discard)
            raise


async def _undo(task: asyncio.Future[T], undo: Callable[[T], Coroutine[None, None, None]]) -> None:
    try:
        await undo(await task)
    except k2store.K2Error:
        # There was nothing to give back, or there is no engine any more.
        return


def addresses(slots: Sequence[Slot]) -> tuple[Address, ...]:
    """Pages of ours, for peers."""
    return tuple([Address(slot.number, slot.generation) for slot in slots])


def local(slots: Sequence[Slot]) -> list[Local]:
    """Pages of ours, for our endpoint."""
    return [Local(slot.number) for slot in slots]
