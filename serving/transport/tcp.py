"""Bytes travel as frames over TCP: straight from the page where they lie to the page where they go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import k2store
from serving.transport.interface import Address, Limits, Local, Mode, PeerLost
from serving.transport.link import Kind, PieceHead
from serving.transport.pieces import pieces
from serving.transport.wire import ENCODE, ReadDone, Reading, body

if TYPE_CHECKING:
    from serving.transport.endpoint import Endpoint
    from serving.transport.peer import Peer

SCHEME: Final = "tcp://"


class TcpCarrier:
    """See the module. `listen`: ``host:port`` to listen at; port 0 for any.

    advertise  the host that peers are told, where it is another one
    dial       peers that are reached elsewhere than they say: both as ``host:port``
    """

    def __init__(
        self,
        listen: str,
        *,
        advertise: str = "",
        dial: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._host, self._port = _split(listen)
        self._advertise = advertise or self._host
        self._dial = dial or {}
        self._limits = limits or Limits()

    @property
    def maps(self) -> bool:
        """False."""
        return False

    def listen(self) -> tuple[socket.socket, str]:
        """A socket at the address. `Rejected` when that is not to be had."""
        try:
            listener = socket.create_server((self._host, self._port), backlog=64)
        except OSError as error:
            raise k2store.Rejected(
                f"cannot listen at {self._host}:{self._port}: {error}", field="listen"
            ) from None
        return listener, f"{SCHEME}{self._advertise}:{listener.getsockname()[1]}"

    async def dial(self, address: str) -> socket.socket:
        """Connect. Raises `PeerLost` when nobody listens there."""
        if not address.startswith(SCHEME):
            raise k2store.Rejected(f"{address!r} is no address of this kind", field="address")
        said = address.removeprefix(SCHEME)
        host, port = _split(self._dial.get(said, said))
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                family, kind, protocol, _, where = found[0]
                sock = socket.socket(family, kind, protocol)
                sock.setblocking(False)
                try:
                    await loop.sock_connect(sock, where)
                except BaseException:
                    sock.close()
                    raise
        except (OSError, TimeoutError) as error:
            raise PeerLost(f"nobody is at {address}: {error}") from None
        return sock

    async def greet(self, sock: socket.socket, descriptors: Sequence[int]) -> list[int]:
        """Nothing travels but frames; the link is told when to give up."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        silence_ms = int(self._limits.silence_s * 1000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_ms)
        return []

    async def read(
        self,
        here: Endpoint,
        peer: Peer,
        number: int,
        pairs: Sequence[tuple[Address, Local]],
        mode: Mode,
    ) -> list[int]:
        """Ask; the pieces are put where they go as they come."""
        geometry = here.memories[pairs[0][1].memory].geometry
        peer.placing[number] = [here.memories[near.memory].page(near.page) for _, near in pairs]
        asked = Reading(tuple([far for far, _ in pairs]), mode)
        try:
            frame = await here.ask(peer, Kind.READ, number, ENCODE(asked))
        finally:
            del peer.placing[number]
        checksums = body(ReadDone, frame).checksums
        if len(checksums) != len(pairs):
            raise PeerLost(f"{peer.name} has answered something else")
        here.counts.read_calls += sum(1 for _ in pieces(geometry, len(pairs), mode))
        here.counts.read_bytes += len(pairs) * geometry.page_bytes
        return list(checksums)

    async def write(
        self,
        here: Endpoint,
        peer: Peer,
        number: int,
        pairs: Sequence[tuple[Local, Address]],
        mode: Mode,
    ) -> None:
        """Send each piece with its destination."""
        geometry = here.memories[pairs[0][0].memory].geometry
        for piece in pieces(geometry, len(pairs), mode):
            near, far = pairs[piece.nth]
            head = PieceHead(piece.nth, piece.start, far.page, far.memory, far.generation)
            data = here.memories[near.memory].page(near.page)[piece.start : piece.end]
            await peer.link.send_piece(Kind.WRITE_PIECE, number, head, data)
            here.counts.write_calls += 1
            here.counts.write_bytes += len(data)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise k2store.Rejected(f"{address!r} is not host:port", field="address")
    return host.strip("[]"), int(port)
