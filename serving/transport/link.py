"""Frames on a socket.

::

    magic 4 | kind 1 | - 3 | length 4 | number 8 | checksum 8 | body

The checksum covers the header and the body. Of a piece of a page, which travels behind a header of its own, it covers
both headers: pages have checksums themselves. A link on which a frame is not what was sent is not
trusted any further: it ends.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import xxhash

import k2store
from serving.transport.interface import Limits, PeerLost

MAGIC: Final = b"K2kv"
_HEADER: Final = struct.Struct("<4sB3xIQ")
_CHECKSUM: Final = struct.Struct("<Q")
_PIECE: Final = struct.Struct("<IIIIQ")
HEAD_BYTES: Final = _HEADER.size + _CHECKSUM.size
_SCRATCH_BYTES: Final = 64 * 1024


class Kind(enum.IntEnum):
    """What a frame is."""

    HELLO = 1
    MESSAGE = 2
    READ = 3
    READ_PIECE = 4
    READ_DONE = 5
    WRITE_PIECE = 6
    WRITE_END = 7
    WRITE_DONE = 8
    REFUSED = 9


_PIECES: Final = frozenset({Kind.READ_PIECE, Kind.WRITE_PIECE})


class PieceHead(NamedTuple):
    """Which bytes a piece is: of the how-many-th page of a request, from `start` on.

    page, generation, memory  where they are to be put, in a write
    """

    nth: int
    start: int
    page: int
    memory: int
    generation: int


Place: TypeAlias = Callable[[Kind, int, PieceHead, int], memoryview | None]
"""Kind, request, piece and length; gives where the bytes go, None for nowhere."""


class Frame(NamedTuple):
    """A frame that is not a piece."""

    kind: Kind
    number: int
    body: bytes


class Link:
    """See the module. One task reads, any may send.

    lingers  a link that is closed on this side goes on to read until the peer has closed it as well: whoever maps our
             memory may be writing there until then
    """

    def __init__(self, sock: socket.socket, limits: Limits, *, lingers: bool) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._limits = limits
        self._lingers = lingers
        self._sending = asyncio.Lock()
        self._head = bytearray(HEAD_BYTES)
        self._piece = bytearray(_PIECE.size)
        self.failure: k2store.K2Error | None = None

    def close(self, why: k2store.K2Error) -> None:
        """End the link; the first reason stays."""
        if self.failure is None:
            self.failure = why
            # Whoever waits on the socket hears of it by this; closing alone would leave it waiting.
            try:
                self._sock.shutdown(socket.SHUT_WR if self._lingers else socket.SHUT_RDWR)
            except OSError:
                pass

    def release(self) -> None:
        """Give the socket back, when nobody uses it any more."""
        self._sock.close()

    # ----------------------------------------------------------------------------- sending

    async def send(self, kind: Kind, number: int, body: bytes = b"") -> None:
        """Send a frame. Raises `PeerLost`."""
        head = _HEADER.pack(MAGIC, kind, len(body), number)
        await self._send(head + _sum(head, body) + body)

    async def send_piece(self, kind: Kind, number: int, piece: PieceHead, data: memoryview) -> None:
        """Send a piece, from where it lies."""
        body = _PIECE.pack(*piece)
        head = _HEADER.pack(MAGIC, kind, len(body) + len(data), number)
        await self._send(head + _sum(head, body) + body, data)

    async def _send(self, *parts: bytes | memoryview) -> None:
        async with self._sending:
            if self.failure is not None:
                raise self.failure
            loop = asyncio.get_running_loop()
            try:
                for part in parts:
                    await loop.sock_sendall(self._sock, part)
            except OSError as error:
                self.close(PeerLost(f"the link broke while a frame was sent: {error}"))
                assert self.failure is not None, "it was closed"
                raise self.failure from None
            except asyncio.CancelledError:
                # Half a frame is on its way: what follows would be read as its rest.
                self.close(PeerLost("a frame was given up in the middle"))
                raise

    # --------------------------------------------------------------------------- receiving

    async def receive(self, place: Place) -> Frame:
        """The next frame that is not a piece; pieces go where `place` says.

        Raises `PeerLost` at the end of the link, however it comes.
        """
        try:
            while True:
                await self._fill(memoryview(self._head))
                kind, length, number, checksum = _parse(self._head)
                if kind in _PIECES:
                    await self._receive_piece(kind, number, length, checksum, place)
                    continue
                if length > self._limits.message_bytes_max:
                    raise PeerLost(f"a frame of {length} bytes is too long")
                body = bytearray(length)
                await self._fill(memoryview(body))
                _check(self._head, body, checksum)
                return Frame(kind, number, bytes(body))
        except OSError as error:
            raise PeerLost(f"the link broke: {error}") from None

    async def _receive_piece(
        self, kind: Kind, number: int, length: int, checksum: int, place: Place
    ) -> None:
        if length < _PIECE.size:
            raise PeerLost(f"a piece of {length} bytes has no head")
        await self._fill(memoryview(self._piece))
        _check(self._head, self._piece, checksum)
        piece = PieceHead(*_PIECE.unpack(self._piece))
        left = length - _PIECE.size
        where = place(kind, number, piece, left)
        if where is not None:
            assert len(where) == left, "a piece goes where it fits"
            await self._fill(where)
            return
        scratch = memoryview(bytearray(min(left, _SCRATCH_BYTES)))
        while left:
            step = min(left, len(scratch))
            await self._fill(scratch[:step])
            left -= step

    async def _fill(self, where: memoryview) -> None:
        loop = asyncio.get_running_loop()
        done = 0
        while done < len(where):
            if self.failure is not None:
                await self._linger()
                raise self.failure
            count = await loop.sock_recv_into(self._sock, where[done:])
            if not count:
                raise PeerLost("the peer has closed the link")
            done += count

    async def _linger(self) -> None:
        """Read until the peer has closed its side, and throw it away."""
        if self._lingers:
            loop = asyncio.get_running_loop()
            scratch = bytearray(_SCRATCH_BYTES)
            while await loop.sock_recv_into(self._sock, scratch):
                pass


def _sum(head: bytes | bytearray, body: bytes | bytearray) -> bytes:
    return _CHECKSUM.pack(xxhash.xxh3_64_intdigest(bytes(head) + bytes(body)))


def _parse(head: bytearray) -> tuple[Kind, int, int, int]:
    magic, kind, length, number = _HEADER.unpack_from(head)
    (checksum,) = _CHECKSUM.unpack_from(head, _HEADER.size)
    if magic != MAGIC:
        raise PeerLost("what came is no frame")
    try:
        return Kind(kind), length, number, checksum
    except ValueError:
        raise PeerLost(f"a frame of kind {kind} is unknown here") from None


def _check(head: bytearray, body: bytearray, checksum: int) -> None:
    if xxhash.xxh3_64_intdigest(bytes(head[: _HEADER.size]) + bytes(body)) != checksum:
        raise PeerLost("a frame's checksum is wrong: the link is not trusted any further")
