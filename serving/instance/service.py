"""Requests of clients, as routers place them on a worker."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import k2store
from serving.instance.messages import Generate, Message, Said, Stop, refusal
from serving.instance.place import worker_named
from serving.transport import Peer, PeerLost

if TYPE_CHECKING:
    from serving.instance.instance import Instance
    from serving.instance.links import Way


class Service:
    """Generates for routers, and lets everything else through to the exchange."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._answering: dict[tuple[Peer, int], asyncio.Task[None]] = {}

    async def handle(self, way: Way, message: Message) -> None:
        """What a router or another worker says."""
        match message:
            case Generate():
                key = (way.peer, message.ticket)
                task = asyncio.current_task()
                assert task is not None, "messages are handled in tasks"
                self._answering[key] = task
                try:
                    await self._generate(way, message)
                except asyncio.CancelledError:
                    # The router wants no more of it, or is gone; who stops us all cancels again.
                    return
                finally:
                    del self._answering[key]
            case Stop(ticket=ticket):
                self._cancel(way.peer, ticket)
            case _:
                await self._instance.exchange.handle(way, message)

    def lost(self, peer: Peer) -> None:
        """Nobody listens any more to what this peer has asked for."""
        for other, ticket in list(self._answering):
            if other is peer:
                self._cancel(peer, ticket)

    def _cancel(self, peer: Peer, ticket: int) -> None:
        task = self._answering.get((peer, ticket))
        if task is not None:
            task.cancel()

    async def _generate(self, way: Way, asked: Generate) -> None:
        try:
            prefill = worker_named(asked.prefill) if asked.prefill else None
            async with self._instance.generate(asked.request, prefill, asked.generated) as stream:
                async for outcome in stream:
                    await way.say(Said(asked.ticket, (outcome,)))
        except PeerLost:
            return
        except k2store.K2Error as error:
            with suppress(PeerLost):
                await way.say(refusal(asked.ticket, error))
