"""What the node writes to its log: one payload a turn, for all partitions together.

A turn is either ordinary (entries of partitions, and from time to time a new reservation of the
oracle) or a checkpoint, with which every log segment begins.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from mvcc.records import Checkpoint, Entry


class Turn(Struct, frozen=True, gc=False, array_like=True):
    """An ordinary turn.  ``reserved_until_ns``: the oracle's new reservation, 0 when it has not moved."""

    reserved_until_ns: int
    entries: list[Entry]


class NodeCheckpoint(Struct, frozen=True, gc=False, array_like=True):
    """Everything that is neither settled nor in later turns."""

    reserved_until_ns: int
    partitions: list[Checkpoint]


encode = msgspec.msgpack.Encoder().encode
decode_turn = msgspec.msgpack.Decoder(Turn).decode
decode_checkpoint = msgspec.msgpack.Decoder(NodeCheckpoint).decode
