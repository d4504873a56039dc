"""Sizes of a store; none of them changes what is on disk already."""

from __future__ import annotations

import msgspec

from k2store.storage.frame import SEGMENT_HEADER_BYTES

SEGMENT_BYTES_MIN = 4 * SEGMENT_HEADER_BYTES


class StorageOptions(msgspec.Struct, frozen=True):
    """How a store is kept."""

    segment_bytes: int = 64 << 20
    """Size of a segment of the log, a multiple of 4096.  A full one asks for a checkpoint, so it
    bounds what a restart must replay."""
    memtable_bytes: int = 32 << 20
    """How many settled rows RocksDB gathers before it writes a table by itself.  About a segment of
    the log, so that the flush which lets a segment go writes one table, and merges are rare."""
    cache_bytes: int = 64 << 20
    """RocksDB's cache of blocks it has read."""

    def __post_init__(self) -> None:
        if self.segment_bytes < SEGMENT_BYTES_MIN or self.segment_bytes % SEGMENT_HEADER_BYTES:
            raise ValueError(
                f"segment_bytes is a multiple of {SEGMENT_HEADER_BYTES}, at least"
                f" {SEGMENT_BYTES_MIN}"
            )
        if min(self.memtable_bytes, self.cache_bytes) < 1 << 16:
            raise ValueError("memtable_bytes and cache_bytes are at least 65536")
