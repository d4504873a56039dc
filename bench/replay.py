"""A trace against a store: each prompt asks for its longest prefix, then publishes what is new."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from bench.prompts import HASH_BYTES, Match, Pool, Run, block_hash
from bench.samples import Spread, spread
from bench.trace import Request, ideal_hits
from k2store.errors import ConditionFailed

ATTEMPTS_MAX: Final = 10
"""How often a prompt is matched anew because somebody published its blocks meanwhile."""


class Counts(Struct):
    """What has happened so far.

    references  blocks of the prompts that are through; `hits` of them were found in the store
    ideal       what an endless cache that knows everything at once would have had
    reads       rows read to find prefixes
    overtaken   publishes that found their blocks published by somebody else
    """

    requests: int = 0
    references: int = 0
    hits: int = 0
    ideal: int = 0
    reads: int = 0
    publishes: int = 0
    published_blocks: int = 0
    overtaken: int = 0


class Holding(Struct, frozen=True, kw_only=True):
    """What the store holds of a trace: run rows, the blocks in them, bytes of keys and values."""

    runs: int
    blocks: int
    bytes: int


class Replay:
    """One replay. Figures can be read while it runs."""

    def __init__(
        self, pool: Pool, requests: Sequence[Request], *, speed: float, limit_s: float = 0.0
    ) -> None:
        """One replay.

        speed    how many times as fast as recorded the prompts come; 0 for without pauses
        limit_s  no prompt begins after so many seconds; 0 for no limit
        """
        self._pool = pool
        self._requests = requests
        self._ideal = ideal_hits(requests)
        self._speed = speed
        self._limit_s = limit_s
        self._match_ns = array("q")
        self._publish_ns = array("q")
        self._hashes: dict[int, bytes] = {}
        self.counts = Counts()
        self.elapsed_s = 0.0

    async def run(self, in_flight: int) -> None:
        """Replay, at most `in_flight` prompts at a time, each begun in its turn."""
        began_s = time.monotonic()
        turns = iter(enumerate(self._requests))
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(self._take_turns(turns, began_s))
        self.elapsed_s = time.monotonic() - began_s

    def match_spread(self) -> Spread:
        """How long finding the longest prefix took."""
        return spread(self._match_ns)

    def publish_spread(self) -> Spread:
        """How long a publish took, until it was durable and true time past its stamp."""
        return spread(self._publish_ns)

    async def _take_turns(self, turns: Iterator[tuple[int, Request]], began_s: float) -> None:
        for number, request in turns:
            if self._limit_s and time.monotonic() - began_s > self._limit_s:
                return
            if self._speed:
                due_s = began_s + request.timestamp / 1000 / self._speed
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await self._prompt(request, self._ideal[number])

    async def _prompt(self, request: Request, ideal: int) -> None:
        counts = self.counts
        chain = [self._hash(block) for block in request.hash_ids]
        match = await self._match(chain)
        counts.hits += match.blocks
        for _ in range(ATTEMPTS_MAX):
            if match.blocks == len(chain) or await self._publish(chain, match):
                break
            counts.overtaken += 1
            match = await self._match(chain)
        counts.requests += 1
        counts.references += len(chain)
        counts.ideal += ideal

    async def _match(self, chain: list[bytes]) -> Match:
        began_ns = time.monotonic_ns()
        match = await self._pool.match(chain)
        self._match_ns.append(time.monotonic_ns() - began_ns)
        self.counts.reads += match.reads
        return match

    async def _publish(self, chain: list[bytes], match: Match) -> bool:
        began_ns = time.monotonic_ns()
        try:
            await self._pool.publish(chain, match)
        except ConditionFailed:
            return False
        self._publish_ns.append(time.monotonic_ns() - began_ns)
        self.counts.publishes += 1
        self.counts.published_blocks += len(chain) - match.blocks
        return True

    def _hash(self, block: int) -> bytes:
        found = self._hashes.get(block)
        if found is None:
            found = self._hashes[block] = block_hash(block)
        return found


async def holding(pool: Pool) -> Holding:
    """Count what the store holds, by one scan."""
    runs = blocks = size = 0
    async for key, value in pool.rows():
        runs += 1
        blocks += len(Run.decode(value).hashes) // HASH_BYTES
        size += len(key) + len(value)
    return Holding(runs=runs, blocks=blocks, bytes=size)
