"""What the frames of a link say, and their errors in both directions."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
from msgspec import Struct

import k2store
from serving.transport.interface import Address, Damaged, PeerLost, Stale
from serving.transport.link import Frame, Kind
from serving.transport.memory import Geometry

T = TypeVar("T", bound=Struct)

VERSION: Final = 1
ENCODE: Final = msgspec.msgpack.Encoder().encode


class Hello(Struct, frozen=True, array_like=True):
    """What each side says first."""

    version: int
    name: str
    memories: tuple[Geometry, ...]


class Reading(Struct, frozen=True, array_like=True):
    """Asks for pages, cut in a mode."""

    pages: tuple[Address, ...]
    mode: int


class ReadDone(Struct, frozen=True, array_like=True):
    """All pieces of a read are sent; the checksums that the pages were sealed with."""

    checksums: tuple[int, ...]


class Written(Struct, frozen=True, array_like=True):
    """All pieces of a write are sent, with these checksums; the message follows on them."""

    pages: tuple[Address, ...]
    checksums: tuple[int, ...]
    message: bytes


class Refusal(Struct, frozen=True, array_like=True):
    """Why a request was not done, or not to its end."""

    error: str
    message: str
    page: int = 0
    pages_good: int = 0


def body(record: type[T], frame: Frame) -> T:
    """What a frame says. `PeerLost` for one that says nothing of the kind."""
    try:
        return msgspec.msgpack.decode(frame.body, type=record)
    except msgspec.MsgspecError as error:
        raise PeerLost(f"a frame is no {record.__name__}: {error}") from None


def hello(frame: Frame) -> Hello:
    """The greeting; `PeerLost` for anything else, and for another version."""
    if frame.kind is not Kind.HELLO:
        raise PeerLost("the peer does not greet")
    said = body(Hello, frame)
    if said.version != VERSION:
        raise PeerLost(f"the peer speaks version {said.version}, and this is {VERSION}")
    try:
        for geometry in said.memories:
            geometry.check()
    except ValueError as error:
        raise PeerLost(str(error)) from None
    return said


def refusal(error: k2store.K2Error) -> bytes:
    """An error, for the peer."""
    match error:
        case Stale() | Damaged():
            said = Refusal(type(error).__name__, error.message, error.page, error.pages_good)
        case _:
            said = Refusal("Rejected", error.message)
    return ENCODE(said)


def refused(name: str, frame: Frame) -> k2store.K2Error:
    """The error that a peer has sent."""
    said = body(Refusal, frame)
    message = f"{name}: {said.message}"
    match said.error:
        case "Stale":
            return Stale(message, page=said.page, pages_good=said.pages_good)
        case "Damaged":
            return Damaged(message, page=said.page, pages_good=said.pages_good)
        case _:
            return k2store.Rejected(message, field="request")
