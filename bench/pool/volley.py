"""The load generator: ``python -m bench.pool.volley ADDRESS PROCESS TRACE LIMIT BLOCK_TOKENS``.

`bench.pool.members` measures what a program meets that uses the pool's sessions; in Python, these
cost more than the node does, and one process of them is what is measured. This one measures the node, as
`redis-benchmark` measures Redis: everything that can be done before the clock starts is done before. The
directory's own code makes the transactions, and the client's own outbox the frames, of the size in
which answers come; then a frame leaves whenever as many were answered. Each answer is looked at, and one
refusal ends the measurement.

Nothing is sent that could not be: a stretch that goes behind another one leaves after the answer for that.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import itertools
import secrets
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import uvloop

import k2store
from bench import trace as traces
from bench.machine import MachineTime, process_cpu_s
from bench.pool.chains import WORKERS, Prompt, deal, renamed
from bench.pool.plan import Acquire, Publish, Rate, Request
from bench.samples import spread
from k2store.client.conditions import Condition
from k2store.client.outbox import ONE_SHOT, OneShot, Outbox
from k2store.client.session import PROTOCOL
from k2store.rpc.grpc_transport import GrpcDialer
from k2store.rpc.transport import FRAME_BYTES_MAX, Connection
from k2store.v1 import session_pb2 as wire
from kv_pool.blocks import NAME_BYTES
from kv_pool.directory import pinning, publishing
from kv_pool.edge.pool import Pool
from kv_pool.edge.session import WorkerSession
from kv_pool.edge.store import DirectoryStore
from kv_pool.learner import Cover
from kv_pool.ledger import Ledger
from kv_pool.ledger import Publish as Stretch
from kv_pool.namespace import Namespace
from kv_pool.records import Tier

_LONG_S: Final = 3_600.0
_FRAMES_IN_FLIGHT: Final = 2
"""Answers come by the group commit: as many as were under way, in one frame or two."""
PER_S_MAX: Final = 25_000
"""Transactions are made for so many a second, and no more than `MADE_MAX` (a kilobyte or two each). Whoever is
faster ends the measurement earlier."""
MADE_MAX: Final = 150_000
LOOKED_AT: Final = 200
"""Publishes that are read back afterwards."""

Taken = tuple[tuple[Condition, ...], tuple[bytes, ...], tuple[bytes, ...], tuple[bytes | None, ...]]
"""Conditions, reads, keys and values of a one-shot."""


class Taking:
    """Stands where the database does, and keeps what it is asked for instead of asking a node."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []

    async def transact(
        self,
        *,
        conditions: Iterable[Condition],
        reads: Iterable[bytes],
        writes: Sequence[tuple[bytes, bytes | None]],
    ) -> k2store.Result:
        """As `k2store.Database.transact`; the stamp is nobody's."""
        keys = tuple([key for key, _ in writes])
        values = tuple([value for _, value in writes])
        self.taken.append((tuple(conditions), tuple(reads), keys, values))
        return k2store.Result(1)


