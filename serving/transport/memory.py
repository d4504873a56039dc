"""Memory that peers may reach: pages of one size, and a table of what each of them is worth.

The whole lies in one anonymous file in memory (``memfd``), so another process that was handed its descriptor maps
the same pages, and nothing is left behind when the last of them ends, however it ends::

    table   pages x (standing, generation, checksum, -)    4 x 8 bytes each
    pages   pages x page_bytes                             aligned to 4 KiB

The owner alone changes the table. A reader in another process looks at a page's entry before and after it has copied
the bytes, and trusts nothing but the checksum of what it has copied: no order of stores in memory is relied upon.
"""

from __future__ import annotations

import enum
import fcntl
import mmap
import os
from typing import Final, NamedTuple

import xxhash
from msgspec import Struct

_ENTRY_WORDS: Final = 4
_WORD_BYTES: Final = 8
_ALIGNMENT: Final = 4096
BYTES_MAX: Final = 1 << 40


class Geometry(Struct, frozen=True, array_like=True):
    """The shape of a memory.

    pages        how many
    page_bytes   of each
    piece_bytes  of one layer's keys, or values, within a page: what is contiguous where layers are kept apart
    """

    pages: int
    page_bytes: int
    piece_bytes: int

    @property
    def pieces(self) -> int:
        """Pieces of a page: twice the layers."""
        return self.page_bytes // self.piece_bytes

    @property
    def table_bytes(self) -> int:
        """The table with what is left free behind it."""
        return -(-self.pages * _ENTRY_WORDS * _WORD_BYTES // _ALIGNMENT) * _ALIGNMENT

    @property
    def bytes(self) -> int:
        """Of the whole memory."""
        return self.table_bytes + self.pages * self.page_bytes

    def check(self) -> None:
        """``ValueError`` for a shape that no memory has."""
        if self.pages < 1 or self.page_bytes < 1 or self.piece_bytes < 1:
            raise ValueError(f"a memory has pages, and pages have bytes: {self}")
        if self.page_bytes % self.piece_bytes or self.bytes > BYTES_MAX:
            raise ValueError(f"a page is a whole number of pieces, and a memory has an end: {self}")


class Standing(enum.IntEnum):
    """What peers may do with a page: nothing, write it, read it."""

    FREE = 0
    GRANTED = 1
    SEALED = 2


class Entry(NamedTuple):
    """What the table says of a page. The checksum is of a sealed page's bytes."""

    standing: int
    generation: int
    checksum: int


class Memory:
    """See the module. Without a descriptor a new memory, all of it zero and free."""

    def __init__(self, geometry: Geometry, descriptor: int | None = None) -> None:
        geometry.check()
        self.geometry = geometry
        if descriptor is None:
            descriptor = os.memfd_create("k2 pages", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.truncate(descriptor, geometry.bytes)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        elif not _keeps(descriptor, geometry.bytes):
            os.close(descriptor)
            raise ValueError(f"what was handed over does not stay as large as {geometry}")
        self.descriptor = descriptor
        whole = memoryview(mmap.mmap(descriptor, geometry.bytes))
        table_end = geometry.pages * _ENTRY_WORDS * _WORD_BYTES
        self._table = whole[:table_end].cast("Q")
        self.data = whole[geometry.table_bytes :]

    def __repr__(self) -> str:
        return f"<Memory {self.geometry}>"

    def close(self) -> None:
        """Let the descriptor go; the pages stay mapped for as long as somebody looks at them."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def page(self, page: int) -> memoryview:
        """The bytes of a page."""
        size = self.geometry.page_bytes
        assert 0 <= page < self.geometry.pages, page
        return self.data[page * size : (page + 1) * size]

    def entry(self, page: int) -> Entry:
        """What the table says of a page."""
        at = page * _ENTRY_WORDS
        return Entry(self._table[at], self._table[at + 1], self._table[at + 2])

    def checksum(self, page: int) -> int:
        """Of the bytes that are there now."""
        return xxhash.xxh3_64_intdigest(self.page(page))

    def free(self, page: int) -> None:
        """From now on nobody may read or write the page."""
        self._table[page * _ENTRY_WORDS] = Standing.FREE

    def grant(self, page: int, generation: int) -> None:
        """Let peers write the page, under this generation."""
        self._enter(page, Standing.GRANTED, generation, 0)

    def seal(self, page: int, generation: int, checksum: int | None = None) -> int:
        """Let peers read the page, under this generation; gives its checksum.

        checksum  of the bytes, where somebody has it already
        """
        if checksum is None:
            checksum = self.checksum(page)
        self._enter(page, Standing.SEALED, generation, checksum)
        return checksum

    def _enter(self, page: int, standing: Standing, generation: int, checksum: int) -> None:
        at = page * _ENTRY_WORDS
        # Nobody who looks in between finds the old standing with the new generation.
        self._table[at] = Standing.FREE
        self._table[at + 1] = generation
        self._table[at + 2] = checksum
        self._table[at] = standing


def _keeps(descriptor: int, size: int) -> bool:
    """Whether a file has so many bytes and never fewer: a page that vanished would end who maps it."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return bool(seals & fcntl.F_SEAL_SHRINK) and os.fstat(descriptor).st_size >= size
