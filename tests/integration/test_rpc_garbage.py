"""Whatever arrives on the port, the node serves the next honest client."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

import k2store
from k2store.node.process import NodeProcess
from k2store.rpc.grpc_transport import ACCEPTED, PATH, STREAMS_PER_SOCKET_MAX, GrpcDialer
from k2store.rpc.transport import FRAME_BYTES_MAX, ConnectionClosed
from k2store.v1 import session_pb2
from tests.integration.rpc_node import with_node

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


async def still_serves(node: NodeProcess) -> None:
    """An honest client writes and reads."""
    async with k2store.connect(f"k2://{node.address}", timeout=5) as db:
        await db.put(b"alive", b"yes")
        assert await db.get(b"alive") == b"yes"
    assert node.engine.failed is None


async def throw(address: str, content: bytes) -> None:
    """Send bytes on a socket of its own and wait until the node has closed it or has enough."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(content)
        writer.write_eof()
        async with asyncio.timeout(1):
            await reader.read()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def http2_frame(rng: random.Random) -> bytes:
    """A frame with an honest header and a payload that means nothing."""
    payload = rng.randbytes(rng.randrange(0, 60))
    kind, flags = rng.randrange(0, 12), rng.randrange(0, 256)
    stream = rng.choice([0, 1, 3, 2**31 - 1])
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def test_random_bytes_on_the_port(tmp_path: Path) -> None:
    """Noise, cut prefaces and broken HTTP/2 frames cost a connection and nothing else."""

    async def body(node: NodeProcess, _: grpc.aio.Channel) -> None:
        rng = random.Random(1)
        noise = [rng.randbytes(rng.randrange(1, 3000)) for _ in range(40)]
        noise += [PREFACE[: rng.randrange(len(PREFACE))] for _ in range(10)]
        noise += [
            PREFACE + SETTINGS + b"".join(http2_frame(rng) for _ in range(rng.randrange(1, 30)))
            for _ in range(60)
        ]
        noise += [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + rng.randbytes(200), b"", b"\x00" * 9]
        for start in range(0, len(noise), 20):
            await asyncio.gather(*(throw(node.address, one) for one in noise[start : start + 20]))
        await still_serves(node)

    with_node(tmp_path, body)


def test_half_open_sockets_do_not_keep_others_out(tmp_path: Path) -> None:
    """Sockets that connect and say nothing, or stop in the middle of a word, harm nobody."""

    async def body(node: NodeProcess, _: grpc.aio.Channel) -> None:
        host, _colon, port = node.address.rpartition(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(100)]
        for number, (_reader, writer) in enumerate(opened):
            writer.write((PREFACE + SETTINGS)[: number % 30])
        await still_serves(node)
        for _reader, writer in opened:
            writer.transport.abort()
        await still_serves(node)

    with_node(tmp_path, body)


def mutated(rng: random.Random, frame: bytes) -> bytes:
    """A frame with a few bytes changed, cut out or put in."""
    content = bytearray(frame)
    for _ in range(rng.randrange(1, 6)):
        where = rng.randrange(len(content) + 1)
        match rng.randrange(3):
            case 0:
                content[where:where] = rng.randbytes(rng.randrange(1, 9))
            case 1:
                del content[where : where + rng.randrange(1, 9)]
            case _:
                content[where : where + 1] = rng.randbytes(1)
    return bytes(content)


def honest_frame(rng: random.Random) -> bytes:
    """A first frame that opens a session and asks for several things."""
    frame = session_pb2.SessionRequest(seen=rng.getrandbits(64))
    frame.hello.client = rng.randbytes(8)
    frame.hello.protocol = 1
    txn = frame.hello.client + rng.randbytes(8)
    frame.reads.request.append(1)
    frame.reads.txn.append(txn)
    frame.reads.at.append(rng.choice([0, 1, rng.getrandbits(64)]))
    frame.reads.key.append(b"k")
    frame.commits.request.append(2)
    frame.commits.txn.append(txn)
    frame.commits.at.append(0)
    frame.commits.write_count.append(1)
    frame.commits.key.append(b"fuzz")
    frame.commits.value.append(b"v")
    frame.scans.add(request=3, limit=rng.getrandbits(32), start=rng.randbytes(2))
    frame.outcomes.add(request=4, txn=txn, anchor=b"fuzz", decide=True)
    frame.watches.add(request=5, since=rng.choice([0, rng.getrandbits(64)]))
    frame.histories.add(request=6, key=b"k", at=rng.getrandbits(64))
    frame.watch_progress.add(request=5, consumed=rng.getrandbits(64), cancel=True)
    return frame.SerializeToString()


async def session_with(dialer: GrpcDialer, address: str, frames: list[bytes]) -> None:
    """Send frames on a session of its own, look at an answer or the end, and leave."""
    connection = await dialer.connect(address, {})
    with contextlib.suppress(ConnectionClosed, TimeoutError):
        for frame in frames:
            connection.send(frame)
        async with asyncio.timeout(0.3):
            session_pb2.SessionResponse.FromString(await connection.receive())
    connection.close()


