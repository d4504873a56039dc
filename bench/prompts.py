"""Prompts as rows of the store: publish a chain's new blocks, find the longest prefix.

One holder of blocks (a worker) owns the rows under ``d/<region>/<worker>/``::

    id                        who the holder is now: its incarnation, its state
    run/<incarnation>/<hash>  a run of blocks, by the hash of its first one: parent, depth, hashes

A run is what one publish added: a stretch of one chain. Its row never changes; what continues it, at
its end or inside, is another run whose parent is one of its blocks. Since a hash stands for the
whole prefix before it, the row of a run is found by hash alone, and finding the longest prefix is a
walk: read the run that begins with the next block, compare, go on behind what matched.

A publish is one one-shot with three conditions: the holder is still who it was (a fenced worker
publishes nothing), the run that it continues is there, and nobody has published the same run.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

import k2store

HASH_BYTES: Final = 16
ROOT: Final = bytes(HASH_BYTES)
"""The parent of a chain's first block."""

_ENCODER: Final = msgspec.msgpack.Encoder()


class Holder(Struct, frozen=True):
    """Who holds the blocks: the row ``id``."""

    incarnation: int
    state: str


class Run(Struct, frozen=True, array_like=True):
    """A stretch of one chain.

    parent  hash of the block before the first one, `ROOT` at the beginning
    depth   how many blocks stand before it
    hashes  16 bytes each, in one piece
    """

    parent: bytes
    depth: int
    hashes: bytes

    @staticmethod
    def decode(value: bytes) -> Run:
        """The run in a row."""
        return _RUNS.decode(value)


_RUNS: Final = msgspec.msgpack.Decoder(Run)


class Match(Struct, frozen=True, gc=False):
    """How far the store knows a chain.

    blocks   how many blocks from its beginning
    run      key of the run that the last of them lies in; empty for none
    reads    how many rows were read
    """

    blocks: int
    run: bytes
    reads: int


def block_hash(number: int) -> bytes:
    """16 bytes in place of the digest that an engine would compute for a block of a trace."""
    return hashlib.blake2b(number.to_bytes(8, "big"), digest_size=HASH_BYTES).digest()


class Pool:
    """The rows of one holder, through a client of the store."""

    def __init__(self, db: k2store.Database, region: str, worker: str, incarnation: int) -> None:
        self._db = db
        self.incarnation = incarnation
        self._id = _id_key(region, worker)
        self._runs = _owned(region, worker) + b"run/" + incarnation.to_bytes(4, "big") + b"/"
        field = k2store.field
        self._still_holder = (
            field(self._id, "incarnation").equals(incarnation),
            field(self._id, "state").equals("LIVE"),
        )

    async def match(self, chain: Sequence[bytes]) -> Match:
        """The longest prefix of a chain that the store has, as of one fresh stamp."""
        found, reads, last = 0, 0, b""
        async with self._db.snapshot(strong=True) as view:
            while found < len(chain):
                key = self._runs + chain[found]
                value = await view.get(key)
                reads += 1
                if value is None:
                    break
                run = Run.decode(value)
                if run.parent != (chain[found - 1] if found else ROOT):
                    break  # The same hash on another way: not this prefix.
                found += _common(run.hashes, chain, found)
                last = key
        return Match(found, last, reads)

    async def publish(self, chain: Sequence[bytes], match: Match) -> int:
        """Add what `match` did not find as one run; gives the stamp of the commit.

        Raises `ConditionFailed` when somebody has published these blocks meanwhile: match again.
        """
        first = match.blocks
        assert first < len(chain), "there is something to publish"
        run = Run(chain[first - 1] if first else ROOT, first, b"".join(chain[first:]))
        key = self._runs + chain[first]
        conditions = [*self._still_holder, k2store.absent(key)]
        if match.run:
            conditions.append(k2store.present(match.run))
        result = await self._db.transact(
            conditions=conditions, writes=[(key, _ENCODER.encode(run))]
        )
        return result.at

    async def rows(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """Key and value of every run row, as of one stamp."""
        async for record in self._db.scan(self._runs):
            yield record.key, record.value


async def register(db: k2store.Database, region: str, worker: str) -> Pool:
    """Become the holder, in a new incarnation; runs of earlier ones count for nothing any more."""
    key = _id_key(region, worker)

    async def take(txn: k2store.Transaction) -> int:
        before = await txn.get(key)
        incarnation = 1
        if before is not None:
            incarnation += msgspec.msgpack.decode(before, type=Holder).incarnation
        txn.put(key, _ENCODER.encode(Holder(incarnation, "LIVE")))
        return incarnation

    return Pool(db, region, worker, await db.run(take))


def _common(hashes: bytes, chain: Sequence[bytes], start: int) -> int:
    """How many blocks of a run a chain has, from `start` on; at least the first."""
    count = len(hashes) // HASH_BYTES
    for place in range(1, min(count, len(chain) - start)):
        if hashes[place * HASH_BYTES : (place + 1) * HASH_BYTES] != chain[start + place]:
            return place
    return min(count, len(chain) - start)


def _owned(region: str, worker: str) -> bytes:
    return f"d/{region}/{worker}/".encode()


def _id_key(region: str, worker: str) -> bytes:
    return _owned(region, worker) + b"id"
