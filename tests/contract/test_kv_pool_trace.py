"""A trace of prompts through directory and learner, in order: hits are those of an endless cache."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from pathlib import Path

import pytest

import k2store
from bench.trace import CONVERSATION, Request, generate, ideal_hits, read
from k2store.testing import embedded
from kv_pool import keys
from kv_pool.blocks import NAME_BYTES
from kv_pool.directory import pinning
from kv_pool.directory.membership import Registration, register
from kv_pool.directory.publishing import Published, publish
from kv_pool.edge.store import DirectoryStore
from kv_pool.keys import Worker
from kv_pool.learner import Learner
from kv_pool.ledger import Ledger
from kv_pool.shots import Store
from tests.contract.kv_pool_store import NAMESPACE, Follower, MemoryStore, soon

FILE = Path(
    os.environ.get("K2_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
).joinpath("conversation_trace.jsonl")
WORKERS = tuple(Worker("fra", f"w{number}") for number in range(16))
IDEAL_HITS = 105_710
HOST = 1

Caught = Callable[[int], Awaitable[Learner]]
"""Gives the learner when it has everything up to a stamp."""


@cache
def trace() -> list[Request]:
    """The published trace, or a made-up one where it is missing; which one is said aloud."""
    if FILE.exists():
        return list(read(FILE))
    sys.stderr.write(f"NO TRACE at {FILE}: a made-up one is replayed instead\n")
    return generate(0)


@cache
def name(block: int) -> bytes:
    """A name for a block of a trace, whose ids stand for prefixes as names do."""
    return hashlib.sha256(block.to_bytes(8, "big")).digest()[:NAME_BYTES]


async def replay(store: Store, caught: Caught, requests: list[Request], *, claims: bool) -> int:
    """Serve each request where most of it is, then publish the rest; gives the blocks hit."""
    lives: dict[Worker, tuple[Registration, Ledger]] = {}
    at = 0
    for worker in WORKERS:
        registration = await register(store, worker, worker.name.encode().rjust(16), soon(3_600))
        lives[worker] = (registration, Ledger())
        at = registration.at
    hits = 0
    for turn, request in enumerate(requests):
        names = b"".join([name(block) for block in request.hash_ids])
        learner = await caught(at)
        match = learner.match(NAMESPACE, names)
        worker = match.holders[0].worker if match.holders else WORKERS[turn % len(WORKERS)]
        if match.blocks and claims:
            cover = learner.cover(worker, NAMESPACE, names)
            assert cover is not None
            claim = await pinning.acquire(store, cover, "replay", b"%16d" % turn, soon())
            assert isinstance(claim, pinning.Claim)
            assert claim.blocks == match.blocks
            await pinning.release(store, claim)
        hits += match.blocks
        registration, ledger = lives[worker]
        for each in ledger.store(NAMESPACE, HOST, names, None) or []:
            published = await publish(store, registration, each.stretch(registration))
            assert isinstance(published, Published)
            at = published.at
    return hits


def test_hits_over_a_dictionary_are_ideal() -> None:
    """Every block that an endless cache would hit is hit and can be claimed, and no other: on the
    published trace 105,710 of 288,500."""
    store = MemoryStore()
    follower = Follower(store)

    async def caught(at: int) -> Learner:
        return follower.follow()

    requests = trace()
    hits = asyncio.run(replay(store, caught, requests, claims=True))
    assert hits == sum(ideal_hits(requests))
    if FILE.exists():
        assert hits == IDEAL_HITS
        assert sum(len(one.hash_ids) for one in requests) == CONVERSATION.references
    counts = follower.follow().counts()
    assert counts.rows == sum(keys.RUN in key for key in store.rows)
    assert counts.malformed == counts.retired == 0


class Watching:
    """A learner that follows the real store: snapshot, then its watch."""

    def __init__(self, db: k2store.Database) -> None:
        self._db = db
        self._learner = Learner()
        self._events: AsyncIterator | None = None

    async def caught(self, at: int) -> Learner:
        """Follow until everything up to a stamp is applied."""
        learner = self._learner
        if self._events is None:
            learner.begin("all")
            async with self._db.snapshot(strong=True) as view:
                rows = [(row.key, row.value) async for row in view.scan(keys.WORKERS)]
                learner.load("all", rows)
                learner.finish("all", view.at)
            self._events = aiter(self._db.watch(keys.WORKERS, since=view.at))
        while learner.as_of < at:
            match await anext(self._events):
                case k2store.Changes(at=commit, records=records):
                    learner.apply("all", commit, records)
                case k2store.Resolved(at=mark):
                    learner.resolved("all", mark)
        return learner


@pytest.mark.slow
def test_hits_over_the_store_are_ideal() -> None:
    """The same over the embedded store with its watch; `K2_TRACE=all` replays the whole trace, else
    the beginning of it. Afterwards the learner is a scan of the store."""
    requests = trace() if os.environ.get("K2_TRACE") == "all" else trace()[:500]

    async def main() -> None:
        async with embedded(storage__sync=False, transactions__slack_min="1ms") as db:
            watching = Watching(db)
            hits = await replay(DirectoryStore(db), watching.caught, requests, claims=False)
            assert hits == sum(ideal_hits(requests))
            fresh = await Watching(db).caught(0)
            learner = await watching.caught(fresh.as_of)
            for request in requests[:: max(1, len(requests) // 300)]:
                names = b"".join([name(block) for block in request.hash_ids])
                left, right = learner.match(NAMESPACE, names), fresh.match(NAMESPACE, names)
                assert left.blocks == right.blocks == len(request.hash_ids)
                assert {one.worker for one in left.holders} == {one.worker for one in right.holders}

    asyncio.run(main())
