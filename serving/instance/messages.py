"""What workers and routers say to each other behind the back of the directory.

A *ticket* ties an answer to its question; the asker draws it. Whoever asks for pages names the pages of its own where
they are to go, so the answer to `Prefill` is the bytes themselves, written where they belong, and a notice.

::

    Resolve ──▶ Located                          where blocks of mine lie that you have claimed
    Offer ────▶ Granted ──(write)──▶ Complete    blocks of mine for your cache
    Prefill ──────────────(write)──▶ Ready       compute this for me, and put it there
    Move ─────▶ Moved                            have blocks of yours at another worker, and not at yours
    Generate ─▶ Said ─▶ Said ─▶ ...              a request of a client, which a router has placed here
       └──▶ Stop                                 nobody wants the rest
    (any) ────▶ Refused
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

import k2store
from kv_pool.blocks import Names
from serving.engine.request import Outcome, Request
from serving.transport import Address


class Resolve(Struct, frozen=True, array_like=True, tag=1):
    """Asks where the blocks of a prompt's beginning lie."""

    ticket: int
    names: Names


class Located(Struct, frozen=True, array_like=True, tag=2):
    """Where they lie, from the first on, as far as they are there."""

    ticket: int
    pages: tuple[Address, ...]


class Offer(Struct, frozen=True, array_like=True, tag=3):
    """Offers the whole blocks of some tokens."""

    ticket: int
    tokens: tuple[int, ...]


class Granted(Struct, frozen=True, array_like=True, tag=4):
    """Pages for the blocks from the `start`-th on; none where nothing is wanted."""

    ticket: int
    start: int
    pages: tuple[Address, ...]


class Complete(Struct, frozen=True, array_like=True, tag=5):
    """The bytes of an offer lie in the pages that were granted for it."""

    ticket: int


class Prefill(Struct, frozen=True, array_like=True, tag=6):
    """Asks to compute a prompt, and to write the pages from the `start`-th on to these pages.

    The last page is the one that is not full, if there is one. The answer's notice has the first token.
    """

    ticket: int
    tokens: tuple[int, ...]
    start: int
    pages: tuple[Address, ...]
    sampling: bytes


class Ready(Struct, frozen=True, array_like=True, tag=7):
    """The prompt is computed, its pages are where they were wanted, and this is the first token.

    cached, computed  tokens of the prompt that were found computed, and that had to be computed
    """

    ticket: int
    token: int
    cached: int
    computed: int


class Refused(Struct, frozen=True, array_like=True, tag=8):
    """The question with this ticket is not answered; `error` is the class of the reason.

    field  of a request that is no good
    """

    ticket: int
    error: str
    reason: str
    field: str = ""


class Generate(Struct, frozen=True, array_like=True, tag=9):
    """A request of a client.

    generated  tokens that another worker has generated before it was lost: the answer goes on behind them
    prefill    who is to compute the prompt, as ``region/name``; empty where that is nobody else
    """

    ticket: int
    request: Request
    generated: tuple[int, ...] = ()
    prefill: str = ""


class Said(Struct, frozen=True, array_like=True, tag=10):
    """What came of it since the last one; the last outcome of all has a `finish`."""

    ticket: int
    outcomes: tuple[Outcome, ...]


class Stop(Struct, frozen=True, array_like=True, tag=11):
    """Nobody wants the rest of the answer with this ticket."""

    ticket: int


class Move(Struct, frozen=True, array_like=True, tag=12):
    """Asks to move the whole blocks of some tokens to another worker, ``region/name``."""

    ticket: int
    tokens: tuple[int, ...]
    to: str


class Moved(Struct, frozen=True, array_like=True, tag=13):
    """They are there, and so many of them are not here any more: what is claimed stays."""

    ticket: int
    blocks: int


Question: TypeAlias = Resolve | Offer | Prefill | Move
Answer: TypeAlias = Located | Granted | Ready | Moved | Refused
Message: TypeAlias = Question | Answer | Complete | Generate | Said | Stop

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODER: Final[msgspec.msgpack.Decoder[Message]] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """For the wire."""
    return _ENCODE(message)


def refusal(ticket: int, error: k2store.K2Error) -> Refused:
    """An error, as an answer."""
    match error:
        case k2store.Rejected():
            return Refused(ticket, "Rejected", error.message, error.field or "")
        case k2store.Overloaded():
            return Refused(ticket, "Overloaded", error.message, error.limit or "")
        case _:
            return Refused(ticket, "Unavailable", error.message)


def refused(name: str, said: Refused) -> k2store.K2Error:
    """The error that an answer stands for."""
    message = f"{name}: {said.reason}"
    match said.error:
        case "Rejected":
            return k2store.Rejected(said.reason, field=said.field or None)
        case "Overloaded":
            return k2store.Overloaded(message, limit=said.field or None, retry_after_s=1.0)
        case _:
            return k2store.Unavailable(message)


def decode(data: bytes) -> Message:
    """From the wire; `k2store.Rejected` for what is no message."""
    try:
        return _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        raise k2store.Rejected(f"not a message of a worker: {error}", field="message") from None
