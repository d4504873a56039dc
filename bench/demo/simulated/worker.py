"""A worker as a process: it has blocks, serves prompts, fetches from others, publishes and evicts.

Its accelerator is simulated: it takes one prefill at a time, which is a pause. Everything else is as a real worker
does it: blocks have slots, what it computed is published by a transaction of the store, what it lacks room for is
evicted by one, and a page that comes from another worker is compared before it counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import k2store
from bench.demo.simulated.messages import (
    Done,
    Fetch,
    Give,
    Message,
    Pages,
    Probe,
    Quiesce,
    Serve,
    Served,
    Setting,
    Stock,
    Stocked,
)
from bench.demo.simulated.process import begin, connect
from bench.demo.simulated.shelf import TIER, Shelf, page_of
from bench.demo.simulated.wire import Failed, Gone, Peer, listen, refuse
from kv_pool.blocks import NAME_BYTES, Names, split_names
from kv_pool.edge.journal import Journal, Recording
from kv_pool.edge.pool import Pool
from kv_pool.edge.refusals import Denied, Fenced
from kv_pool.edge.session import WorkerSession
from kv_pool.pool.block_pool import Slot

FETCH_S: Final = 2.0
"""Who does not give a page for so long is given up."""
PUBLISHING_MAX: Final = 256
"""Publishes under way; a prompt beyond waits."""


class Worker:
    """See the module."""

    def __init__(self, setting: Setting, session: WorkerSession, shelf: Shelf) -> None:
        self._setting = setting
        self._session = session
        self._shelf = shelf
        self._accelerator = asyncio.Lock()
        self._peers: dict[str, Peer] = {}
        self._publishing: set[asyncio.Task[None]] = set()
        self._fetched = 0
        self._given = 0
        self._wrong_pages = 0
        self._probes = 0
        self._failure = ""

    async def handle(self, message: Message) -> Message:
        """Do what a router, another worker or the conductor asks."""
        match message:
            case Serve():
                return await self._serve(message)
            case Give(names):
                pages = self._shelf.pages(names)
                self._given += len(pages)
                return Pages(pages)
            case Quiesce():
                while self._publishing:
                    await asyncio.wait(self._publishing)
                return Done()
            case Stock():
                return self._stock()
            case Probe():
                return await self._probe()
            case _:
                return await refuse(message)

    async def _serve(self, order: Serve) -> Served:
        names = order.names
        fetched = broken = 0
        if order.fetch is not None:
            fetched, broken = await self._fetch(order.fetch, names)
        queued_ns = time.monotonic_ns()
        held: tuple[Slot, ...] = ()
        try:
            async with self._accelerator:
                held = await self._shelf.hold(names)
                known = local = len(held)
                if order.fetch is not None and local >= order.fetch.start:
                    known = max(local, order.fetch.start + fetched)
                pause_s = self._setting.cost.prefill_s(order.tokens, known) / self._setting.speed
                await asyncio.sleep(pause_s)
            prefill_ns = time.monotonic_ns() - queued_ns
            kept = await self._shelf.put(names)
        finally:
            self._shelf.let_go(names, held)
        await self._publish(names[: len(kept) * NAME_BYTES], kept)
        blocks = len(names) // NAME_BYTES
        return Served(
            local=local,
            fetched=known - local,
            computed=blocks - known,
            unkept=blocks - len(kept),
            broken=broken,
            prefill_ns=prefill_ns,
            churn_per_s=self._shelf.churn_per_s,
        )

    async def _fetch(self, fetch: Fetch, names: Names) -> tuple[int, int]:
        """Pages from another worker: how many came as they must be, and whether that failed."""
        wanted = names[fetch.start * NAME_BYTES : (fetch.start + fetch.blocks) * NAME_BYTES]
        peer = self._peers.get(fetch.address)
        if peer is None:
            peer = self._peers[fetch.address] = Peer(fetch.address, refuse)
        try:
            async with asyncio.timeout(FETCH_S):
                answer = await peer.ask(Give(wanted))
        except (Gone, Failed, TimeoutError):
            return 0, 1
        assert isinstance(answer, Pages), "who is asked for pages gives pages"
        good = 0
        for name, page in zip(split_names(wanted), answer.pages, strict=False):
            if page != page_of(name):
                self._wrong_pages += 1
                break
            good += 1
        travel_s = self._setting.cost.pull_s(good, far=fetch.far) if good else 0.0
        # The delay of the network is a real one, and comes on top.
        await asyncio.sleep(travel_s / self._setting.speed)
        self._fetched += good
        return good, 0

    async def _publish(self, names: Names, held: tuple[Slot, ...]) -> None:
        """Make what was computed known; the prompt's answer does not wait for that."""
        if len(self._publishing) >= PUBLISHING_MAX:
            await asyncio.wait(self._publishing, return_when=asyncio.FIRST_COMPLETED)

        async def publish() -> None:
            try:
                await self._session.publish(self._setting.namespace, names, TIER)
            except Fenced:
                # The session says so by `lost`, which ends this process.
                pass
            except (Denied, k2store.Unavailable, k2store.Deadline, k2store.OutcomeUnknown):
                # Refused while the lease had run out, or under way: the next prompt publishes again.
                pass
            except k2store.K2Error as error:
                self._failure = str(error)
            finally:
                self._shelf.let_go(names, held)

        task = asyncio.get_running_loop().create_task(publish())
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def _probe(self) -> Done:
        """One publish by itself, of a block that has no page, and what takes it back."""
        self._probes += 1
        name = hashlib.sha256(b"probe %d" % self._probes).digest()[:NAME_BYTES]
        await self._session.publish(self._setting.namespace, name, TIER)
        evicted = await self._session.evict(TIER, name)
        assert evicted.gone == name, "nobody claims what no prompt has"
        return Done()

    def _stock(self) -> Stocked:
        shelf = self._shelf
        return Stocked(
            incarnation=self._session.registration.identity.incarnation,
            blocks=shelf.blocks,
            free=shelf.free,
            evicted=shelf.evicted,
            pinned=shelf.pinned,
            fetched=self._fetched,
            given=self._given,
            wrong_pages=self._wrong_pages,
            publishing=len(self._publishing),
            failure=self._failure,
        )


async def main(setting: Setting, ready: Callable[[], None]) -> None:
    """Be a member until the life is over."""
    journal = Journal(Path(setting.journal), f"{setting.name} {os.getpid()}")
    region, _, name = setting.name.partition("/")
    async with connect(setting) as db, Pool(db, region, name=setting.name) as pool:
        pool.store = Recording(pool.store, journal)
        opening = pool.worker(name, endpoints=(setting.endpoint,), ttl_s=setting.ttl_s)
        async with opening as session:
            shelf = Shelf(session, setting.slots)
            journal.slots_of = shelf.slots_of
            server = await listen(setting.listen, Worker(setting, session, shelf).handle)
            async with server:
                ready()
                await session.lost.wait()
    raise SystemExit(f"{setting.name}: its life was ended by somebody else")


if __name__ == "__main__":
    begin(main)
