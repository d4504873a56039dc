"""Ranges of keys: half-open, ordered as bytes."""

from __future__ import annotations

from msgspec import Struct

from k2store.errors import Rejected


class KeyRange(Struct, frozen=True, gc=False):
    """All keys with ``start <= key < end``; an empty ``end`` means to the end of the key space."""

    start: bytes = b""
    end: bytes = b""

    def contains(self, key: bytes) -> bool:
        """Whether the key lies in the range."""
        return self.start <= key and (not self.end or key < self.end)


EVERYTHING = KeyRange()


def prefix(start: bytes) -> KeyRange:
    """All keys that begin with these bytes."""
    if type(start) is not bytes:
        raise Rejected(f"a prefix is bytes, not {type(start).__name__}", field="prefix")
    stem = start.rstrip(b"\xff")
    return KeyRange(start, stem[:-1] + bytes((stem[-1] + 1,)) if stem else b"")


def range_of(where: KeyRange | bytes) -> KeyRange:
    """A range given as such, or as the prefix of its keys."""
    if isinstance(where, KeyRange):
        return where
    return prefix(where)
