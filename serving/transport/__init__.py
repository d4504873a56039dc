"""Moving pages of KV cache between processes, one side at a time.

A worker *registers* memories: pages of one size, each with an entry that says what it is worth::

    FREE ──grant(generation)──▶ GRANTED ──seal──▶ SEALED(generation, checksum)
      ▲                            │                  │
      └────────────free────────────┴───────free───────┘

Its peers *read* sealed pages and *write* granted ones without its engine taking part. An address is a page **and a
generation**: a page that is used anew has another one, so nobody takes the block that lies there now for
the one that lay there before. What arrives is judged where it has arrived, by the checksum that the page was
sealed with: a page that is torn, damaged or overwritten in the middle of a read is found out by its reader.

::

    async with Endpoint(TcpCarrier("127.0.0.1:0"), "fra/w1", [memory]) as here:
        peer = await here.connect("tcp://10.0.0.7:7500")
        await here.read(peer, [(Address(3, 17), Local(0))])  # their page 3 becomes our page 0
        await here.write(
            peer, [(Local(0), Address(9, 4))], notify=b"done"
        )  # our page 0 becomes their page 9
        for arrival in await here.arrivals():  # what peers have said, and who is gone
            ...

A `write` is over when the receiver has checked every page and queued the notice: data complete, then said. A `read`
is over when the reader has checked every page.

A transfer is cut into *calls*, each one contiguous stretch of memory. A pool that keeps each layer's keys and values
apart needs 2 x layers calls a page; ours keeps a page in one piece and needs one. `Mode` says how a
transfer is cut, so that the difference can be counted.

``interface``  addresses, modes, arrivals, errors, limits
``memory``     pages in shared memory with their table
``pieces``     how a transfer is cut into calls
``link``       frames on a socket; ``wire`` what they say
``endpoint``   peers, requests, notices: all that does not depend on how bytes travel
``shared``     bytes travel by mapping the peer's memory (one machine); ``tcp`` by frames

Nothing here knows torch, engines or the directory. No frame can place a byte outside a granted page or outside the
destination of a read that we began, or end the process. Peers that share memory are trusted as parts of one program
are. Links are neither encrypted nor authenticated: they belong on a network of the fleet's own.
"""

from __future__ import annotations

from serving.transport.endpoint import Endpoint
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
from serving.transport.memory import Geometry, Memory, Standing
from serving.transport.peer import Peer
from serving.transport.shared import SharedCarrier
from serving.transport.tcp import TcpCarrier

__all__ = [
    "Address",
    "Arrival",
    "Carrier",
    "Counts",
    "Damaged",
    "Endpoint",
    "Geometry",
    "Limits",
    "Local",
    "Lost",
    "Memory",
    "Mode",
    "Notice",
    "Peer",
    "PeerLost",
    "SharedCarrier",
    "Stale",
    "Standing",
    "TcpCarrier",
]
