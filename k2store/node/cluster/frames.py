"""What one node says to another: a frame holds whatever has gathered in a turn.

Frames are msgpack of fixed shape. One too long for the transport travels in parts: each part begins
with a byte that says whether more follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from k2store.rpc.transport import FRAME_BYTES_MAX
from mvcc.messages import Answer, BatchAnswer, Message
from replication import HomeMessage, Position
from replication import Message as LogMessage

PART_BYTES_MAX: Final = FRAME_BYTES_MAX - 1
WHOLE_BYTES_MAX: Final = 256 << 20
"""Largest frame of all parts together; a longer one ends the connection."""

_MORE: Final = b"\x01"
_LAST: Final = b"\x00"

Row: TypeAlias = tuple[bytes, int, bytes | None]


class Forwarded(Struct, frozen=True, gc=False, array_like=True):
    """A request for the leader of a partition. `end` is where its range ends for the sender, so
    that a request under an old map changes nothing.
    """

    partition: int
    end: bytes
    message: Message


class Pull(Struct, frozen=True, gc=False, array_like=True):
    """Asks for the rows of a partition from a key on, as part of a snapshot at `position`.

    `end` is where the partition of the snapshot ends; it says nothing in the first question, which
    has an empty `start`.
    """

    partition: int
    position: Position
    start: bytes
    end: bytes


class Page(Struct, frozen=True, gc=False, array_like=True):
    """Rows of whole keys, from `start` to before `resume` (b"": to the end of the partition).

    `state` is the snapshot's own content, in the first page only; `horizon` is the sender's now.
    `position` differs from the asked one when the copy cannot go on.
    """

    partition: int
    position: Position
    start: bytes
    resume: bytes
    horizon: int
    state: bytes
    rows: list[Row]


NO_MORE: Final = 0


class Hint(Struct, frozen=True, gc=False, array_like=True):
    """The sender has open transactions that may still write to `partition`, none below `stamp`.

    `NO_MORE` for a stamp: it has none, and gives no further hint.
    """

    partition: int
    stamp: int


class Report(Struct, frozen=True, gc=False, array_like=True):
    """How far history is final on the sender, by partition, under its version of the map; and
    whether it is about to end, so that nobody gives it a lead.
    """

    map_version: int
    safe: dict[int, int]
    draining: bool = False


class Frame(Struct, array_like=True):
    """One frame; `lo_ns` is the earliest that now may be for the sender. `accuses`: the receiver's
    clock was beyond the latest that now may be for the sender. `outdated`: an incarnation of the
    receiver that began on an old copy of its folder; "" if the sender has met none.
    """

    lo_ns: int
    logs: list[tuple[int, LogMessage]]
    requests: list[Forwarded]
    answers: list[Answer | BatchAnswer]
    carried: list[tuple[bytes, Message]]
    hints: list[Hint]
    pulls: list[Pull]
    pages: list[Page]
    homes: list[tuple[str, HomeMessage]] = []
    report: Report | None = None
    accuses: bool = False
    outdated: str = ""


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Frame).decode


def parts(data: bytes) -> Iterator[bytes]:
    """The frames of the transport that carry `data`."""
    for start in range(0, len(data), PART_BYTES_MAX):
        part = data[start : start + PART_BYTES_MAX]
        yield (_MORE if start + PART_BYTES_MAX < len(data) else _LAST) + part


class Joiner:
    """Puts the parts of one connection together again."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def take(self, part: bytes) -> bytes | None:
        """The whole frame when this was its last part; ValueError for what no peer sends."""
        if part[:1] not in (_MORE, _LAST):
            raise ValueError("a part of a frame without its mark")
        if not self._parts and part[:1] == _LAST:
            return part[1:]
        self._parts.append(part[1:])
        self._size += len(part)
        if self._size > WHOLE_BYTES_MAX:
            raise ValueError(f"a frame of more than {WHOLE_BYTES_MAX} bytes")
        if part[:1] == _MORE:
            return None
        whole = b"".join(self._parts)
        self._parts = []
        self._size = 0
        return whole
