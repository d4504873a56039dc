"""Bytes of the log: the header of a segment and the frame of a turn (tables in docs/storage.md).

Knows the layout and the hash chain; knows no files.

A segment's *salt* is drawn when the segment is begun and enters the check of every frame header in
it.  So neither what a recycled file held before, nor bytes that a user managed to store in a value,
can pass for a frame of this segment.

The hash is xxh3: at 38 KB a turn it costs 1 µs where SHA-256 without hardware help costs 190, and
the enemy is a disk, not a forger.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec
from xxhash import xxh3_64_digest, xxh3_128_digest

from k2store.storage.failures import FormatUnknown

FORMAT = 2
SEGMENT_MAGIC = b"K2LOGSEG"
SEGMENT_HEADER_BYTES = 4096
HASH_BYTES = 16
GENESIS = bytes(HASH_BYTES)
"""The chain before the first turn."""
TURN_BYTES_MAX = 1 << 30

TURN_MAGIC = b"TURN"
PLAIN, CHECKPOINT = 0, 1

_SEGMENT = struct.Struct("<8sII16sQQQ16s16s")
_SEGMENT_CHECK_AT = _SEGMENT.size
_TURN = struct.Struct("<4sIQQII")
_TURN_WHOLE = struct.Struct("<4sIQQII8s16s")
TURN_HEADER_BYTES = _TURN_WHOLE.size
assert TURN_HEADER_BYTES == 56


class SegmentHeader(msgspec.Struct, frozen=True):
    """What the first block of a segment says."""

    store: bytes
    """16 bytes: the store it belongs to."""
    number: int
    """Segments are numbered from 1 without gaps."""
    size: int
    """Bytes of the whole file."""
    first_lsn: int
    base: bytes
    """16 bytes: the chain before the first turn."""
    salt: bytes
    """16 bytes."""


class TurnHeader(msgspec.Struct, frozen=True, gc=False):
    """What stands before a turn's payload."""

    length: int
    lsn: int
    durable_lsn: int
    """What was already durable when this turn was appended: proof that earlier turns were."""
    checkpoint: bool


def encode_segment_header(header: SegmentHeader) -> bytes:
    """One block of SEGMENT_HEADER_BYTES."""
    body = _SEGMENT.pack(
        SEGMENT_MAGIC,
        FORMAT,
        SEGMENT_HEADER_BYTES,
        header.store,
        header.number,
        header.size,
        header.first_lsn,
        header.base,
        header.salt,
    )
    return (body + xxh3_128_digest(body)).ljust(SEGMENT_HEADER_BYTES, b"\0")


def decode_segment_header(block: bytes) -> SegmentHeader | None:
    """None when damaged; FormatUnknown when it is a whole header of another format."""
    if len(block) < SEGMENT_HEADER_BYTES or not block.startswith(SEGMENT_MAGIC):
        return None
    body = block[:_SEGMENT_CHECK_AT]
    magic, version, header_bytes, store, number, size, first_lsn, base, salt = _SEGMENT.unpack(body)
    if xxh3_128_digest(body) != block[_SEGMENT_CHECK_AT:][:HASH_BYTES]:
        return None
    if version != FORMAT or header_bytes != SEGMENT_HEADER_BYTES:
        raise FormatUnknown(
            f"a log segment has format {version}; this version of k2store knows {FORMAT}"
        )
    assert magic == SEGMENT_MAGIC
    return SegmentHeader(store, number, size, first_lsn, base, salt)


def encode_turn(
    payload: bytes,
    lsn: int,
    durable_lsn: int,
    run: int,
    kind: int,
    previous: bytes,
    salt: bytes,
) -> tuple[bytes, bytes]:
    """(frame, new chain hash)."""
    head = _TURN.pack(TURN_MAGIC, len(payload), lsn, durable_lsn, run, kind)
    new = xxh3_128_digest(previous + head + xxh3_128_digest(payload))
    check = xxh3_64_digest(salt + head + new)
    return b"".join((head, check, new, payload)), new


def decode_turn_header(data: bytes, offset: int, salt: bytes) -> TurnHeader | None:
    """The header at ``offset``, None unless it is one of this segment, undamaged."""
    if offset + TURN_HEADER_BYTES > len(data):
        return None
    magic, length, lsn, durable_lsn, _, kind, check, new = _TURN_WHOLE.unpack_from(data, offset)
    if magic != TURN_MAGIC:
        return None
    head = data[offset : offset + _TURN.size]
    if xxh3_64_digest(salt + head + new) != check:
        return None
    return TurnHeader(length, lsn, durable_lsn, kind == CHECKPOINT)


def verified_turns(
    data: bytes, lsn: int, chain: bytes, salt: bytes
) -> Iterator[tuple[int, int, bool, bytes]]:
    """(offset after it, run, checkpoint, chain) of each turn from the segment's first one on, as
    far as numbers, checks and chain agree.  Unrolled: a restart walks hundreds of thousands."""
    offset, last_run, size = SEGMENT_HEADER_BYTES, 0, len(data)
    while offset + TURN_HEADER_BYTES <= size:
        magic, length, its_lsn, _, run, kind, check, new = _TURN_WHOLE.unpack_from(data, offset)
        start = offset + TURN_HEADER_BYTES
        if magic != TURN_MAGIC or its_lsn != lsn or run < last_run or start + length > size:
            return
        head = data[offset : offset + _TURN.size]
        if xxh3_64_digest(salt + head + new) != check:
            return
        if xxh3_128_digest(chain + head + xxh3_128_digest(data[start : start + length])) != new:
            return
        offset = start + ((length + 7) & ~7)
        yield offset, run, kind == CHECKPOINT, new
        chain, last_run = new, run
        lsn += 1


def frame_bytes(length: int) -> int:
    """Room a turn takes, padding included."""
    return (TURN_HEADER_BYTES + length + 7) & ~7