class Volley:
    """Frames that wait for their moment, and a session of their own that carries them.

    Implements the transport's `Handler`. `in_flight` is the most that is without an answer.
    """

    def __init__(self, in_flight: int) -> None:
        self._client = secrets.token_bytes(8)
        self._in_flight = in_flight
        self._size = max(1, in_flight // _FRAMES_IN_FLIGHT)
        self._outbox = Outbox(FRAME_BYTES_MAX, 10_000)
        self._frames: list[bytes] = []
        self._sent_ns: list[int] = []
        self._connection: Connection | None = None
        self._welcome = asyncio.Event()
        self._over = asyncio.Event()
        self._next = self._answered = 0
        self._failure = ""
        self.latency_ns = array("Q")
        self.wait_ns = array("Q")

    # ------------------------------------------------------------------------- before it begins

    @property
    def lead(self) -> int:
        """What was loaded so many transactions ago has its answer when another one leaves."""
        return self._in_flight + self._size

    @property
    def answered_in_order(self) -> int:
        """All of the first so many certainly have their answer."""
        return max(0, self._answered - self.lead)

    def load(self, taken: Sequence[Taken]) -> None:
        """Make the frames of these transactions, in this order."""
        outbox, size = self._outbox, self._size
        outbox.shares_conditions = True
        names = [
            self._client + (number << 16 | 1).to_bytes(8, "big") for number in range(len(taken))
        ]
        for begin in range(0, len(taken) - size + 1, size):
            for number in range(begin, begin + size):
                conditions, reads, keys, values = taken[number]
                entry = (None, 0.0, ONE_SHOT, number + 1, names[number], 0, conditions, reads, keys)
                outbox.one_shots.append(cast(OneShot, (*entry, values, 0)))
            # The node may forget what has its answer.
            outbox.finished = names[max(0, begin - self.lead - size) : max(0, begin - self.lead)]
            self._frames.append(outbox.frame(None, 0, 0))
        self._sent_ns = [0] * len(self._frames)

    # ---------------------------------------------------------------------------- while it goes

    async def fire(
        self, address: str, process: int, seconds: float, warm_up_s: float
    ) -> tuple[float, int, tuple[float, float, float]]:
        """Send for so long; gives the seconds measured, the answers in them, and the CPU seconds of
        the node, of this process and of the machine."""
        dialer = GrpcDialer(None, None)
        try:
            self._connection = await dialer.connect(address, {}, self)
            await self._welcome.wait()
            gc.collect()
            gc.freeze()
            for _ in range(_FRAMES_IN_FLIGHT if self._size > 1 else self._in_flight):
                self._send()
            await self._for(warm_up_s)
            self.latency_ns, self.wait_ns = array("Q"), array("Q")
            before, used = self._answered, _used(process)
            began_s = time.perf_counter()
            await self._for(seconds)
            seconds = time.perf_counter() - began_s
            node_s, own_s, machine_s = (
                end - begin for end, begin in zip(_used(process), used, strict=True)
            )
            return seconds, self._answered - before, (node_s, own_s, machine_s)
        finally:
            if self._connection is not None:
                self._connection.close("the measurement is over")
            await dialer.close()

    async def _for(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return
        if self._failure:
            raise SystemExit(f"the node refused: {self._failure}")

    def on_connect(self, connection: Connection) -> None:
        """Say hello; nothing else leaves before the answer."""
        hello = wire.SessionHello(client=self._client, protocol=PROTOCOL, name="volley")
        connection.send(wire.SessionRequest(hello=hello).SerializeToString())

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        """Count answers; let as many leave."""
        response = wire.SessionResponse.FromString(frame)
        if response.failures:
            self._end(response.failures[0].message or response.failures[0].reason)
            return
        if response.HasField("welcome"):
            self._welcome.set()
        committed = response.committed
        now_ns, size, sent_ns = time.perf_counter_ns(), self._size, self._sent_ns
        self.latency_ns.extend([now_ns - sent_ns[(one - 1) // size] for one in committed.request])
        self.wait_ns.extend(committed.waited_ns)
        self._answered += len(committed.request)
        while self._next * size - self._answered <= self._in_flight - size:
            self._send()

    def on_close(self, connection: Connection, reason: str) -> None:
        """Nobody hangs up before the end."""
        self._end(reason)

    def _send(self) -> None:
        if self._next >= len(self._frames):
            self._over.set()
            # Nothing is left: the rest of the answers does not count.
            self._next = sys.maxsize // self._size
            return
        assert self._connection is not None
        self._sent_ns[self._next] = time.perf_counter_ns()
        self._connection.send(self._frames[self._next])
        self._next += 1

    def _end(self, failure: str) -> None:
        self._failure = self._failure or failure
        self._over.set()


class Generator:
    """What the measurements share: a pool with workers, and the trace."""

    def __init__(
        self, pool: Pool, address: str, process: int, prompts: list[Prompt], block_tokens: int
    ) -> None:
        self._pool = pool
        self._address = address
        self._process = process
        self._prompts = prompts
        self._namespace = Namespace(
            tenant="bench",
            model="trace",
            revision="0",
            dtype="none",
            layout="none",
            block_tokens=block_tokens,
        ).digest()

    async def answer(self, request: Request) -> Rate:
        """Do what is asked."""
        assert isinstance(request, Publish | Acquire), "the rest needs no generator"
        volley = Volley(request.in_flight)
        count = min(MADE_MAX, round((request.seconds + request.warm_up_s) * PER_S_MAX))
        async with AsyncExitStack() as stack:
            sessions = [
                await stack.enter_async_context(self._pool.worker(f"w{number}", ttl_s=_LONG_S))
                for number in range(WORKERS)
            ]
            if isinstance(request, Publish):
                taken = await self._publishes(sessions, count, volley.lead)
                operations = 1
            else:
                taken = await self._claims(await self._covers(sessions), count, volley.lead)
                operations = 2
            volley.load(taken)
            seconds, answers, used = await volley.fire(
                self._address.removeprefix("k2://"),
                self._process,
                request.seconds,
                request.warm_up_s,
            )
            if isinstance(request, Publish):
                await self._look_at(taken[: volley.answered_in_order])
        count = answers // operations
        node_s, own_s, machine_s = used
        return Rate(
            in_flight=request.in_flight,
            seconds=seconds,
            count=count,
            per_s=count / seconds,
            blocks_per_s=0.0,
            latency=spread(volley.latency_ns),
            commit_wait=spread(volley.wait_ns),
            server_us=node_s * 1e6 / max(1, count),
            client_us=own_s * 1e6 / max(1, count),
            server_busy=node_s / seconds,
            client_busy=own_s / seconds,
            others_cores=max(0.0, machine_s - node_s - own_s) / seconds,
        )

    async def _look_at(self, taken: Sequence[Taken]) -> None:
        """Some of what was published is there, as it was published."""
        for _, _, keys, values in taken[:: max(1, len(taken) // LOOKED_AT)]:
            for key, value in zip(keys, values, strict=True):
                if await self._pool.db.get(key) != value:
                    raise SystemExit(f"{key.hex()} was acknowledged and is not there")

    async def _publishes(self, sessions: list[WorkerSession], count: int, lead: int) -> list[Taken]:
        """The trace's new stretches, round after round, each `lead` behind the one that it goes on from."""
        taking = Taking()
        store = DirectoryStore(cast(Any, taking))
        taken = taking.taken
        stretches = self._stretches()
        made: dict[bytes, int] = {}
        behind: dict[bytes, list[tuple[int, Stretch]]] = {}
        ready: list[tuple[int, int, int, Stretch]] = []
        order = itertools.count()
        while len(taken) < count:
            if ready and ready[0][0] <= len(taken):
                _, _, number, one = heapq.heappop(ready)
            else:
                number, one = next(stretches)
                if one.parent is not None:
                    before = _place(number, one.parent.first)
                    if before not in made:
                        behind.setdefault(before, []).append((number, one))
                    else:
                        heapq.heappush(ready, (made[before] + lead, next(order), number, one))
                    continue
            place = _place(number, one.names[:NAME_BYTES])
            made[place] = len(taken)
            for other, next_one in behind.pop(place, ()):
                heapq.heappush(ready, (made[place] + lead, next(order), other, next_one))
            registration = sessions[number].registration
            await publishing.publish(store, registration, one.stretch(registration))
        return taken

    def _stretches(self) -> Iterator[tuple[int, Stretch]]:
        ledgers = [Ledger() for _ in range(WORKERS)]
        for round_ in itertools.count():
            for prompt in self._prompts:
                names = renamed(prompt.names, round_)
                ledger = ledgers[prompt.worker]
                for one in ledger.store(self._namespace, Tier.DEVICE, names, None) or ():
                    yield prompt.worker, one

    async def _covers(self, sessions: list[WorkerSession]) -> list[Cover]:
        """Everything is published, by the sessions; what a router would claim of each prompt."""
        at = 0
        for begin in range(0, len(self._prompts), 256):
            chains = await asyncio.gather(
                *[
                    sessions[one.worker].publish(self._namespace, one.names, Tier.DEVICE)
                    for one in self._prompts[begin : begin + 256]
                ]
            )
            at = max(at, *[chain.at for chain in chains])
        covers = []
        async with self._pool.learner() as tree:
            await tree.caught_up(at, timeout=60.0)
            for prompt in self._prompts:
                match = tree.match(self._namespace, prompt.names)
                cover = tree.cover(match.holders[0].worker, self._namespace, prompt.names)
                assert cover is not None, "what was published is there"
                covers.append(cover)
        return covers

    async def _claims(self, covers: list[Cover], count: int, lead: int) -> list[Taken]:
        """An acquire and a release by turns; each claim is given back when it has its answer."""
        taking = Taking()
        store = DirectoryStore(cast(Any, taking))
        expiry_ns = self._pool.bounds.earliest_ns() + int(_LONG_S * 1e9)
        held: deque[pinning.Claim] = deque()
        for cover in itertools.cycle(covers):
            if len(taking.taken) >= count:
                return taking.taken
            number = secrets.token_bytes(16)
            claim = await pinning.acquire(store, cover, "volley", number, expiry_ns)
            assert isinstance(claim, pinning.Claim), "nobody has refused"
            held.append(claim)
            if len(held) > lead:
                await pinning.release(store, held.popleft())
        raise AssertionError("there is no end of turns")


def _place(worker: int, first: bytes) -> bytes:
    return worker.to_bytes(2, "big") + first


def _used(process: int) -> tuple[float, float, float]:
    return process_cpu_s(process), time.process_time(), MachineTime.now().busy_s


async def serve(
    address: str, process: int, requests: list[traces.Request], block_tokens: int
) -> None:
    """Answer one request after the other until the input ends."""
    decoder, encode = msgspec.json.Decoder(Request), msgspec.json.Encoder().encode
    prompts = deal(requests, block_tokens)
    async with (
        k2store.connect(address, name="bench") as db,
        Pool(db, "local", name="bench") as pool,
    ):
        generator = Generator(pool, address, process, prompts, block_tokens)
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer = await generator.answer(decoder.decode(line))
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
