"""Traces of prompts, as the pool replays them: a line of JSON each, with one id for every block.

::

    {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}

with the time in ms and lengths in tokens. An id names a block and everything before it, so equal ids mean
equal prefixes. The published traces cut prompts into blocks of 512 tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from kv_pool.blocks import NAME_BYTES, Names

BLOCK_TOKENS: Final = 512
_TAG: Final = b"k2.trace"


class Request(Struct, frozen=True):
    """One prompt: when it came (ms), its lengths in tokens, and the hashes of its blocks."""

    timestamp: int
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


def read(path: Path, limit: int | None = None) -> Iterator[Request]:
    """The requests of a file, the first `limit` of them; ``ValueError`` names a line that is none."""
    decoder = msgspec.json.Decoder(Request)
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if limit is not None and number >= limit:
                return
            try:
                yield decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise ValueError(f"{path}, line {number + 1}: {error}") from None


def ideal_hits(requests: Sequence[Request]) -> list[int]:
    """Blocks of each request that an endless cache would have: the longest prefix seen before."""
    seen: set[int] = set()
    hits = []
    for request in requests:
        known = 0
        for block in request.hash_ids:
            if block not in seen:
                break
            known += 1
        hits.append(known)
        seen.update(request.hash_ids)
    return hits


class Namer:
    """Names for the ids of a trace, in place of the digests that an engine would compute."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}

    def names(self, request: Request) -> Names:
        """The names of a request's blocks, packed."""
        return self.names_of(request.hash_ids)

    def names_of(self, blocks: Sequence[int]) -> Names:
        """The names of blocks by their ids, packed."""
        known = self._known
        for block in blocks:
            if block not in known:
                digest = hashlib.sha256(_TAG + block.to_bytes(8, "big", signed=True)).digest()
                known[block] = digest[:NAME_BYTES]
        return b"".join([known[block] for block in blocks])
