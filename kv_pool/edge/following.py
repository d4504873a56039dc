"""A learner that follows the store: snapshot and tail of the local replica, without gap or repetition.

::

    async with pool.learner() as tree:
        match = tree.match(namespace, names)  # at once; as of match.as_of
        tree.staleness_s  # by how much that may lag behind
        await tree.within("50ms")  # wait until it lags no more than this
        await tree.caught_up(chain.at)  # wait until it shows a commit of ours

Each region is followed by a *feed* of its own; the tree's own stamp is that of the feed that is furthest
behind, and `in_region` tells of one. A node tells a watch what is final in the partitions that it touches, so a
region that is cut off holds back its own feed and those that touch its keys, and no other one.

A watch goes on by itself when a connection ends. When a reader has fallen so far behind that the node gave
up, another watch goes on from the cursor; when the history behind the cursor is gone, a new snapshot
is loaded beside what is there, and takes its place at once. So what the tree answers about a region is
always the state at one stamp, an old one at worst.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final

import k2store
from k2store.client.settings import Span, seconds
from kv_pool.blocks import Names
from kv_pool.fragments import Fragment
from kv_pool.keys import ID, RUN, WORKERS, Worker, split_worker, worker_of
from kv_pool.learner import Change, Counts, Cover, Learner, Longest, Match
from kv_pool.records import Id
from truetime.timestamp import time_ns

if TYPE_CHECKING:
    from kv_pool.edge.pool import Pool

FOLLOWED: Final = k2store.KeyRange(WORKERS, b"o/")
"""Rows of workers (``d/``) and namespaces (``n/``)."""
_ALL: Final = ""
"""Stands for all feeds together."""
_PAGE: Final = 512
_PAUSE_S: Final = 0.05
_PAUSE_MAX_S: Final = 1.0
_ANY_AGE: Final = "1h"


class Touched:
    """Whose rows have changed since the last look; made by `Tree.changes`."""

    __slots__ = ("_everything", "_prefixes", "_waiter")

    def __init__(self) -> None:
        self._everything = True
        self._prefixes: set[bytes] = set()
        self._waiter = asyncio.Event()
        self._waiter.set()

    async def next(self) -> frozenset[Worker] | None:
        """The workers, as soon as there are any; None for all, at first and after a snapshot."""
        await self._waiter.wait()
        self._waiter.clear()
        prefixes, self._prefixes = self._prefixes, set()
        if self._everything:
            self._everything = False
            return None
        return frozenset([worker_of(prefix) for prefix in prefixes])

    def note(self, records: Sequence[Change] | None) -> None:
        """Rows have changed; None for all."""
        if records is None:
            self._everything = True
        else:
            for record in records:
                if record.key.startswith(WORKERS):
                    # What is no worker's key is counted by the learner, and is nobody's here.
                    with suppress(ValueError):
                        prefix, rest = split_worker(record.key)
                        if rest.startswith(RUN) or rest == ID:
                            self._prefixes.add(prefix)
            if not self._prefixes:
                return
        self._waiter.set()


class Tree:
    """See the module; made by `Pool.learner`."""

    def __init__(self, pool: Pool, regions: Sequence[str], *, fragments: bool) -> None:
        self._pool = pool
        self._learner = Learner(fragments=fragments)
        self._feeds = feeds_of(regions)
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: k2store.K2Error | None = None
        self._waiting: dict[str, list[tuple[int, int, asyncio.Future[None]]]] = {}
        self._numbers = itertools.count()
        self._touched: list[Touched] = []
        self.snapshots = 0

    def __repr__(self) -> str:
        return f"<Tree as of {self.as_of}>"

    # ------------------------------------------------------------------------------- life

    async def __aenter__(self) -> Tree:
        # Every feed is known before one is loaded, so the tree has no stamp before all have.
        for feed, where in self._feeds.items():
            self._learner.begin(feed, where.start, where.end)
        loop = asyncio.get_running_loop()
        for feed in self._feeds:
            task = loop.create_task(self._follow(feed), name=f"learner of {feed}")
            self._tasks.append(task)
        try:
            await self.caught_up(1)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------ asking

    @property
    def learner(self) -> Learner:
        """The replica itself, to be asked and not fed."""
        return self._learner

    @property
    def feeds(self) -> Mapping[str, k2store.KeyRange]:
        """The feeds, and which keys come by each; `Learner.cursor` says how far one is."""
        return self._feeds

    @property
    def failure(self) -> k2store.K2Error | None:
        """What has ended the feed for good, if anything has."""
        return self._failure

    @property
    def as_of(self) -> int:
        """The stamp whose state is answered from."""
        return self._learner.as_of

    @property
    def staleness_s(self) -> float:
        """By how much the answers may lag behind at this moment, at most, in seconds."""
        return self._learner.staleness_ns(self._pool.bounds.now()) / 1e9

    def in_region(self, region: str) -> tuple[int, float]:
        """The stamp up to which a region's workers are known, and by how many seconds that may lag.

        `Rejected` for a region that has no feed of its own.
        """
        at = self._learner.cursor(self._feed_of(region))
        return at, max(0, self._pool.bounds.now().hi_ns - time_ns(at)) / 1e9

    def match(self, namespace: bytes, names: Names) -> Match:
        """How much of a prompt each holder has: a hint."""
        return self._learner.match(namespace, names)

    def longest(self, namespace: bytes, names: Names) -> Longest:
        """The longest prefix that one holder has: a hint."""
        return self._learner.longest(namespace, names)

    def match_across(self, parts: Sequence[tuple[bytes, Names]]) -> Match:
        """A prompt that begins in one namespace and goes on in others: a hint."""
        return self._learner.match_across(parts)

    def workers(self, namespace: bytes, names: Names) -> dict[Worker, int]:
        """How much each worker has, its tiers together: a hint."""
        return self._learner.workers(namespace, names)

    def cover(self, worker: Worker, namespace: bytes, names: Names) -> Cover | None:
        """The rows to claim, for `Pool.acquire`."""
        return self._learner.cover(worker, namespace, names)

    def identity(self, worker: Worker) -> Id | None:
        """Who a worker is: a hint."""
        return self._learner.identity(worker)

    def known_workers(self) -> list[Worker]:
        """Workers that have registered."""
        return self._learner.known_workers()

    def fragments(self, content: bytes) -> tuple[Fragment, ...]:
        """Where blocks with this content lie: a hint."""
        return self._learner.fragments(content)

    def counts(self) -> Counts:
        """What is held; takes a walk over all rows."""
        return self._learner.counts()

    # ----------------------------------------------------------------------------- waiting

    async def caught_up(
        self, at: int, *, region: str | None = None, timeout: Span | None = None
    ) -> None:
        """Return when everything up to a stamp is shown; with a region, everything there.

        Raises `Deadline` when that takes too long, and what ended the feed when it has ended.
        """
        feed = _ALL if region is None else self._feed_of(region)
        if self._reached(feed) >= at:
            return
        if self._failure is not None:
            raise self._failure
        timeout_s = self._pool.db.timeout_s if timeout is None else seconds(timeout)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(feed, [])
        heapq.heappush(waiting, (at, next(self._numbers), future))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            raise k2store.Deadline(
                f"the learner is {self.staleness_s:.3f} s behind and has not reached {at}"
            ) from None

    async def within(self, max_staleness: Span, *, timeout: Span | None = None) -> float:
        """Return when the answers lag behind by no more than this; gives by how much they do.

        Raises `Deadline` when that takes too long: what is asked then is a choice of the caller's,
        a stale hint or nothing.
        """
        most_s = seconds(max_staleness)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + (self._pool.db.timeout_s if timeout is None else seconds(timeout))
        while (staleness_s := self.staleness_s) > most_s:
            left_s = until_s - loop.time()
            if left_s <= 0:
                raise k2store.Deadline(
                    f"the learner is {staleness_s:.3f} s behind, more than {most_s} s"
                )
            await self.caught_up(self.as_of + 1, timeout=left_s)
        return staleness_s

    def changes(self) -> Touched:
        """From now on, whose rows change; for one reader, which takes what has gathered."""
        touched = Touched()
        self._touched.append(touched)
        return touched

    # ----------------------------------------------------------------------------- feeding

    async def _follow(self, feed: str) -> None:
        """Feed the learner until the session ends; a failure that does not pass ends it."""
        pause_s = _PAUSE_S
        while True:
            began_at = self._learner.cursor(feed)
            try:
                if not began_at:
                    await self._load(feed)
                await self._tail(feed)
            except k2store.TooOld:
                await self._load_again(feed)
            except k2store.K2Error as error:
                if error.retry not in {
                    k2store.Retry.NOW,
                    k2store.Retry.LATER,
                    k2store.Retry.CALLER,
                }:
                    self._fail(error)
                    return
            went_on = self._learner.cursor(feed) > began_at
            pause_s = _PAUSE_S if went_on else min(2 * pause_s, _PAUSE_MAX_S)
            await asyncio.sleep(pause_s)

    async def _load_again(self, feed: str) -> None:
        try:
            await self._load(feed)
        except k2store.K2Error:
            # The same cursor is tried again, and leads here again.
            return

    async def _load(self, feed: str) -> None:
        """A snapshot of the local replica, beside what is there."""
        learner, where = self._learner, self._feeds[feed]
        async with self._pool.db.snapshot(max_staleness=_ANY_AGE, local=True) as view:
            learner.begin(feed, where.start, where.end)
            rows: list[tuple[bytes, bytes]] = []
            async for row in view.scan(where):
                rows.append((row.key, row.value))
                if len(rows) == _PAGE:
                    learner.load(feed, rows)
                    rows = []
                    await asyncio.sleep(0)
            learner.load(feed, rows)
        learner.finish(feed, view.at)
        self.snapshots += 1
        for touched in self._touched:
            touched.note(None)
        self._wake(feed)

    async def _tail(self, feed: str) -> None:
        learner = self._learner
        watch = self._pool.db.watch(self._feeds[feed], since=learner.cursor(feed))
        async with watch:
            async for event in watch:
                match event:
                    case k2store.Changes(at=at, records=records):
                        learner.apply(feed, at, records)
                        for touched in self._touched:
                            touched.note(records)
                    case k2store.Resolved(at=at):
                        learner.resolved(feed, at)
                self._wake(feed)

    def _feed_of(self, region: str) -> str:
        if region not in self._feeds:
            raise k2store.Rejected(
                f"the region {region!r} is not followed by itself: name it to `Pool.learner`",
                field="region",
            )
        return region

    def _reached(self, feed: str) -> int:
        return self._learner.cursor(feed) if feed else self._learner.as_of

    def _wake(self, fed: str) -> None:
        for feed in (fed, _ALL):
            waiting = self._waiting.get(feed)
            if waiting:
                reached = self._reached(feed)
                while waiting and waiting[0][0] <= reached:
                    future = heapq.heappop(waiting)[2]
                    if not future.done():
                        future.set_result(None)

    def _fail(self, error: k2store.K2Error) -> None:
        self._failure = error
        for waiting in self._waiting.values():
            for _, _, future in waiting:
                if not future.done():
                    future.set_exception(error)
        self._waiting.clear()


def feeds_of(regions: Sequence[str]) -> dict[str, k2store.KeyRange]:
    """The followed keys in ranges: each region's own under its name, and what lies between."""
    feeds: dict[str, k2store.KeyRange] = {}
    start = FOLLOWED.start
    for own, region in sorted(
        [(f"d/{region}/".encode(), region) for region in dict.fromkeys(regions)]
    ):
        if start < own:
            feeds[f"before {region}"] = k2store.KeyRange(start, own)
        feeds[region] = k2store.prefix(own)
        start = feeds[region].end
    feeds["rest"] = k2store.KeyRange(start, FOLLOWED.end)
    return feeds
