"""What a transport offers, in values: addresses, modes, arrivals, counts, limits, errors."""

from __future__ import annotations

import enum
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

from msgspec import Struct

import k2store

if TYPE_CHECKING:
    from serving.transport.endpoint import Endpoint
    from serving.transport.peer import Peer


class Address(Struct, frozen=True, array_like=True, gc=False):
    """A page of a peer, as it was when somebody was told of it.

    page        its number
    generation  of its use; another one means that something else lies there
    memory      which of the peer's memories
    """

    page: int
    generation: int
    memory: int = 0


class Local(Struct, frozen=True, array_like=True, gc=False):
    """A page of our own."""

    page: int
    memory: int = 0


class Mode(enum.IntEnum):
    """How a transfer is cut into calls (MemServe, arXiv 2406.17565, names the three).

    BY_LAYER    layer after layer: what is done with can leave while later layers are computed
    BY_REQUEST  page after page, each piece by itself: what a pool needs that keeps layers apart
    AGGREGATED  a page is one call: 2 x layers times fewer
    """

    BY_LAYER = 0
    BY_REQUEST = 1
    AGGREGATED = 2


class Notice(Struct, frozen=True):
    """A peer said something, alone or behind pages that are there and checked."""

    peer: Peer
    message: bytes


class Lost(Struct, frozen=True):
    """A peer is gone; nothing of it will come, and nothing of it will be written here any more."""

    peer: Peer
    error: k2store.K2Error


Arrival: TypeAlias = Notice | Lost


class Counts(Struct):
    """What an endpoint has moved since it began.

    read_calls, write_calls  contiguous stretches of memory, each moved by itself
    read_bytes, write_bytes  of pages
    messages                 sent, those behind pages included
    stale, damaged           pages that were refused for their generation, or for their checksum
    """

    read_calls: int = 0
    write_calls: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    messages: int = 0
    stale: int = 0
    damaged: int = 0


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds of an endpoint.

    message_bytes_max     of one message
    request_pages_max     of one read or write
    requests_max          that one peer has under way here
    peers_max             links at a time
    arrivals_max          that nobody has polled yet; beyond it no more is read from peers
    timeout_s             of a request that states nothing else
    silence_s             a TCP link on which nothing is acknowledged for so long is lost
    """

    message_bytes_max: int = 1 << 20
    request_pages_max: int = 4096
    requests_max: int = 64
    peers_max: int = 256
    arrivals_max: int = 4096
    timeout_s: float = 10.0
    silence_s: float = 15.0


class PeerLost(k2store.Unavailable):
    """The peer or the link to it is gone. What was to be read is not all there; what was written may be."""


class Stale(k2store.Conflict):
    """A page is not, or not any more, what its address says; nothing was taken from there.

    page        of the peer
    pages_good  how many of the pages before it are there, in the order of the request
    """

    retry = k2store.Retry.NEVER
    fields: ClassVar[tuple[str, ...]] = ("page", "pages_good")

    def __init__(self, message: str, *, page: int, pages_good: int = 0) -> None:
        super().__init__(message)
        self.page = page
        self.pages_good = pages_good


class Damaged(k2store.Corruption):
    """A page's bytes are not those that it was sealed with; they are to be thrown away.

    page        of the peer
    pages_good  how many of the pages before it are there, in the order of the request
    """

    def __init__(self, message: str, *, page: int, pages_good: int = 0) -> None:
        super().__init__(message)
        self.page = page
        self.pages_good = pages_good


class Carrier(Protocol):
    """How bytes travel: what a backend has to offer. `Endpoint` does the rest, once for all of them."""

    @property
    def maps(self) -> bool:
        """Whether the memories of peers are mapped here."""
        ...

    def listen(self) -> tuple[socket.socket, str]:
        """A listening socket and the address by which peers come to it."""
        ...

    async def dial(self, address: str) -> socket.socket:
        """A socket to a peer. Raises `PeerLost`, or `Rejected` for an address that is none."""
        ...

    async def greet(self, sock: socket.socket, descriptors: Sequence[int]) -> list[int]:
        """Exchange what must go before the first frame; gives the peer's descriptors, if they travel."""
        ...

    async def read(
        self,
        here: Endpoint,
        peer: Peer,
        number: int,
        pairs: Sequence[tuple[Address, Local]],
        mode: Mode,
    ) -> list[int]:
        """Copy pages from a peer; gives the checksums that they were sealed with. Raises `Stale`."""
        ...

    async def write(
        self,
        here: Endpoint,
        peer: Peer,
        number: int,
        pairs: Sequence[tuple[Local, Address]],
        mode: Mode,
    ) -> None:
        """Copy pages to a peer; that all of them arrived is checked behind this."""
        ...
