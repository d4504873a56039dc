"""The engine without root: a TCP proxy for each pair of viewer and address.

``python -m k2store.testing.wan.proxy`` with orders on standard input. What differs from packets:

* A lost piece cannot be lost to the far end, because the connection's ends are two. It is late
  instead, by the time after which TCP would send it again.
* A cut holds bytes back until it heals, as TCP would send them again. New connections are accepted,
  and then nothing comes.
* The first bytes of a connection wait one round trip, which the handshake would take.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Final

from k2store.testing.wan.link import Link
from k2store.testing.wan.network import Network
from k2store.testing.wan.orders import (
    Failed,
    Listen,
    Listening,
    Order,
    Ready,
    Reply,
    SetRule,
    Setup,
)
from k2store.testing.wan.owner import INPUT, LOOK_S, Owner

PIECE_BYTES_MAX: Final = 1 << 16
UNDERWAY_BYTES_MAX: Final = 32 << 20
"""Of one direction of a connection; then the sender is not read until some have arrived."""

RETRANSMIT_S: Final = 0.2
"""Least time after which TCP sends again what was lost."""


class Pipe:
    """Bytes of one direction of a connection, under way."""

    def __init__(self, link: Link, changed: asyncio.Condition, round_trip_s: float) -> None:
        self._link = link
        self._changed = changed
        self._round_trip_s = round_trip_s
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._last_due_s = 0.0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    async def fill(self, reader: asyncio.StreamReader) -> None:
        """Take what is sent, up to its end, which travels too."""
        loop = asyncio.get_running_loop()
        piece = b"-"
        while piece:
            piece = await reader.read(PIECE_BYTES_MAX)
            self._link.enter(len(piece))
            due_s = loop.time() + self._link.travel_s()
            if self._link.loses(len(piece)):
                due_s += max(RETRANSMIT_S, self._round_trip_s)
            self._last_due_s = due_s = max(due_s, self._last_due_s)
            self._pieces.append((due_s, piece))
            self._bytes += len(piece)
            self._arrived.set()
            while self._bytes > UNDERWAY_BYTES_MAX:
                self._room.clear()
                await self._room.wait()

    async def drain(self, writer: asyncio.StreamWriter) -> None:
        """Hand over each piece at its time, and the end last."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._pieces:
                self._arrived.clear()
                await self._arrived.wait()
            due_s, piece = self._pieces.popleft()
            if (wait_s := due_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            late_s = max(0.0, loop.time() - due_s)
            if self._link.stopped(len(piece)):
                await until_open(self._link, self._changed)
                late_s = 0.0
            if piece:
                writer.write(piece)
                await writer.drain()
            elif writer.can_write_eof():
                writer.write_eof()
            self._link.leave(len(piece), late_s)
            self._bytes -= len(piece)
            self._room.set()
            if not piece:
                return


async def until_open(link: Link, changed: asyncio.Condition) -> None:
    """Return when no cut is on the link."""
    async with changed:
        await changed.wait_for(lambda: not link.rule.cut)


class Proxy:
    """See the module."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._changed = asyncio.Condition()
        self._servers: list[asyncio.Server] = []

    async def obey(self, order: Order) -> Reply:
        """Carry out one order."""
        match order:
            case Listen():
                return await self._listen(order)
            case Setup():
                return Failed("the network stands already")
            case SetRule():
                reply = self._network.obey(order)
                async with self._changed:
                    self._changed.notify_all()
                return reply
            case _:
                return self._network.obey(order)

    async def _listen(self, order: Listen) -> Reply:
        viewer, region = self._network.index(order.viewer), self._network.index(order.region)
        there, back = self._network.link(viewer, region), self._network.link(region, viewer)

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self._carry(reader, writer, order.address, there, back)
            except OSError:
                there.refuse(0)
            finally:
                writer.transport.abort()

        try:
            server = await asyncio.start_server(carry, "127.0.0.1", 0, limit=PIECE_BYTES_MAX)
        except OSError as error:
            return Failed(str(error))
        self._servers.append(server)
        host, port = server.sockets[0].getsockname()[:2]
        return Listening(f"{host}:{port}")

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        address: str,
        there: Link,
        back: Link,
    ) -> None:
        round_trip_s = there.travel_s() + back.travel_s()
        await asyncio.sleep(round_trip_s)
        await until_open(there, self._changed)
        await until_open(back, self._changed)
        host, _, port = address.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(
            host.strip("[]"), int(port), limit=PIECE_BYTES_MAX
        )
        forth = Pipe(there, self._changed, round_trip_s)
        again = Pipe(back, self._changed, round_trip_s)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(forth.fill(reader))
                group.create_task(forth.drain(far_writer))
                group.create_task(again.fill(far_reader))
                group.create_task(again.drain(writer))
        except* OSError:
            # One side is gone without an end: so is the other, once this returns.
            there.refuse(0)
        finally:
            far_writer.transport.abort()


async def serve(owner: Owner, setup: Setup) -> None:
    """Proxy until the owner is gone."""
    proxy = Proxy(Network(setup.regions, setup.seed))
    loop = asyncio.get_running_loop()
    queue = asyncio.Queue[Order | None]()

    def read() -> None:
        orders = owner.orders()
        if orders is None:
            loop.remove_reader(INPUT)
            queue.put_nowait(None)
            return
        for order in orders:
            queue.put_nowait(order)

    loop.add_reader(INPUT, read)
    owner.answer(Ready())
    while owner.present:
        with contextlib.suppress(TimeoutError):
            order = await asyncio.wait_for(queue.get(), LOOK_S)
            if order is None:
                return
            owner.answer(await proxy.obey(order))


def main() -> None:
    """Set up as the first order says, then proxy until the owner is gone."""
    owner = Owner()
    setup = owner.setup()
    if setup is not None:
        asyncio.run(serve(owner, setup))


if __name__ == "__main__":
    main()
