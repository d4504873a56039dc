"""The load on etcd: ``python -m bench.pool.peers.etcd_load ADDRESS ROW_BYTES IN_FLIGHT SECONDS``.

A publish is one transaction of etcd's own: it compares the worker's row, its lease row and the row of the
block before with what they hold, and states that there is no row of the run, then puts the row. What is equal in all
messages is encoded once, and of an answer only the bytes are looked at that say whether it took
effect: the client must not be what is measured. Prints one JSON object, with the share of its core that
it used.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import grpc.aio
import uvloop
from aetcd import rpc

TXN: Final = "/etcdserverpb.KV/Txn"
PUT: Final = "/etcdserverpb.KV/Put"
ID: Final = b"d/local/w0/id"
LEASE: Final = b"d/local/w0/lease"
PARENT: Final = b"d/local/w0/run/parent"
KEY: Final = b"d/local/w0/run/"
_EQUAL, _VERSION, _VALUE = 0, 0, 3


def publish(key: bytes, row: bytes) -> Any:
    """The transaction: a row of a run under the conditions of a publish."""
    same = [
        rpc.Compare(result=_EQUAL, target=_VALUE, key=one, value=one) for one in (ID, LEASE, PARENT)
    ]
    absent = rpc.Compare(result=_EQUAL, target=_VERSION, key=key, version=0)
    put = rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=row))
    return rpc.TxnRequest(compare=[*same, absent], success=[put])


def messages(row: bytes) -> Iterator[bytes]:
    """Transactions of new keys, without encoding each: keys of one length, cut out and put in."""
    mark = os.urandom(33)
    parts = publish(KEY + mark, row).SerializeToString().split(mark)
    assert len(parts) == 3, "a key stands in its condition and in its write"
    head, middle, tail = parts
    prefix = os.urandom(25)
    for number in itertools.count():
        name = prefix + number.to_bytes(8, "big")
        yield head + name + middle + name + tail


async def run(address: str, row_bytes: int, in_flight: int, seconds: float) -> dict[str, float]:
    """Publish for some time; gives the rate."""
    async with grpc.aio.insecure_channel(address) as channel:
        put: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PUT)
        for key in (ID, LEASE, PARENT):
            await put(rpc.PutRequest(key=key, value=key).SerializeToString())
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(TXN)
        turns = messages(b"x" * row_bytes)
        taken_ns: list[int] = []
        first = rpc.TxnResponse.FromString(await ask(next(turns)))
        if not first.succeeded:
            raise SystemExit("etcd refuses the transaction")
        until = time.perf_counter() + seconds

        async def work() -> None:
            while time.perf_counter() < until:
                began = time.perf_counter_ns()
                answer = await ask(next(turns))
                taken_ns.append(time.perf_counter_ns() - began)
                # Field 2, `succeeded`, is there only where it is true.
                assert b"\x10\x01" in answer, "the conditions hold"

        began_s, used_s = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(work())
        elapsed_s = time.perf_counter() - began_s
        return {
            "publish_per_s": len(taken_ns) / elapsed_s,
            "p50_ms": sorted(taken_ns)[len(taken_ns) // 2] / 1e6,
            "client_busy": (time.process_time() - used_s) / elapsed_s,
        }


def main() -> None:
    """Load and print."""
    address, row_bytes, in_flight, seconds = sys.argv[1:]
    found = uvloop.run(run(address, int(row_bytes), int(in_flight), float(seconds)))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
