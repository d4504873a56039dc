"""What the first entry of an epoch says: the new leader's low water, and who that leader is.

Who led an epoch matters to one reader: the only voter of a log, which after a restart need not wait
for the end of a lease that only an earlier life of itself can have held. Entries written before the
leader was in them name nobody, and then it waits.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from truetime.timestamp import Stamp
from truetime.timestamp import decode as decode_stamp
from truetime.timestamp import encode as encode_stamp

NOBODY: Final = 0
"""In the place of an identity: no leader, or not known."""

_STAMP_BYTES: Final = 8
_IDENTITY_BYTES: Final = 8


class Takeover(Struct, frozen=True, gc=False):
    """The leader writes nothing at or below ``low_water``."""

    low_water: Stamp
    leader: int = NOBODY


def encode(takeover: Takeover) -> bytes:
    """The payload of a log entry of kind TAKEOVER: stamp, then identity, eight bytes each."""
    return encode_stamp(takeover.low_water) + takeover.leader.to_bytes(_IDENTITY_BYTES, "big")


def decode(payload: bytes) -> Takeover:
    """Inverse of ``encode``; ``ValueError`` for a payload of another length."""
    if len(payload) not in (_STAMP_BYTES, _STAMP_BYTES + _IDENTITY_BYTES):
        raise ValueError(f"a takeover has 8 or 16 bytes, not {len(payload)}")
    low_water = decode_stamp(payload[:_STAMP_BYTES])
    return Takeover(low_water, int.from_bytes(payload[_STAMP_BYTES:], "big"))
