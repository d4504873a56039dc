"""What workers say to each other behind the back of the directory.

A *ticket* ties an answer to its question; the asker draws it. Whoever asks for pages names the pages of its own where
they are to go, so the answer to `Prefill` is the bytes themselves, written where they belong, and a notice.

::

    Resolve ──▶ Located                          where blocks of mine lie that you have claimed
    Offer ────▶ Granted ──(write)──▶ Complete    blocks of mine for your cache
    Prefill ──────────────(write)──▶ Ready       compute this for me, and put it there
    (any) ────▶ Refused
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

import k2store
from kv_pool.blocks import Names
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
    """The question with this ticket cannot be answered."""

    ticket: int
    reason: str


Message: TypeAlias = Resolve | Located | Offer | Granted | Complete | Prefill | Ready | Refused
Question: TypeAlias = Resolve | Offer | Prefill
Answer: TypeAlias = Located | Granted | Ready | Refused

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODER: Final[msgspec.msgpack.Decoder[Message]] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """For the wire."""
    return _ENCODE(message)


def decode(data: bytes) -> Message:
    """From the wire; `k2store.Rejected` for what is no message."""
    try:
        return _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        raise k2store.Rejected(f"not a message of a worker: {error}", field="message") from None
