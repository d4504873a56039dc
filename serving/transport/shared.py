"""Bytes travel by copying between mapped memories: one machine, no daemon, nothing left behind.

Peers meet at a Unix socket in the abstract namespace and hand each other the descriptors of their memories. From then
on a read is a copy, checked against the table of the peer before and after; the peer does nothing for it. A write is
a copy, too, and then a frame that asks the peer to look.

The link also is how the death of a peer is noticed: the kernel ends it with the process. A page that was granted must
not be used for anything else before the write that it was granted for is over **or the peer is gone** (`Peer.gone`):
until then the peer may be in the middle of its copy. A link that this side has closed therefore goes on to be read
until the peer has closed it, too, which it does between two copies.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import k2store
from serving.transport.interface import Address, Local, Mode, PeerLost, Stale
from serving.transport.memory import Memory, Standing
from serving.transport.pieces import pieces

if TYPE_CHECKING:
    from serving.transport.endpoint import Endpoint
    from serving.transport.peer import Peer

SCHEME: Final = "shm://"
_GREETING: Final = b"K"
_DESCRIPTORS_MAX: Final = 16
_BYTES_A_TURN: Final = 4 << 20
"""After so many bytes the loop has its turn."""


class SharedCarrier:
    """See the module. `name`: any word that no other endpoint of this machine uses."""

    def __init__(self, name: str) -> None:
        if not name or len(name) > 90 or "\0" in name:
            raise k2store.Rejected(f"{name!r} is no name of a socket", field="name")
        self._name = name

    @property
    def maps(self) -> bool:
        """True."""
        return True

    def listen(self) -> tuple[socket.socket, str]:
        """A socket of this name. `Rejected` when another process has it."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(f"\0k2-{self._name}")
            listener.listen(64)
        except OSError as error:
            listener.close()
            raise k2store.Rejected(
                f"cannot listen as {self._name!r}: {error}", field="name"
            ) from None
        return listener, SCHEME + self._name

    async def dial(self, address: str) -> socket.socket:
        """Connect. Raises `PeerLost` when nobody of the name is on this machine."""
        if not address.startswith(SCHEME):
            raise k2store.Rejected(f"{address!r} is no address of this kind", field="address")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(
                sock, f"\0k2-{address.removeprefix(SCHEME)}"
            )
        except OSError as error:
            sock.close()
            raise PeerLost(f"nobody is at {address}: {error}") from None
        except BaseException:
            sock.close()
            raise
        return sock

    async def greet(self, sock: socket.socket, descriptors: Sequence[int]) -> list[int]:
        """Hand over the memories, and take the peer's."""
        sock.setblocking(False)
        try:
            # A fresh socket has room for one byte, so this does not wait.
            socket.send_fds(sock, [_GREETING], list(descriptors))
        except OSError as error:
            raise PeerLost(f"the peer is gone before it greeted: {error}") from None
        await _readable(sock)
        return _descriptors(sock)

    async def read(
        self,
        here: Endpoint,
        peer: Peer,
        number: int,
        pairs: Sequence[tuple[Address, Local]],
        mode: Mode,
    ) -> list[int]:
        """Copy, and look whether the pages were the same all the while."""
        geometry = here.memories[pairs[0][1].memory].geometry
        checksums = [
            _sealed(peer.memories[far.memory], far, good) for good, (far, _) in enumerate(pairs)
        ]
        left = _BYTES_A_TURN
        for piece in pieces(geometry, len(pairs), mode):
            far, near = pairs[piece.nth]
            source = peer.memories[far.memory].page(far.page)
            destination = here.memories[near.memory].page(near.page)
            destination[piece.start : piece.end] = source[piece.start : piece.end]
            here.counts.read_calls += 1
            here.counts.read_bytes += piece.end - piece.start
            left -= piece.end - piece.start
            if left <= 0:
                left = await _turn(peer)
        for good, ((far, _), checksum) in enumerate(zip(pairs, checksums, strict=True)):
            if _sealed(peer.memories[far.memory], far, good) != checksum:
                raise Stale(f"page {far.page} was sealed anew", page=far.page, pages_good=good)
        return checksums

    async def write(
        self,
        here: Endpoint,
        peer: Peer,
        number: int,
        pairs: Sequence[tuple[Local, Address]],
        mode: Mode,
    ) -> None:
        """Copy into pages that are granted."""
        geometry = here.memories[pairs[0][0].memory].geometry
        left = _BYTES_A_TURN
        for piece in pieces(geometry, len(pairs), mode):
            near, far = pairs[piece.nth]
            memory = peer.memories[far.memory]
            entry = memory.entry(far.page)
            if entry.standing != Standing.GRANTED or entry.generation != far.generation:
                raise Stale(f"page {far.page} is not granted", page=far.page)
            source = here.memories[near.memory].page(near.page)
            memory.page(far.page)[piece.start : piece.end] = source[piece.start : piece.end]
            here.counts.write_calls += 1
            here.counts.write_bytes += piece.end - piece.start
            left -= piece.end - piece.start
            if left <= 0:
                left = await _turn(peer)


async def _turn(peer: Peer) -> int:
    """Let others have the loop; raises what has ended the link meanwhile."""
    await asyncio.sleep(0)
    if peer.link.failure is not None:
        raise peer.link.failure
    return _BYTES_A_TURN


def _sealed(memory: Memory, far: Address, good: int) -> int:
    """The checksum of a page, if it is sealed and of this generation."""
    entry = memory.entry(far.page)
    if entry.standing != Standing.SEALED or entry.generation != far.generation:
        raise Stale(f"page {far.page} is not {far.generation}", page=far.page, pages_good=good)
    return entry.checksum


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, wake)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def _descriptors(sock: socket.socket) -> list[int]:
    """What comes with the first byte."""
    numbers = array.array("i")
    try:
        data, ancillary, flags, _ = sock.recvmsg(
            1, socket.CMSG_SPACE(_DESCRIPTORS_MAX * numbers.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except OSError as error:
        raise PeerLost(f"the peer is gone before it greeted: {error}") from None
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
    found = list(numbers)
    if data != _GREETING or flags & socket.MSG_CTRUNC:
        for descriptor in found:
            os.close(descriptor)
        raise PeerLost("the peer does not greet as a worker does")
    return found
