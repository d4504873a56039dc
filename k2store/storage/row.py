"""Keys of settled rows: bytes whose order is (space, user key, newest stamp first).

::

    space (4, big endian) · user key, 00 written as 00 FF · 00 01 · 2**64-1 - stamp (8, big endian)

The terminator 00 01 sorts before every continuation of the user key (00 FF .. or a byte above 00),
so a key sorts before its extensions and no key's rows mix with another's.  Space 0 holds the named
values: there the rest is the name as it stands.
"""

from __future__ import annotations

from k2store.storage.ports import LATEST

STAMP_BYTES = 8
TAIL_BYTES = 2 + STAMP_BYTES
SPACE_BYTES = 4
END = b"\x00\x01"
META = bytes(SPACE_BYTES)
SPACE_MAX = (1 << 32) - 2
AFTER_END = b"\x00\x02"
"""In place of END: after every version of the key, before every other key."""


def space_prefix(space: int) -> bytes:
    """The first bytes of every row of a space; ValueError outside 1 .. SPACE_MAX."""
    if not 0 < space <= SPACE_MAX:
        raise ValueError(f"space {space} is not in 1 .. {SPACE_MAX}")
    return space.to_bytes(SPACE_BYTES, "big")


def space_end(space: int) -> bytes:
    """The first bytes after every row of a space."""
    return (space + 1).to_bytes(SPACE_BYTES, "big")


def key_head(prefix: bytes, key: bytes) -> bytes:
    """What all rows of a key begin with; also the least row of keys from ``key`` on."""
    return prefix + key.replace(b"\x00", b"\x00\xff") + END


def range_rows(space: int, start: bytes, end: bytes | None) -> tuple[bytes, bytes]:
    """(lower, upper): the rows of keys in [start, end) are lower <= row < upper."""
    prefix = space_prefix(space)
    return key_head(prefix, start), space_end(space) if end is None else key_head(prefix, end)


def row_key(prefix: bytes, key: bytes, stamp: int) -> bytes:
    """The row of one version; OverflowError outside 0 .. 2**64-1."""
    return (
        prefix
        + key.replace(b"\x00", b"\x00\xff")
        + END
        + (LATEST - stamp).to_bytes(STAMP_BYTES, "big")
    )


def split_row(row: bytes) -> tuple[bytes, int]:
    """(user key, stamp) of a row."""
    return (
        row[SPACE_BYTES:-TAIL_BYTES].replace(b"\x00\xff", b"\x00"),
        LATEST - int.from_bytes(row[-STAMP_BYTES:], "big"),
    )
