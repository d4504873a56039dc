"""The process of members: ``python -m bench.pool.members ADDRESS PROCESS TRACE LIMIT BLOCK_TOKENS``.

It is an ordinary program that uses the pool by its public door: 16 workers' sessions and a learner
over one connection, on uvloop. Requests come on its input, a JSON document a line, and answers go to
its output (`bench.pool.plan`).
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import uvloop

import k2store
from bench import trace as traces
from bench.machine import MachineTime, process_cpu_s
from bench.pool.chains import WORKERS, Prompt, deal, renamed
from bench.pool.plan import Acquire, Answer, Fence, Fenced, Publish, Rate, Request, Warm, Warmed
from bench.samples import spread
from kv_pool.blocks import Names
from kv_pool.directory import membership
from kv_pool.edge.pool import Pool
from kv_pool.edge.refusals import Denied
from kv_pool.edge.session import WorkerSession
from kv_pool.edge.store import DirectoryStore
from kv_pool.learner import Cover
from kv_pool.namespace import Namespace
from kv_pool.records import Tier
from kv_pool.shots import Done, Failed, Shot

R = TypeVar("R")


_LONG_S: Final = 3_600.0


class Noting(DirectoryStore):
    """The directory's store, which notes how long the node held each answer for the clock."""

    __slots__ = ("wait_ns", "writes")

    def __init__(self, db: k2store.Database) -> None:
        super().__init__(db)
        self.wait_ns = array("Q")
        self.writes = 0

    async def shoot(self, shot: Shot) -> Done | Failed:
        """One message, one stamp."""
        done = await super().shoot(shot)
        if type(done) is Done:
            self.wait_ns.append(done.waited_ns)
        self.writes += len(shot.writes)
        return done


class Recorder:
    """What the tasks of one measurement report, from `reset` until `stopped`."""

    __slots__ = ("blocks", "count", "latency_ns", "stopped")

    def __init__(self) -> None:
        self.stopped = False
        self.reset()

    def reset(self) -> None:
        """Forget what was reported: the measurement begins now."""
        self.count = self.blocks = 0
        self.latency_ns = array("Q")

    def done(self, began_ns: int, blocks: int) -> None:
        """One answer more, which began then."""
        self.latency_ns.append(time.perf_counter_ns() - began_ns)
        self.blocks += blocks


