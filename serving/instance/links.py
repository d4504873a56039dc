"""Ways to other workers: dialled when they are wanted, over shared memory where that is possible.

A worker's row in the directory says where its endpoints are. Inside a region shared memory is tried first: its address
has a random word in it, so it leads to that worker or to nobody. An answer to a question finds who asked by its
ticket; everything else that arrives goes to a handler.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Final

import k2store
from serving.instance import messages
from serving.instance.messages import (
    Answer,
    Generate,
    Granted,
    Located,
    Message,
    Moved,
    Question,
    Ready,
    Refused,
    Said,
    Stop,
)
from serving.transport import Endpoint, Lost, Notice, Peer, PeerLost
from serving.transport.shared import SCHEME as SHARED

if TYPE_CHECKING:
    from kv_pool.keys import Worker

HANDLING_MAX: Final = 1024
"""Questions that are being answered at a time; a peer that asks for more is not listened to any further."""

Handle = Callable[["Way", Message], Coroutine[None, None, None]]


class Way:
    """A link to a worker, and the endpoint of ours that it is on."""

    __slots__ = ("endpoint", "peer")

    def __init__(self, endpoint: Endpoint, peer: Peer) -> None:
        self.endpoint = endpoint
        self.peer = peer

    @property
    def is_open(self) -> bool:
        """Whether the link still stands."""
        return not self.peer.is_lost

    async def say(self, message: Message) -> None:
        """Send a message. Raises `PeerLost`."""
        await self.endpoint.send(self.peer, messages.encode(message))


class Links:
    """See the module. `endpoints`: ours, those that are tried first before others."""

    def __init__(self, region: str, endpoints: Sequence[Endpoint], handle: Handle) -> None:
        self._region = region
        self._endpoints = tuple(endpoints)
        self._handle = handle
        self._ways: dict[str, Way] = {}
        self._dialling: dict[str, asyncio.Lock] = {}
        self._asked: dict[int, tuple[Peer, asyncio.Future[Answer]]] = {}
        self._told: dict[int, tuple[Peer, asyncio.Queue[Said | k2store.K2Error]]] = {}
        self._tickets = itertools.count(1)
        self._pumps: list[asyncio.Task[None]] = []
        self._handling: set[asyncio.Task[None]] = set()
        self._watching: list[Callable[[Peer], None]] = []

    def start(self) -> None:
        """Begin to listen to what arrives."""
        loop = asyncio.get_running_loop()
        for endpoint in self._endpoints:
            name = f"arrivals at {endpoint.address}"
            self._pumps.append(loop.create_task(self._pump(endpoint), name=name))

    async def stop(self) -> None:
        """Listen no more; what is being handled is given up."""
        tasks = [*self._pumps, *self._handling]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Ours."""
        return self._endpoints

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of our endpoints, for the directory."""
        return tuple([endpoint.address for endpoint in self._endpoints])

    def when_lost(self, watch: Callable[[Peer], None]) -> None:
        """Have a function called with every peer that is lost."""
        self._watching.append(watch)

    def ticket(self) -> int:
        """A number that no other question of ours has."""
        return next(self._tickets)

    async def to(self, worker: Worker, addresses: Sequence[str]) -> Way:
        """A way to a worker whose row names these addresses. Raises `PeerLost` when there is none."""
        name = str(worker)
        async with self._dialling.setdefault(name, asyncio.Lock()):
            way = self._ways.get(name)
            if way is not None and way.is_open:
                return way
            way = self._ways[name] = await self._dial(worker, addresses)
            return way

    async def ask(self, way: Way, question: Question, timeout_s: float) -> Answer:
        """Send a question and wait for its answer. Raises `PeerLost`, `Unavailable` for a refusal, `Deadline`."""
        future = self.expect(way, question.ticket)
        try:
            async with asyncio.timeout(timeout_s):
                await way.say(question)
                answer = await future
        except TimeoutError:
            raise k2store.Deadline(f"{way.peer.name} has not answered in {timeout_s:g} s") from None
        finally:
            self.forget(question.ticket)
        if isinstance(answer, Refused):
            raise messages.refused(way.peer.name, answer)
        return answer

    async def answers(self, way: Way, question: Generate) -> AsyncGenerator[Said, None]:
        """Send a client's request, and give what is said to it, until its end or until nobody listens.

        Raises `PeerLost` where the worker is lost in the middle, and what it refused.
        """
        queue: asyncio.Queue[Said | k2store.K2Error] = asyncio.Queue()
        self._told[question.ticket] = (way.peer, queue)
        ended = False
        try:
            await way.say(question)
            while not ended:
                said = await queue.get()
                if isinstance(said, k2store.K2Error):
                    ended = True
                    raise said
                ended = said.outcomes[-1].finish is not None
                yield said
        finally:
            del self._told[question.ticket]
            if not ended and way.is_open:
                self._spawn(_stop(way, question.ticket))

    def expect(self, way: Way, ticket: int) -> asyncio.Future[Answer]:
        """What will hold the answer with this ticket, or `PeerLost`; `forget` it in the end."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[ticket] = (way.peer, future)
        if not way.is_open:
            future.set_exception(PeerLost(f"{way.peer.name} is gone"))
        return future

    def forget(self, ticket: int) -> None:
        """Nobody waits for this answer any more."""
        _, future = self._asked.pop(ticket)
        if future.done() and not future.cancelled():
            future.exception()

    async def _dial(self, worker: Worker, addresses: Sequence[str]) -> Way:
        error: k2store.K2Error = PeerLost(f"{worker} names no address that leads to it from here")
        for endpoint in self._endpoints:
            scheme = endpoint.address[: endpoint.address.index("//") + 2]
            if scheme == SHARED and worker.region != self._region:
                continue
            for address in addresses:
                if address.startswith(scheme):
                    try:
                        return Way(endpoint, await endpoint.connect(address))
                    except (PeerLost, k2store.Overloaded) as failure:
                        error = failure
        raise error

    async def _pump(self, endpoint: Endpoint) -> None:
        while True:
            for arrival in await endpoint.arrivals():
                match arrival:
                    case Lost(peer=peer):
                        self._lost(peer)
                    case Notice(peer=peer, message=data):
                        self._hear(Way(endpoint, peer), data)

    def _hear(self, way: Way, data: bytes) -> None:
        try:
            message = messages.decode(data)
        except k2store.Rejected as error:
            # Whoever says what nobody understands is not talked to.
            way.peer.link.close(PeerLost(error.message))
            return
        match message:
            case Said() | Refused() if message.ticket in self._told:
                peer, queue = self._told[message.ticket]
                if peer is way.peer:
                    queue.put_nowait(
                        message
                        if isinstance(message, Said)
                        else messages.refused(peer.name, message)
                    )
            case Said():
                # Somebody wanted it once.
                return
            case Located() | Granted() | Ready() | Moved() | Refused():
                asked = self._asked.get(message.ticket)
                if asked is not None and asked[0] is way.peer and not asked[1].done():
                    asked[1].set_result(message)
            case _ if len(self._handling) >= HANDLING_MAX:
                way.peer.link.close(PeerLost(f"{way.peer.name} asks for too much at a time"))
            case _:
                self._spawn(self._handle(way, message))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

    def _lost(self, peer: Peer) -> None:
        for asked, future in self._asked.values():
            if asked is peer and not future.done():
                future.set_exception(PeerLost(f"{peer.name} is gone"))
        for told, queue in self._told.values():
            if told is peer:
                queue.put_nowait(PeerLost(f"{peer.name} is gone"))
        for watch in self._watching:
            watch(peer)


async def _stop(way: Way, ticket: int) -> None:
    try:
        await way.say(Stop(ticket))
    except PeerLost:
        # Who is gone has stopped.
        return
