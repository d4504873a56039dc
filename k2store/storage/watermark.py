"""A lower bound of what was acknowledged, kept beside the log in memory shared with a small file.

It is stored after each sync without a system call: a killed process leaves it exact.  After a power
cut it may be older than the log, never newer than what was durable, because it is written only
after the sync.  Two slots in different sectors are written in turn, so that a torn store leaves the
other one; the valid slot with the higher sequence number counts.
"""

from __future__ import annotations

import struct

import msgspec
from xxhash import xxh3_128_digest

from k2store.storage.disk import Cell
from k2store.storage.frame import HASH_BYTES

WATERMARK_BYTES = 4096
_SLOTS = (0, 512)
_MAGIC = b"K2WATERM"
_SLOT = struct.Struct("<8s16sQQQQQ16s")


class Mark(msgspec.Struct, frozen=True, gc=False):
    """What a slot says."""

    store: bytes
    sequence: int
    first_lsn: int
    """The oldest turn that must be there."""
    segment: int
    """The newest segment that must be there."""
    run: int
    """How many times the log has been opened."""
    lsn: int
    """The newest turn that was acknowledged."""
    hash: bytes
    """The chain after that turn."""


def _encode(mark: Mark) -> bytes:
    body = _SLOT.pack(
        _MAGIC,
        mark.store,
        mark.sequence,
        mark.first_lsn,
        mark.segment,
        mark.run,
        mark.lsn,
        mark.hash,
    )
    return body + xxh3_128_digest(body)


def _decode(slot: bytes) -> Mark | None:
    body = slot[: _SLOT.size]
    check = slot[_SLOT.size : _SLOT.size + HASH_BYTES]
    if len(body) < _SLOT.size or xxh3_128_digest(body) != check:
        return None
    magic, store, sequence, first_lsn, segment, run, lsn, chain = _SLOT.unpack(body)
    if magic != _MAGIC:
        return None
    return Mark(store, sequence, first_lsn, segment, run, lsn, chain)


class Watermark:
    """The current mark and where it is kept."""

    def __init__(self, cell: Cell, mark: Mark) -> None:
        self._cell = cell
        self.mark = mark

    @staticmethod
    def read(cell: Cell) -> Mark | None:
        """The mark a cell holds; None when neither slot is whole."""
        content = cell.load()
        marks = [mark for at in _SLOTS if (mark := _decode(content[at : at + 256])) is not None]
        return max(marks, key=lambda mark: mark.sequence, default=None)

    def advance(self, lsn: int, chain: bytes) -> None:
        """Remember that ``lsn`` was made durable: a memory write."""
        mark = self.mark
        self._put(
            Mark(
                mark.store,
                mark.sequence + 1,
                mark.first_lsn,
                mark.segment,
                mark.run,
                lsn,
                chain,
            )
        )

    def write(self, mark: Mark) -> None:
        """Replace the mark, durably, in both slots."""
        for _ in _SLOTS:
            self._put(msgspec.structs.replace(mark, sequence=self.mark.sequence + 1))
        self._cell.datasync()

    def _put(self, mark: Mark) -> None:
        self.mark = mark
        self._cell.store(_SLOTS[mark.sequence % len(_SLOTS)], _encode(mark))

    def close(self) -> None:
        """Idempotent."""
        self._cell.close()
