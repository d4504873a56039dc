"""Peers, requests and notices: all of a transport that does not depend on how bytes travel.

One link joins two endpoints, whoever dialled, and serves both directions. On it one task reads frames; what peers ask
for is served by tasks of their own, so many a peer at most. A request that is given up ends the link: the peer
might go on to write to pages that are somebody else's by then.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections import deque
from collections.abc import Sequence
from types import TracebackType

import k2store
from serving.transport.interface import (
    Address,
    Arrival,
    Carrier,
    Counts,
    Damaged,
    Limits,
    Local,
    Lost,
    Mode,
    Notice,
    PeerLost,
    Stale,
)
from serving.transport.link import Frame, Kind, Link, PieceHead
from serving.transport.memory import Memory, Standing
from serving.transport.peer import Peer
from serving.transport.pieces import pieces
from serving.transport.wire import (
    ENCODE,
    VERSION,
    Hello,
    ReadDone,
    Reading,
    Written,
    body,
    hello,
    refusal,
    refused,
)


class Endpoint:
    """See the package. `memories` are what peers may reach, and where reads may go."""

    def __init__(
        self, carrier: Carrier, name: str, memories: Sequence[Memory], limits: Limits | None = None
    ) -> None:
        self._carrier = carrier
        self._limits = limits or Limits()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._pumps: dict[asyncio.Task[None], Peer] = {}
        self._greeting: set[asyncio.Task[object]] = set()
        self._arrivals: deque[Arrival] = deque()
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._numbers = itertools.count(1)
        self.name = name
        self.memories = tuple(memories)
        self.address = ""
        self.counts = Counts()

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} at {self.address}>"

    async def __aenter__(self) -> Endpoint:
        self._listener, self.address = self._carrier.listen()
        self._listener.setblocking(False)
        loop = asyncio.get_running_loop()
        self._accepting = loop.create_task(self._accept(), name=f"accepting at {self.address}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._accepting is not None, "it was entered"
        assert self._listener is not None, "it was entered"
        tasks = [self._accepting, *self._greeting, *self._pumps]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    @property
    def peers(self) -> list[Peer]:
        """Whom a link leads to now."""
        return list(self._pumps.values())

    # ---------------------------------------------------------------------------- requests

    async def connect(self, address: str) -> Peer:
        """A link to the endpoint at an address. Raises `PeerLost` when nobody is there."""
        if len(self._pumps) >= self._limits.peers_max:
            raise k2store.Overloaded("too many links", limit="peers_max")
        sock = await self._carrier.dial(address)
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await self._greet(sock)
        except TimeoutError:
            sock.close()
            raise PeerLost(f"{address} accepts links and says nothing") from None
        except BaseException:
            sock.close()
            raise

    async def send(self, peer: Peer, message: bytes) -> None:
        """Say something; it comes out of the peer's `poll`, behind all that was said before.

        Raises `PeerLost`. That it was sent does not mean that it came.
        """
        self._check_message(message)
        self.counts.messages += 1
        await peer.link.send(Kind.MESSAGE, 0, message)

    async def read(
        self,
        peer: Peer,
        pairs: Sequence[tuple[Address, Local]],
        *,
        mode: Mode = Mode.AGGREGATED,
        timeout_s: float | None = None,
    ) -> None:
        """Copy sealed pages of a peer to pages of our own, and check them.

        Raises `Stale` or `Damaged`, which say how many pages from the first on are good, `PeerLost`, and `Deadline`.
        """
        number = self._begin(peer, [(near, far) for far, near in pairs])
        try:
            async with asyncio.timeout(self._limits.timeout_s if timeout_s is None else timeout_s):
                checksums = await self._carrier.read(self, peer, number, pairs, mode)
        except TimeoutError:
            raise self._give_up(peer, "a read") from None
        except asyncio.CancelledError:
            self._give_up(peer, "a read")
            raise
        except Stale:
            self.counts.stale += 1
            raise
        for good, ((far, near), checksum) in enumerate(zip(pairs, checksums, strict=True)):
            if self.memories[near.memory].checksum(near.page) != checksum:
                self.counts.damaged += 1
                raise Damaged(
                    f"page {far.page} of {peer.name} is not what it was sealed as",
                    page=far.page,
                    pages_good=good,
                )

    async def write(
        self,
        peer: Peer,
        pairs: Sequence[tuple[Local, Address]],
        *,
        notify: bytes,
        mode: Mode = Mode.AGGREGATED,
        timeout_s: float | None = None,
    ) -> None:
        """Copy pages to pages that the peer has granted, and let it know when it has checked them.

        Returns when the peer has queued the notice. Raises `Stale` for a page that is not granted (any more),
        `Damaged`, `PeerLost` and `Deadline`; after these two the notice may have come all the same.
        """
        self._check_message(notify)
        number = self._begin(peer, pairs)
        memories = self.memories
        try:
            async with asyncio.timeout(self._limits.timeout_s if timeout_s is None else timeout_s):
                await self._carrier.write(self, peer, number, pairs, mode)
                written = Written(
                    tuple([far for _, far in pairs]),
                    tuple([memories[near.memory].checksum(near.page) for near, _ in pairs]),
                    notify,
                )
                self.counts.messages += 1
                await self.ask(peer, Kind.WRITE_END, number, ENCODE(written))
        except TimeoutError:
            raise self._give_up(peer, "a write") from None
        except asyncio.CancelledError:
            self._give_up(peer, "a write")
            raise

    def poll(self) -> list[Arrival]:
        """What has arrived since the last look, in order."""
        arrivals = list(self._arrivals)
        self._arrivals.clear()
        self._arrived.clear()
        self._taken.set()
        return arrivals

    async def arrivals(self) -> list[Arrival]:
        """`poll`, as soon as there is something."""
        await self._arrived.wait()
        return self.poll()

    # ------------------------------------------------------------------------ for carriers

    async def ask(self, peer: Peer, kind: Kind, number: int, body: bytes) -> Frame:
        """Send a request and wait for its answer. Raises what was refused."""
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        peer.waiting[number] = future
        try:
            await peer.link.send(kind, number, body)
            frame = await future
        finally:
            del peer.waiting[number]
        if frame.kind is Kind.REFUSED:
            raise refused(peer.name, frame)
        return frame

    # ------------------------------------------------------------------------------ inside

    def _begin(self, peer: Peer, pairs: Sequence[tuple[Local, Address]]) -> int:
        """A number for a request, if it makes sense."""
        if peer.link.failure is not None:
            raise peer.link.failure
        if not 0 < len(pairs) <= self._limits.request_pages_max:
            raise k2store.Rejected(f"{len(pairs)} pages are no request", field="pairs")
        for near, far in pairs:
            if not 0 <= near.memory < len(self.memories):
                raise k2store.Rejected(f"we have no memory {near.memory}", field="pairs")
            if not 0 <= far.memory < len(peer.geometries):
                raise k2store.Rejected(f"{peer.name} has no memory {far.memory}", field="pairs")
            mine, theirs = self.memories[near.memory].geometry, peer.geometries[far.memory]
            if not 0 <= near.page < mine.pages or not 0 <= far.page < theirs.pages:
                raise k2store.Rejected(f"there is no such page: {near}, {far}", field="pairs")
            if (mine.page_bytes, mine.piece_bytes) != (theirs.page_bytes, theirs.piece_bytes):
                raise k2store.Rejected(f"pages of {peer.name} have another shape", field="pairs")
        return next(self._numbers)

    def _check_message(self, message: bytes) -> None:
        if len(message) > self._limits.message_bytes_max // 2:
            raise k2store.Rejected(f"a message of {len(message)} bytes", field="message")

    def _give_up(self, peer: Peer, what: str) -> k2store.Deadline:
        """The request will not end, and what it may still write must not come."""
        peer.link.close(PeerLost(f"{what} of {peer.name} was given up"))
        return k2store.Deadline(f"{what} of {peer.name} took too long; the link is closed")

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._listener is not None, "it was entered"
        while True:
            sock, _ = await loop.sock_accept(self._listener)
            if len(self._pumps) + len(self._greeting) >= self._limits.peers_max:
                sock.close()
                continue
            task: asyncio.Task[object] = loop.create_task(self._welcome(sock))
            self._greeting.add(task)
            task.add_done_callback(self._greeting.discard)

    async def _welcome(self, sock: socket.socket) -> None:
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                await self._greet(sock)
        except (PeerLost, OSError, TimeoutError):
            # Whoever does not greet is no peer; it will see the link end.
            sock.close()
        except BaseException:
            sock.close()
            raise

    async def _greet(self, sock: socket.socket) -> Peer:
        descriptors = [memory.descriptor for memory in self.memories]
        theirs = await self._carrier.greet(sock, descriptors)
        memories: list[Memory] = []
        try:
            link = Link(sock, self._limits, lingers=self._carrier.maps)
            geometries = tuple([memory.geometry for memory in self.memories])
            await link.send(Kind.HELLO, 0, ENCODE(Hello(VERSION, self.name, geometries)))
            frame = await link.receive(lambda kind, number, piece, length: None)
            said = hello(frame)
            if len(theirs) != (len(said.memories) if self._carrier.maps else 0):
                raise PeerLost("the peer names other memories than it hands over")
            if self._carrier.maps:
                # One by one: should one be refused, those before it are to be closed.
                memories.extend(Memory(geometry, theirs.pop(0)) for geometry in said.memories)
        except ValueError as error:
            raise PeerLost(f"the peer hands over what is no memory: {error}") from None
        finally:
            for memory in memories:
                memory.close()
            for descriptor in theirs:
                os.close(descriptor)
        peer = Peer(said, link, memories)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._pump(peer), name=f"link of {self.name} to {peer.name}")
        self._pumps[task] = peer
        task.add_done_callback(self._ended)
        return peer

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A link is over, if it ever began: whoever waits on it hears of that."""
        peer = self._pumps.pop(task)
        peer.link.close(PeerLost("this endpoint is closed"))
        failure = peer.link.failure
        assert failure is not None, "it was closed"
        for future in peer.waiting.values():
            if not future.done():
                future.set_exception(failure)
        peer.link.release()
        peer.gone.set()
        self._arrive(Lost(peer, failure))

    async def _pump(self, peer: Peer) -> None:
        """Read frames until the link ends."""

        def place(kind: Kind, number: int, piece: PieceHead, length: int) -> memoryview | None:
            if kind is Kind.READ_PIECE:
                return _place_read(peer, number, piece, length)
            return self._place_write(piece, length)

        try:
            while True:
                frame = await peer.link.receive(place)
                if len(self._arrivals) >= self._limits.arrivals_max:
                    self._taken.clear()
                    await self._taken.wait()
                self._take(peer, frame)
        except PeerLost as error:
            peer.link.close(error)
        finally:
            for task in peer.serving:
                task.cancel()
            await asyncio.gather(*peer.serving, return_exceptions=True)

    def _take(self, peer: Peer, frame: Frame) -> None:
        match frame.kind:
            case Kind.MESSAGE:
                self._arrive(Notice(peer, frame.body))
            case Kind.READ | Kind.WRITE_END:
                if len(peer.serving) >= self._limits.requests_max:
                    raise PeerLost(f"{peer.name} asks for too much at a time")
                serve = self._serve_read if frame.kind is Kind.READ else self._serve_write
                loop = asyncio.get_running_loop()
                task: asyncio.Task[None] = loop.create_task(serve(peer, frame))
                peer.serving.add(task)
                task.add_done_callback(peer.serving.discard)
            case Kind.READ_DONE | Kind.WRITE_DONE | Kind.REFUSED:
                future = peer.waiting.get(frame.number)
                if future is not None and not future.done():
                    future.set_result(frame)
            case _:
                raise PeerLost(f"{peer.name} sends what does not belong here: {frame.kind.name}")

    def _arrive(self, arrival: Arrival) -> None:
        self._arrivals.append(arrival)
        self._arrived.set()

    def _place_write(self, piece: PieceHead, length: int) -> memoryview | None:
        """Where a piece goes that a peer writes: into a page that is granted, or nowhere."""
        if not 0 <= piece.memory < len(self.memories):
            return None
        memory = self.memories[piece.memory]
        if piece.page >= memory.geometry.pages:
            return None
        entry = memory.entry(piece.page)
        if entry.standing != Standing.GRANTED or entry.generation != piece.generation:
            return None
        return _stretch(memory.page(piece.page), piece, length)

    async def _serve_read(self, peer: Peer, frame: Frame) -> None:
        """Send the pages that a peer asks for, as far as they are what it thinks they are."""
        try:
            try:
                asked = body(Reading, frame)
                done = await self._send_pages(peer, frame.number, asked)
                await peer.link.send(Kind.READ_DONE, frame.number, ENCODE(done))
            except (Stale, k2store.Rejected) as error:
                await peer.link.send(Kind.REFUSED, frame.number, refusal(error))
        except PeerLost as error:
            peer.link.close(error)

    async def _send_pages(self, peer: Peer, number: int, asked: Reading) -> ReadDone:
        if not 0 < len(asked.pages) <= self._limits.request_pages_max:
            raise k2store.Rejected(f"{len(asked.pages)} pages are no request", field="pages")
        found: list[memoryview] = []
        checksums: list[int] = []
        shapes = set()
        for good, far in enumerate(asked.pages):
            memory = self._memory_of(far)
            entry = memory.entry(far.page)
            if entry.standing != Standing.SEALED or entry.generation != far.generation:
                raise Stale(
                    f"page {far.page} is not {far.generation}", page=far.page, pages_good=good
                )
            found.append(memory.page(far.page))
            checksums.append(entry.checksum)
            shapes.add(memory.geometry.page_bytes)
        if len(shapes) > 1 or asked.mode not in Mode.__members__.values():
            raise k2store.Rejected("pages of one shape, in a mode that there is", field="pages")
        geometry = self.memories[asked.pages[0].memory].geometry
        for piece in pieces(geometry, len(found), Mode(asked.mode)):
            far = asked.pages[piece.nth]
            head = PieceHead(piece.nth, piece.start, far.page, far.memory, far.generation)
            data = found[piece.nth][piece.start : piece.end]
            await peer.link.send_piece(Kind.READ_PIECE, number, head, data)
        return ReadDone(tuple(checksums))

    async def _serve_write(self, peer: Peer, frame: Frame) -> None:
        """Judge pages that a peer has written; if all are right, they are announced."""
        try:
            try:
                written = body(Written, frame)
                self._judge(written)
            except (Stale, Damaged, k2store.Rejected) as error:
                await peer.link.send(Kind.REFUSED, frame.number, refusal(error))
                return
            self._arrive(Notice(peer, written.message))
            await peer.link.send(Kind.WRITE_DONE, frame.number)
        except PeerLost as error:
            peer.link.close(error)

    def _judge(self, written: Written) -> None:
        for good, (near, checksum) in enumerate(
            zip(written.pages, written.checksums, strict=False)
        ):
            memory = self._memory_of(near)
            entry = memory.entry(near.page)
            if entry.standing != Standing.GRANTED or entry.generation != near.generation:
                self.counts.stale += 1
                raise Stale(f"page {near.page} is not granted", page=near.page, pages_good=good)
            if memory.checksum(near.page) != checksum:
                self.counts.damaged += 1
                raise Damaged(
                    f"page {near.page} did not come as it was sent", page=near.page, pages_good=good
                )
        if len(written.pages) != len(written.checksums):
            raise k2store.Rejected("each page has a checksum", field="checksums")

    def _memory_of(self, near: Address) -> Memory:
        """Of ours, as a peer names it."""
        if not 0 <= near.memory < len(self.memories):
            raise k2store.Rejected(f"there is no memory {near.memory}", field="pages")
        memory = self.memories[near.memory]
        if not 0 <= near.page < memory.geometry.pages:
            raise k2store.Rejected(f"there is no page {near.page}", field="pages")
        return memory


def _place_read(peer: Peer, number: int, piece: PieceHead, length: int) -> memoryview | None:
    """Where a piece goes that we have asked for."""
    found = peer.placing.get(number)
    if found is None or piece.nth >= len(found):
        return None
    return _stretch(found[piece.nth], piece, length)


def _stretch(page: memoryview, piece: PieceHead, length: int) -> memoryview | None:
    end = piece.start + length
    return page[piece.start : end] if end <= len(page) else None