def test_random_bytes_as_session_frames(tmp_path: Path) -> None:
    """Noise and mutated frames end their own session at most; the engine never fails."""

    async def body(node: NodeProcess, _: grpc.aio.Channel) -> None:
        rng = random.Random(2)
        dialer = GrpcDialer()
        for _round in range(15):
            batch = []
            for _try in range(10):
                first = honest_frame(rng)
                kinds = (
                    [rng.randbytes(rng.randrange(0, 300))],
                    [first, rng.randbytes(rng.randrange(1, 100))],
                    [mutated(rng, first)],
                    [first, mutated(rng, first), mutated(rng, first)],
                )
                batch.append(rng.choice(kinds))
            await asyncio.gather(*(session_with(dialer, node.address, one) for one in batch))
            assert node.engine.failed is None
        await dialer.close()
        await still_serves(node)

    with_node(tmp_path, body)


async def code_after(call: Any, frame: bytes) -> grpc.StatusCode:
    """How a stream ends after a frame that the node must not take."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(frame)
    code: grpc.StatusCode = await call.code()
    return code


def test_frames_beyond_the_limit_end_their_stream(tmp_path: Path) -> None:
    """A message longer than the limit is refused by the receiver, whatever the sender allows."""

    async def body(node: NodeProcess, _: grpc.aio.Channel) -> None:
        options = [("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(node.address, options=options) as channel:
            call = channel.stream_stream(PATH)()
            assert await code_after(call, b"\x00" * (FRAME_BYTES_MAX + 1)) is (
                grpc.StatusCode.RESOURCE_EXHAUSTED
            )
        await still_serves(node)

    with_node(tmp_path, body)


def test_compressed_frames_are_refused(tmp_path: Path) -> None:
    """A small message that would become a big one is refused before it is inflated."""

    async def body(node: NodeProcess, _: grpc.aio.Channel) -> None:
        async with grpc.aio.insecure_channel(
            node.address, compression=grpc.Compression.Gzip
        ) as channel:
            call = channel.stream_stream(PATH)()
            before = node.engine.counts["frames"]
            # Whether the status or the reset of the stream is seen first is a matter of luck.
            assert await code_after(call, b"\x00" * 1_000_000) in {
                grpc.StatusCode.UNIMPLEMENTED,
                grpc.StatusCode.INTERNAL,
            }
            assert node.engine.counts["frames"] == before
        await still_serves(node)

    with_node(tmp_path, body)


def test_more_streams_than_allowed(tmp_path: Path) -> None:
    """Sessions beyond the node's limit are refused, and room comes back when others end."""

    async def body(node: NodeProcess, _: grpc.aio.Channel) -> None:
        async with grpc.aio.insecure_channel(node.address) as channel:
            calls = [channel.stream_stream(PATH)() for _ in range(40)]
            first = await asyncio.gather(*(call.initial_metadata() for call in calls))
            refused = [
                call
                for call, metadata in zip(calls, first, strict=True)
                if ACCEPTED not in tuple(metadata)
            ]
            assert len(refused) == 40 - 20
            assert {await call.code() for call in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert STREAMS_PER_SOCKET_MAX >= 20
        await still_serves(node)

    with_node(tmp_path, body, limits__connections=20)


def test_a_reader_that_stops_reading_is_cut(tmp_path: Path) -> None:
    """A client that asks for much and reads nothing loses its session; memory stays bounded.

    Half of the queue's limit is for values; refusals of what goes beyond fill the rest.
    """

    async def body(node: NodeProcess, channel: grpc.aio.Channel) -> None:
        async with k2store.connect(f"k2://{node.address}", timeout=10) as db:
            await db.put(b"big", b"v" * 1_000_000)
        call = channel.stream_stream(PATH)()
        await call.initial_metadata()
        frame = session_pb2.SessionRequest()
        frame.hello.client = b"greedy.."
        frame.hello.protocol = 1
        await call.write(frame.SerializeToString())
        greedy = session_pb2.SessionRequest()
        keys = 2_000
        greedy.reads.txn.extend([b""] * keys)
        greedy.reads.at.extend([0] * keys)
        greedy.reads.key.extend([b"big"] * keys)
        before = len(node.engine.sessions)
        frames = 0
        while len(node.engine.sessions) >= before and not call.done():
            greedy.reads.request[:] = range(frames * keys + 1, (frames + 1) * keys + 1)
            frames += 1
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(greedy.SerializeToString())
            assert all(
                session.connection.queued_bytes <= 16 * 1024 * 1024
                for session in node.engine.sessions.values()
            )
        assert 1 < frames < 500
        call.cancel()
        await still_serves(node)

    with_node(tmp_path, body)
