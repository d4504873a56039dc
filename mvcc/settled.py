"""What a partition needs of the store that holds its settled versions.

The partition asks it questions and hands it versions in bulk; making them durable is the driver's
affair.  An in-memory implementation and the one on RocksDB (:mod:`k2store.storage`) pass one
contract suite.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

Row = tuple[bytes, int, bytes | None]
"""(key, stamp, value or None for a tombstone)."""


class Page(Protocol):
    """A bounded piece of a scan."""

    @property
    def rows(self) -> Sequence[Row]:
        """The rows found."""

    @property
    def resume(self) -> bytes | None:
        """Where the next page begins (in reverse: its end); None when the range is exhausted."""


class Settled(Protocol):
    """Versions ordered by (space, key, newest stamp first)."""

    def settle(self, space: int, rows: Iterable[Row]) -> None:
        """Write versions; a version that is already there is replaced by its equal."""

    def forget(self, space: int, versions: Iterable[tuple[bytes, int]]) -> None:
        """Delete single versions."""

    def newest(self, space: int, key: bytes, stamp: int = ...) -> tuple[int, bytes | None] | None:
        """The newest version of ``key`` at or below ``stamp``."""

    def versions(
        self, space: int, key: bytes, *, at_most: int = ..., count_max: int = ...
    ) -> list[tuple[int, bytes | None]]:
        """Versions of one key at or below ``at_most``, newest first."""

    def scan(
        self,
        space: int,
        start: bytes = ...,
        end: bytes | None = ...,
        *,
        stamp: int = ...,
        rows_max: int = ...,
        examined_max: int = ...,
        reverse: bool = ...,
        tombstones: bool = ...,
    ) -> Page:
        """The newest version at or below ``stamp`` of each key of [start, end)."""

    def all_rows(
        self, space: int, start: bytes = ..., end: bytes | None = ...
    ) -> Iterator[Sequence[Row]]:
        """Every version of every key of [start, end), by key, newest first, in batches."""
