"""Rows of the directory, as msgpack arrays.

Their fields have positions, and conditions of one-shot transactions look at fields by position
(`position`): a field is never moved or removed, new ones come last and have a default.

Decoding is strict about types: a row of another shape raises ``ValueError``, it is never half filled.
"""

from __future__ import annotations

import enum
import functools
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from kv_pool.blocks import NAME_BYTES, Names

T = TypeVar("T", bound=Struct)


class Tier(enum.IntEnum):
    """A kind of memory, the fastest first."""

    DEVICE = 0
    HOST = 1
    DISK = 2
    SHARED = 3


TIERS: Final = len(Tier)


class State(enum.IntEnum):
    """What a worker may do: publish and serve; serve until it is empty; nothing."""

    LIVE = 0
    DRAINING = 1
    FENCED = 2


class Phase(enum.IntEnum):
    """Where a run is in its life: announced, there, or on its way out."""

    RESERVED = 0
    READY = 1
    DRAINING = 2


class Id(Struct, frozen=True, array_like=True, gc=False):
    """Who a worker is. Written by register, fence, clear and drain only.

    incarnation  grows with each life of the worker; rows of an earlier one count for nothing
    boot         16 bytes that the process drew at its start
    state        see `State`
    epochs       one for each tier: rows of an earlier epoch were cleared
    endpoints    where the worker's blocks are served
    suspect      its events have a gap: what it holds is a guess
    """

    incarnation: int
    boot: bytes
    state: int
    epoch_device: int = 0
    epoch_host: int = 0
    epoch_disk: int = 0
    epoch_shared: int = 0
    endpoints: tuple[str, ...] = ()
    suspect: bool = False

    def epoch(self, tier: int) -> int:
        """The epoch of a tier."""
        epoch: int = getattr(self, EPOCHS[tier])
        return epoch


EPOCHS: Final = ("epoch_device", "epoch_host", "epoch_disk", "epoch_shared")


class Lease(Struct, frozen=True, array_like=True, gc=False):
    """Until when an incarnation lives, unless it renews; nanoseconds since the Unix epoch."""

    incarnation: int
    expiry_ns: int


class Cursor(Struct, frozen=True, array_like=True, gc=False):
    """The last event of a stream whose effects are in the rows."""

    boot: bytes
    sequence: int


class Run(Struct, frozen=True, array_like=True, gc=False):
    """Consecutive blocks of one prompt that a worker has in one tier.

    incarnation, epoch  of the worker and its tier, when it was published
    parent              name of the block before the first one
    depth               how many blocks of the prompt lie before it
    names               packed; the first `live` of them count
    live                how many blocks are still there
    phase               see `Phase`
    generation          differs each time this key is written anew: no address is taken for a later one
    deadline_ns         until when a reservation stands
    locator             where block 0 of the run lies, in the worker's own terms
    stride              bytes from one block to the next there; 0 where blocks have no fixed place
    shards              over how many ranks each block is spread; they share one claim
    engine              engine's full hashes, packed, where its names are aliases; else empty
    content             content names of the blocks, packed, where fragments are indexed; else empty
    """

    incarnation: int
    epoch: int
    parent: bytes
    depth: int
    names: Names
    live: int
    phase: int
    generation: int
    deadline_ns: int = 0
    locator: bytes = b""
    stride: int = 0
    shards: int = 1
    engine: bytes = b""
    content: bytes = b""

    def live_names(self) -> Names:
        """The names that count."""
        end = self.live * NAME_BYTES
        return self.names if end == len(self.names) else self.names[:end]

    def is_valid(self, identity: Id, tier: int) -> bool:
        """Whether the blocks may be handed out."""
        return (
            self.phase == Phase.READY
            and self.incarnation == identity.incarnation
            and self.epoch == identity.epoch(tier)
            and identity.state != State.FENCED
        )


class Pin(Struct, frozen=True, array_like=True, gc=False):
    """A claim on the first blocks of a run.

    holder      who claims
    expiry_ns   until when, nanoseconds since the Unix epoch
    blocks      of the run, from its first on
    generation  of the run when it was claimed
    token       stamp of the acquire; 0 in the acquire itself, whose commit stamp is the token
    offered_ns  until when the run must go on being handed out, too: another copy leaves for it; 0 for claims
    """

    holder: str
    expiry_ns: int
    blocks: int
    generation: int
    token: int = 0
    offered_ns: int = 0


class Grant(Struct, frozen=True, array_like=True, gc=False):
    """Bytes that a worker may hold for a tenant."""

    incarnation: int
    granted_bytes: int


class Escrow(Struct, frozen=True, array_like=True, gc=False):
    """Bytes of a tenant that nobody was granted yet."""

    free_bytes: int


@functools.cache
def position(record: type[Struct], field: str) -> int:
    """Where a field stands in a row; conditions name it by that."""
    return record.__struct_fields__.index(field)


ENCODE: Final = msgspec.msgpack.Encoder().encode


_RUNS: Final = msgspec.msgpack.Decoder(Run)


def decode(record: type[T], value: bytes) -> T:
    """A row of the given kind; ``ValueError`` for a value of another shape."""
    try:
        return msgspec.msgpack.decode(value, type=record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a row of kind {record.__name__}: {error}") from None


def decode_run(value: bytes) -> Run:
    """A run; ``ValueError`` for a value of another shape, or with parts that do not fit together."""
    try:
        run = _RUNS.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a run: {error}") from None
    if (
        len(run.names) % NAME_BYTES
        or not 0 <= run.live <= len(run.names) // NAME_BYTES
        or not run.names
        or len(run.parent) != NAME_BYTES
    ):
        raise ValueError(f"a run of {len(run.names)} bytes of names, {run.live} of them live")
    return run
