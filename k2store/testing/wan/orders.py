"""What the owner of a network says to its engine, and the answers: one JSON line each.

The engine is a process of its own. Each order gets one answer; when the owner's end of the pipe
closes, because it is done or because it died, the engine takes everything down and ends.
"""

from __future__ import annotations

from typing import Final

import msgspec

from k2store.testing.wan.link import LinkCounts, LinkRule

LINE_BYTES_MAX: Final = 1 << 20


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """The first order: regions in the order of their numbers, and the seed of all chance."""

    regions: list[str]
    seed: int


class SetRule(msgspec.Struct, frozen=True, tag="rule"):
    """One direction gets a new rule."""

    source: str
    target: str
    rule: LinkRule


class Count(msgspec.Struct, frozen=True, tag="count"):
    """Tell what happened on each link."""


class Listen(msgspec.Struct, frozen=True, tag="listen"):
    """Proxy only: a port at which processes in `viewer` reach `address`, which is in `region`."""

    viewer: str
    region: str
    address: str


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Everything stands. `slot`: the part of the address range that was taken."""

    slot: int = 0


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The order is in force."""


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """Source, target and counts of each link between regions."""

    links: list[tuple[str, str, LinkCounts]]


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """The port is open at ``host:port``."""

    address: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The order could not be carried out, and why."""

    message: str


Order = Setup | SetRule | Count | Listen
Reply = Ready | Done | Counted | Listening | Failed

encode: Final = msgspec.json.Encoder().encode
_ORDERS: Final = msgspec.json.Decoder(Order)
_REPLIES: Final = msgspec.json.Decoder(Reply)


def decode_order(line: bytes) -> Order:
    """The order on a line."""
    order: Order = _ORDERS.decode(line)
    return order


def decode_reply(line: bytes) -> Reply:
    """The answer on a line."""
    reply: Reply = _REPLIES.decode(line)
    return reply


class Lines:
    """Whole lines out of the pieces in which a pipe delivers them."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that this piece completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        assert len(self._rest) <= LINE_BYTES_MAX, "an order is short"
        return lines
