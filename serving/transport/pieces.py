"""How a transfer is cut into calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from serving.transport.interface import Mode
from serving.transport.memory import Geometry


class Piece(NamedTuple):
    """A contiguous stretch: the how-many-th page of the request, and which of its bytes."""

    nth: int
    start: int
    end: int


def pieces(geometry: Geometry, count: int, mode: Mode) -> Iterator[Piece]:
    """The calls of a transfer of `count` pages, in order."""
    size = geometry.piece_bytes
    if mode is Mode.AGGREGATED:
        for index in range(count):
            yield Piece(index, 0, geometry.page_bytes)
    elif mode is Mode.BY_REQUEST:
        for index in range(count):
            for start in range(0, geometry.page_bytes, size):
                yield Piece(index, start, start + size)
    else:
        # Keys and values of a layer lie behind each other, and are two calls all the same.
        for start in range(0, geometry.page_bytes, 2 * size):
            for index in range(count):
                yield Piece(index, start, start + size)
                if start + size < geometry.page_bytes:
                    yield Piece(index, start + size, start + 2 * size)
