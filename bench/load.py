"""The load process: ``python -m bench.load KEYS`` takes requests on its input and answers them.

It is an ordinary program that uses the store through its public client, on uvloop. It holds one
connection, so all workers share it, as they would in a service.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from array import array
from collections.abc import Iterator
from itertools import islice

import msgspec
import uvloop

import k2store
from bench.machine import MachineTime, process_cpu_s
from bench.plan import Answer, Connect, Done, Fill, Measure, Measured, Request
from bench.samples import spread
from bench.workloads import WORKLOADS, Keys, Place, Recorder, initial

FILL_KEYS = 500
"""Keys a transaction while filling."""

FILL_IN_FLIGHT = 4


class Load:
    """One connection to the node, and what the node must hold."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._process = 0
        self._db: k2store.Database | None = None

    async def answer(self, request: Request) -> Answer:
        """Do what is asked."""
        began_s = time.perf_counter()
        match request:
            case Connect():
                await self._connect(request)
            case Fill():
                await self._fill()
            case Measure():
                return await self._measure(request)
        return Done(time.perf_counter() - began_s)

    async def _connect(self, request: Connect) -> None:
        await self.close()
        self._process = request.process
        self._db = await k2store.connect(request.address, name="bench").__aenter__()
        await self._db.get(request.key.encode())

    async def close(self) -> None:
        """Drop the connection, if there is one."""
        db, self._db = self._db, None
        if db is not None:
            await db.__aexit__(None, None, None)

    async def _fill(self) -> None:
        names = iter(self._keys.names)
        async with asyncio.TaskGroup() as group:
            for _ in range(FILL_IN_FLIGHT):
                group.create_task(self._fill_some(names))
        gc.collect()
        gc.freeze()

    async def _fill_some(self, names: Iterator[bytes]) -> None:
        assert self._db is not None
        while some := [(key, initial(key)) for key in islice(names, FILL_KEYS)]:
            await self._db.transact(writes=some, timeout="60s")

    async def _measure(self, request: Measure) -> Measured:
        assert self._db is not None
        recorder, work = Recorder(), WORKLOADS[request.workload]
        async with asyncio.TaskGroup() as group:
            for number in range(request.in_flight):
                place = Place(number, request.in_flight)
                group.create_task(work(self._db, self._keys, recorder, place))
            await asyncio.sleep(request.warm_up_s)
            recorder.reset()
            machine, server_s, client_s = self._used()
            began_s = time.perf_counter()
            await asyncio.sleep(request.seconds)
            seconds = time.perf_counter() - began_s
            # A silence that reaches the end counts, too.
            gap_ns = max(recorder.gap_ns, time.perf_counter_ns() - recorder.last_ns)
            count, failures = recorder.count, dict(recorder.failures)
            latency_ns, wait_ns = recorder.latency_ns[:], recorder.wait_ns[:]
            machine_end, server_end_s, client_end_s = self._used()
            recorder.stopped = True
        server_s, client_s = server_end_s - server_s, client_end_s - client_s
        without_ns = array("Q", map(int.__sub__, latency_ns, map(min, wait_ns, latency_ns)))
        units = max(count, 1)
        return Measured(
            workload=request.workload,
            in_flight=request.in_flight,
            seconds=seconds,
            count=count,
            per_s=count / seconds,
            latency=spread(latency_ns),
            without_wait=spread(without_ns),
            commit_wait=spread(wait_ns),
            gap_max_ms=gap_ns / 1e6,
            server_us=server_s * 1e6 / units,
            client_us=client_s * 1e6 / units,
            server_busy=server_s / seconds,
            client_busy=client_s / seconds,
            failures=failures,
            others_cores=max(0.0, machine_end.busy_s - machine.busy_s - server_s - client_s)
            / seconds,
            stolen_cores=(machine_end.stolen_s - machine.stolen_s) / seconds,
        )

    def _used(self) -> tuple[MachineTime, float, float]:
        return MachineTime.now(), process_cpu_s(self._process), time.process_time()


async def serve(keys: Keys) -> None:
    """Answer requests until the input ends."""
    decoder, encode = msgspec.json.Decoder(Request), msgspec.json.Encoder().encode
    load = Load(keys)
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer = await load.answer(decoder.decode(line))
            sys.stdout.write(encode(answer).decode() + "\n")
            sys.stdout.flush()
    finally:
        await load.close()


if __name__ == "__main__":
    uvloop.run(serve(Keys(int(sys.argv[1]))))