class Members:
    """One connection with everything that the measurements share."""

    def __init__(self, pool: Pool, process: int, prompts: list[Prompt], block_tokens: int) -> None:
        self._pool = pool
        self._process = process
        self._prompts = prompts
        self._block_tokens = block_tokens
        self._namespaces = 0
        self._names = itertools.count(1)
        self._store = Noting(pool.db)
        pool.store = self._store

    async def answer(self, request: Request) -> Answer:
        """Do what is asked."""
        match request:
            case Publish():
                return await self._publish(request)
            case Acquire():
                return await self._acquire(request)
            case Fence():
                return await self._fence(request)
            case Warm():
                return await self._warm()

    # ------------------------------------------------------------------------- publishing

    async def _publish(self, request: Publish) -> Rate:
        async with AsyncExitStack() as stack:
            sessions = await self._workers(stack, min(WORKERS, request.in_flight))
            recorder = Recorder()
            work = [
                self._publisher(session, self._turns(number, len(sessions)), recorder)
                for number, session in enumerate(sessions)
            ]
            return await self._measure(request, recorder, work)

    def _turns(self, number: int, workers: int) -> Iterator[Names]:
        """What a worker has to publish, again and again under other names."""
        mine = [prompt.names for prompt in self._prompts if prompt.worker % workers == number]
        for round_ in itertools.count() if mine else ():
            for names in mine:
                yield renamed(names, round_)

    def _publisher(
        self,
        session: WorkerSession,
        turns: Iterator[Names],
        recorder: Recorder,
    ) -> Callable[[], Awaitable[None]]:
        namespace = self._namespace(0)

        async def publish() -> None:
            for names in turns:
                if recorder.stopped:
                    return
                began_ns = time.perf_counter_ns()
                chain = await session.publish(namespace, names, Tier.DEVICE)
                if chain.new_blocks:
                    recorder.count += 1
                    recorder.done(began_ns, chain.new_blocks)

        return publish

    # --------------------------------------------------------------------------- claiming

    async def _acquire(self, request: Acquire) -> Rate:
        """Everything is published once before; the learner is up to date, and goes on following."""
        async with AsyncExitStack() as stack:
            sessions = await self._workers(stack, WORKERS)
            namespace = self._namespace(0)
            at = 0
            for session, number in zip(sessions, range(WORKERS), strict=True):
                mine = [prompt for prompt in self._prompts if prompt.worker == number]
                for some in _batches(mine, 64):
                    chains = await asyncio.gather(
                        *[session.publish(namespace, one.names, Tier.DEVICE) for one in some]
                    )
                    at = max(at, *[chain.at for chain in chains])
            tree = await stack.enter_async_context(self._pool.learner())
            await tree.caught_up(at, timeout=60.0)
            recorder = Recorder()
            turns = itertools.cycle(self._prompts)

            async def claim() -> None:
                pool = self._pool
                for prompt in turns:
                    if recorder.stopped:
                        return
                    cover: Cover | None = None
                    match = tree.match(namespace, prompt.names)
                    if match.holders:
                        cover = tree.cover(match.holders[0].worker, namespace, prompt.names)
                    assert cover is not None, "what was published is there"
                    began_ns = time.perf_counter_ns()
                    claim = await pool.acquire(cover)
                    recorder.done(began_ns, claim.blocks)
                    await pool.release(claim)
                    recorder.count += 1

            return await self._measure(request, recorder, [claim])

    # ---------------------------------------------------------------------------- fencing

    async def _fence(self, request: Fence) -> Fenced:
        fence_ms: list[float] = []
        wait_ms: list[float] = []
        rows = granted = 0
        for _ in range(request.times):
            session = self._pool.worker(f"dying-{next(self._names)}", ttl_s=_LONG_S)
            namespace = self._namespace(0)
            async with session:
                at = await self._fill(session, namespace, request.blocks)
                async with self._pool.learner() as tree:
                    await tree.caught_up(at, timeout=60.0)
                    covers = [
                        cover
                        for prompt in self._prompts[:50]
                        if (cover := tree.cover(session.worker, namespace, prompt.names))
                    ]
                registration = session.registration
                # Its lease is over at once, as of somebody who has not renewed for long.
                await membership.renew(
                    self._store, registration, self._pool.bounds.earliest_ns() - 1
                )
                self._store.wait_ns = array("Q")
                self._store.writes = 0
                began_ns = time.perf_counter_ns()
                await self._pool.fence(session.worker)
                fence_ms.append((time.perf_counter_ns() - began_ns) / 1e6)
                wait_ms.append(sum(self._store.wait_ns) / 1e6)
                rows = max(rows, self._store.writes)
                granted += await self._granted(covers)
        return Fenced(request.blocks, fence_ms, wait_ms, rows, granted)

    async def _warm(self) -> Warmed:
        """One worker has everything; then a learner begins."""
        async with self._pool.worker(f"w{next(self._names)}", ttl_s=_LONG_S) as session:
            namespace = self._namespace(0)
            at = await self._fill(session, namespace, sys.maxsize)
            gc.collect()
            gc.freeze()
            began_s = time.perf_counter()
            async with self._pool.learner() as tree:
                await tree.caught_up(at, timeout=60.0)
                seconds = time.perf_counter() - began_s
                orphans = sum(
                    [
                        prompt.blocks - tree.longest(namespace, prompt.names).blocks
                        for prompt in self._prompts
                    ]
                )
                return Warmed(seconds, tree.counts().blocks, orphans)

    async def _granted(self, covers: list[Cover]) -> int:
        granted = 0
        for cover in covers:
            try:
                await self._pool.acquire(cover)
            except Denied:
                continue
            granted += 1
        return granted

    async def _fill(self, session: WorkerSession, namespace: bytes, blocks: int) -> int:
        at = 0
        for some in _batches(self._prompts, 64):
            if session.blocks >= blocks:
                break
            chains = await asyncio.gather(
                *[session.publish(namespace, prompt.names, Tier.DEVICE) for prompt in some]
            )
            at = max(at, *[chain.at for chain in chains])
        return at

    # ----------------------------------------------------------------------------- shared

    async def _workers(self, stack: AsyncExitStack, count: int) -> list[WorkerSession]:
        """Workers with new names: what earlier ones published is not theirs."""
        opening = [self._pool.worker(f"w{next(self._names)}", ttl_s=_LONG_S) for _ in range(count)]
        return [await stack.enter_async_context(session) for session in opening]

    def _namespace(self, number: int) -> bytes:
        return Namespace(
            tenant="bench",
            model="trace",
            revision=str(number),
            dtype="none",
            layout="none",
            block_tokens=self._block_tokens,
        ).digest()

    async def _measure(
        self,
        request: Publish | Acquire,
        recorder: Recorder,
        work: list[Callable[[], Awaitable[None]]],
    ) -> Rate:
        async with asyncio.TaskGroup() as group:
            for number in range(request.in_flight):
                group.create_task(_run(work[number % len(work)]))
            await asyncio.sleep(request.warm_up_s)
            gc.collect()
            gc.freeze()
            recorder.reset()
            self._store.wait_ns = array("Q")
            machine, server_s, client_s = self._used()
            began_s = time.perf_counter()
            await asyncio.sleep(request.seconds)
            seconds = time.perf_counter() - began_s
            machine_end, server_end_s, client_end_s = self._used()
            count, blocks = recorder.count, recorder.blocks
            latency_ns, wait_ns = recorder.latency_ns[:], self._store.wait_ns[:]
            recorder.stopped = True
        server_s, client_s = server_end_s - server_s, client_end_s - client_s
        units = max(1, count)
        busy_s = machine_end.busy_s - machine.busy_s
        return Rate(
            in_flight=request.in_flight,
            seconds=seconds,
            count=count,
            per_s=count / seconds,
            blocks_per_s=blocks / seconds,
            latency=spread(latency_ns),
            commit_wait=spread(wait_ns),
            server_us=server_s * 1e6 / units,
            client_us=client_s * 1e6 / units,
            server_busy=server_s / seconds,
            client_busy=client_s / seconds,
            others_cores=max(0.0, busy_s - server_s - client_s) / seconds,
        )

    def _used(self) -> tuple[MachineTime, float, float]:
        return MachineTime.now(), process_cpu_s(self._process), time.process_time()


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def _batches(prompts: list[Prompt], size: int) -> list[list[Prompt]]:
    return [prompts[at : at + size] for at in range(0, len(prompts), size)]


async def serve(
    address: str, process: int, requests: list[traces.Request], block_tokens: int
) -> None:
    """Answer requests until the input ends."""
    decoder, encode = msgspec.json.Decoder(Request), msgspec.json.Encoder().encode
    prompts = deal(requests, block_tokens)
    async with (
        k2store.connect(address, name="bench") as db,
        Pool(db, "local", name="bench") as pool,
    ):
        members = Members(pool, process, prompts, block_tokens)
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer = await members.answer(decoder.decode(line))
            sys.stdout.write(encode(answer).decode() + "\n")
            sys.stdout.flush()


def main() -> None:
    """Read the trace and serve."""
    address, process, file, limit, block_tokens = sys.argv[1:]
    if file == "-":
        requests = traces.generate(0, int(limit) or traces.CONVERSATION.requests)
    else:
        requests = list(traces.read(Path(file), int(limit) or None))
    uvloop.run(serve(address, int(process), requests, int(block_tokens)))


if __name__ == "__main__":
    main()
