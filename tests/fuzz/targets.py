"""What is fed with bytes that nobody in his right mind would send, and what must hold then.

A target takes any bytes. It passes when the code under test either understands them or says in its
own declared way that it does not, and when what it understood survives a round trip. Everything
else (another exception, an assertion, a hang, a wrong answer) fails it.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

import k2store
from jepsen_like.formats import load, load_transactions, native
from jepsen_like.history import Event, History, HistoryError
from k2store.backup.file import Header as BackupHeader
from k2store.backup.file import Row, Writer, verified
from k2store.control import map as control_map
from k2store.errors import Corruption, K2Error, Rejected
from k2store.node import turns
from k2store.node.cluster import frames
from k2store.rpc.tokens import TokenFile
from k2store.rpc.transport import ConnectionClosed
from k2store.storage.failures import Damaged, FormatUnknown
from k2store.storage.log import SegmentedLog
from k2store.storage.memory_disk import MemoryDisk
from k2store.storage.recovery import WATERMARK_NAME, create_log
from k2store.storage.row import range_rows, row_key, space_prefix, split_row
from k2store.testing.simulation import SECOND_NS, Environment, Simulation
from k2store.testing.simulation.node import PORT, Node, NodeKnobs
from k2store.v1 import session_pb2
from kv_pool import keys, records
from kv_pool.events import wire as engine_wire
from kv_pool.namespace import Namespace
from replication import membership, takeover
from truetime import timestamp

Seeds = Callable[[], Iterator[bytes]]


class Target(Struct, frozen=True):
    """One kind of input.

    feed     takes any bytes; returns when all is well
    seeds    well-formed inputs to begin from
    """

    name: str
    about: str
    feed: Callable[[bytes], None]
    seeds: Seeds


# ---------------------------------------------------------------------------------- wire frames

_HELLO = session_pb2.SessionRequest(
    hello=session_pb2.SessionHello(client=b"fuzzing!", protocol=1, name="fuzz")
).SerializeToString()


def _pieces(data: bytes) -> list[bytes]:
    """Bytes cut where two bytes of length say."""
    pieces = []
    while len(data) > 2 and len(pieces) < 8:
        length = int.from_bytes(data[:2], "big") % 4096
        pieces.append(data[2 : 2 + length])
        data = data[2 + length :]
    return pieces


def _join(pieces: list[bytes]) -> bytes:
    return b"".join(len(piece).to_bytes(2, "big") + piece for piece in pieces)


async def _attack(environment: Environment, frames_sent: list[bytes]) -> None:
    """Send these frames on a connection of their own and wait for what comes of them."""
    hostile = await environment.connect(f"node:{PORT}")
    with contextlib.suppress(TimeoutError, ConnectionClosed):
        for frame in frames_sent:
            hostile.send(frame)
            await hostile.drain()
        while await asyncio.wait_for(hostile.receive(), 0.05):
            pass
    hostile.close()


def feed_session(data: bytes) -> None:
    """Frames of a client: the node answers or ends the session, and goes on serving others."""
    greeted, pieces = data[:1] != b"\x00", _pieces(data[1:])
    with Simulation(1) as simulation:
        machine = simulation.machine("node", bound_ns=500_000)
        simulation.process(machine, Node(NodeKnobs(split_keys=(b"m",))).main)

        async def client(environment: Environment) -> bytes | None:
            async with k2store.connect(
                f"k2://node:{PORT}",
                dialer=environment.transport,
                monotonic_ns=environment.clock.monotonic_ns,
                rng=environment.random("client"),
            ) as database:
                await database.put(b"before", b"")
                await _attack(environment, ([_HELLO] if greeted else []) + pieces)
                await database.put(b"after", b"alive")
                return await database.get(b"after")

        process = simulation.process("client", client)
        told: Any = simulation.wait_for([process], 60 * SECOND_NS)
        assert told == [b"alive"], told
        simulation.check()


def _session_frames() -> Iterator[session_pb2.SessionRequest]:
    frame = session_pb2.SessionRequest()
    frame.reads.request.append(1)
    frame.reads.key.append(b"a")
    yield frame
    frame = session_pb2.SessionRequest()
    scan = frame.scans.add()
    scan.request = 2
    scan.start = b"a"
    scan.end = b"z"
    yield frame
    frame = session_pb2.SessionRequest()
    watch = frame.watches.add()
    watch.start = b"a"
    yield frame
    frame = session_pb2.SessionRequest(finished=[b"fuzzing!\x01"], seen=1)
    yield frame


def seeds_session() -> Iterator[bytes]:
    """A frame of each kind, and what a real client sends."""
    sent: list[bytes] = []
    with Simulation(2) as simulation:
        machine = simulation.machine("node", bound_ns=500_000)
        simulation.process(machine, Node(NodeKnobs()).main)

        async def client(environment: Environment) -> None:
            transport = environment.transport
            real = transport.connect

            async def connect(*arguments: Any, **options: Any) -> Any:
                connection = await real(*arguments, **options)
                send = connection.send

                def noted(frame: bytes) -> None:
                    sent.append(frame)
                    send(frame)

                connection.send = noted  # type: ignore[method-assign]
                return connection

            transport.connect = connect  # type: ignore[method-assign]
            async with k2store.connect(
                f"k2://node:{PORT}",
                dialer=transport,
                monotonic_ns=environment.clock.monotonic_ns,
                rng=environment.random("client"),
            ) as database:
                at = await database.put(b"a", b"1")
                await database.put(b"a", b"2", conditions=[k2store.version_is(b"a", at)])
                await database.get_many((b"a", b"b"))
                await database.scan(b"").all()
                async for txn in database.transactions():
                    async with txn:
                        txn.put(b"c", await txn.get(b"a") or b"")
                await database.delete(b"a")

        process = simulation.process("client", client)
        simulation.wait_for([process], 60 * SECOND_NS)
    yield b"\x01" + _join([frame.SerializeToString() for frame in _session_frames()])
    for frame in sent[1:]:
        yield b"\x01" + _join([frame])
    yield b"\x00" + _join(sent[:6])


# -------------------------------------------------------------------------------------- records

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises; a string that is not UTF-8 is not among its own errors."""

_CODECS: tuple[tuple[Callable[[bytes], object], Callable[[Any], bytes] | None, Any], ...] = (
    (turns.decode_turn, turns.encode, _UNREADABLE),
    (turns.decode_checkpoint, turns.encode, _UNREADABLE),
    (frames.decode, frames.encode, _UNREADABLE),
    (membership.decode, membership.encode, _UNREADABLE),
    (takeover.decode, takeover.encode, ValueError),
    (timestamp.decode, timestamp.encode, ValueError),
    (control_map.decode, control_map.encode, (Corruption, Rejected)),
    (lambda data: records.decode(records.Id, data), records.ENCODE, ValueError),
    (lambda data: records.decode(records.Lease, data), records.ENCODE, ValueError),
    (records.decode_run, records.ENCODE, ValueError),
    (Namespace.decode, lambda namespace: namespace.encode(), ValueError),
    (engine_wire.decode_batch, None, ValueError),
)


def feed_records(data: bytes) -> None:
    """Everything that is kept or sent as a record: declared error, or a fixed point."""
    if not data:
        return
    decode, encode, declared = _CODECS[data[0] % len(_CODECS)]
    try:
        value = decode(data[1:])
    except declared:
        return
    if encode is not None:
        again = encode(value)
        assert encode(decode(again)) == again, (value, again)


def seeds_records() -> Iterator[bytes]:
    """One of each."""
    samples: tuple[bytes, ...] = (
        turns.encode(turns.Turn(7, [])),
        turns.encode(turns.NodeCheckpoint(7, [])),
        frames.encode(frames.Frame(1, [], [], [], [], [frames.Hint(1, 2)], [], [])),
        membership.encode(membership.Membership((1, 2, 3), ())),
        takeover.encode(takeover.Takeover(timestamp.pack(1_700_000_000_000_000_000, 1))),
        timestamp.encode(timestamp.pack(1_700_000_000_000_000_000, 1)),
        control_map.encode(control_map.Map()),
        records.ENCODE(records.Id(1, bytes(16), 0)),
        records.ENCODE(records.Lease(1, 10**18)),
        records.ENCODE(records.Run(1, 0, bytes(16), 0, bytes(32), 2, 1, 5)),
        b"",
        msgspec.msgpack.encode(
            [
                1.0,
                [
                    {
                        "type": "BlockStored",
                        "block_hashes": [1, b"x" * 32],
                        "parent_block_hash": None,
                        "token_ids": [1, 2],
                        "block_size": 16,
                        "medium": "GPU",
                    },
                    {"type": "BlockRemoved", "block_hashes": [-5], "medium": "CPU"},
                    {"type": "AllBlocksCleared"},
                ],
                0,
            ]
        ),
    )
    for number, sample in enumerate(samples):
        yield bytes([number]) + sample
    yield bytes([11]) + msgspec.msgpack.encode(
        [1.0, [["BlockStored", [1, 2], None, [1], 16, None, "GPU", None]], None]
    )


# ----------------------------------------------------------------------------------------- keys


def feed_keys(data: bytes) -> None:
    """Keys of rows keep the order of (key, newest stamp first), and every key reads back."""
    if len(data) < 17:
        return
    stamps = int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big")
    body = data[17:]
    cut = data[16] * len(body) // 256
    pair = body[:cut], body[cut:]
    prefix = space_prefix(1)
    rows = [row_key(prefix, key, stamp) for key, stamp in zip(pair, stamps, strict=True)]
    for row, key, stamp in zip(rows, pair, stamps, strict=True):
        assert split_row(row) == (key, stamp)
    order = (pair[0], -stamps[0]), (pair[1], -stamps[1])
    assert (rows[0] < rows[1]) == (order[0] < order[1])
    lower, upper = range_rows(1, min(pair), max(pair))
    inside = [lower <= row < upper for row in rows]
    assert inside == [min(pair) <= key < max(pair) for key in pair]
    with contextlib.suppress(ValueError):
        owner, rest = keys.split_worker(body)
        worker = keys.worker_of(owner)
        assert worker.prefix + rest == body
    with contextlib.suppress(K2Error):
        where = k2store.prefix(body[:64])
        assert where.contains(body[:64] + b"\xff") or not body
        assert where.contains(body[:64])


def seeds_keys() -> Iterator[bytes]:
    """Keys with zeros, common beginnings, and those of a worker."""
    yield bytes(16) + b"\x80" + b"a\x00b" + b"a\x00\xff"
    yield b"\xff" * 16 + b"\x40" + b"\xff\xff\x00\x01" * 4
    yield bytes(16) + b"\x00" + keys.lease(keys.Worker("fra", "w1"))


# ------------------------------------------------------------------------------------------ log

_SEGMENT_BYTES = 16 * 1024
_STORE_ID = b"0123456789abcdef"


def _salt(length: int) -> bytes:
    return bytes(range(length))


def _written(payloads: list[bytes], acknowledged: int) -> MemoryDisk:
    """A log with these turns, the first of them acknowledged, as a killed process leaves it."""
    disk = MemoryDisk()
    create_log(disk, _STORE_ID, _SEGMENT_BYTES, _salt(16))
    log = SegmentedLog.open(disk, _STORE_ID, _SEGMENT_BYTES, _salt)
    for number, payload in enumerate(payloads):
        log.append(payload)
        if number < acknowledged:
            log.sync()
    disk.kill()
    return disk


def feed_log(data: bytes) -> None:
    """A log whose files were damaged opens with every acknowledged turn, or refuses."""
    if len(data) < 5:
        return
    count, acknowledged = data[0] % 24, data[1] % 24
    size = 1 + data[2] * 8
    payloads = [bytes([number]) * size for number in range(count)]
    acknowledged = min(acknowledged, count)
    disk = _written(payloads, acknowledged)
    # Either segments or the watermark: the newest turn and the newest mark together are all there
    # is of them, and a disk that loses both alike loses an acknowledged turn unnoticed.
    _damage(disk, data[4:], watermark=data[3] % 4 == 0)
    try:
        log = SegmentedLog.open(disk, _STORE_ID, _SEGMENT_BYTES, _salt)
    except (Damaged, FormatUnknown):
        return
    found = [turn.payload for turn in log.replay(log.first_lsn)]
    assert found == payloads[: len(found)], "turns that nobody wrote"
    assert len(found) >= acknowledged, "acknowledged turns are gone, and nobody says so"
    log.append(b"more")
    log.sync()
    log.close()


def _damage(disk: MemoryDisk, orders: bytes, *, watermark: bool) -> None:
    """Overwrite places of files: (file, offset, length, bytes) again and again."""
    names = [name for name in sorted(disk.names()) if (name == WATERMARK_NAME) == watermark]
    while len(orders) > 5:
        name = names[orders[0] % len(names)]
        length = orders[4] % 64
        patch, orders_after = orders[5 : 5 + length], orders[5 + length :]
        file = disk.open(name)
        offset = int.from_bytes(orders[1:4], "big") % file.size
        patch = patch[: file.size - offset]
        if patch:
            file.write(offset, patch)
            file.datasync()
        file.close()
        orders = orders_after


def seeds_log() -> Iterator[bytes]:
    """No damage; damage in a header, in a turn, in the watermark; turns over two segments."""
    yield bytes([5, 5, 1, 1, 0])
    yield bytes([5, 3, 1, 1]) + bytes([0, 0, 0, 8, 4]) + b"\xff" * 4
    yield bytes([5, 3, 1, 1]) + bytes([0, 0, 16, 70, 8]) + b"\x00" * 8
    yield bytes([5, 5, 1, 0]) + bytes([0, 0, 0, 8, 4]) + b"\xff" * 4
    yield bytes([20, 20, 200, 1, 0])
    yield bytes([20, 10, 200, 1]) + bytes([0, 0, 40, 0, 16]) + b"TURN" * 4


# ------------------------------------------------------------------------------------ histories

_FOLDER = Path(tempfile.mkdtemp(prefix="k2-fuzz-"))


def feed_history(data: bytes) -> None:
    """Histories of any kind: read, or refused as none."""
    path = _FOLDER / "history"
    path.write_bytes(data)
    with contextlib.suppress(HistoryError):
        load(path)
    with contextlib.suppress(HistoryError):
        load_transactions(path)


def seeds_history() -> Iterator[bytes]:
    """EDN, JSON, a log of etcd, and our own form."""
    yield b"{:type :invoke :process 0 :f :txn :value [[:append 5 1] [:r 3 nil]] :index 0}\n" * 2
    yield (
        b"{:type :invoke, :f :read, :value nil, :process 1, :time 5}\n"
        b"{:type :ok, :f :read, :value 3N, :process 1, :time 6} ; said\n#_ ignored"
    )
    yield b'{"type":"invoke","f":"txn","value":[["append",1,2]],"process":0,"index":0}\n'
    yield b'[{"type":"ok","f":"write","value":1.5e3,"process":"a"}]'
    yield b"INFO  jepsen.util - 3\t:invoke\t:cas\t[4 1]\nINFO  jepsen.util - 3\t:ok\t:cas\t[4 1]\n"
    path = _FOLDER / "seed"
    native.write(path, History([Event(0, "invoke", 0, "read", None)]))
    yield path.read_bytes()


# ---------------------------------------------------------------------------------------- files


def feed_files(data: bytes) -> None:
    """A backup and a file of tokens: understood, or refused by a typed error."""
    path = _FOLDER / "file"
    path.write_bytes(data)
    with contextlib.suppress(K2Error):
        for _ in verified(path).rows():
            pass
    with contextlib.suppress(Rejected):
        TokenFile(path).find("secret")


def seeds_files() -> Iterator[bytes]:
    """One backup, one file of tokens."""
    path = _FOLDER / "backup"
    with Writer(path) as writer:
        writer.add(Row(b"a", b"1", 7))
        writer.add(Row(b"b", b"2", 8))
        writer.finish(
            BackupHeader(
                software="0", node="n", region="fra", incarnation="00", stamp=9, time="then"
            )
        )
    yield path.read_bytes()
    yield b"# who\nsecret worker read,write\nsha256:" + b"0" * 64 + b" operator admin\n"


TARGETS: tuple[Target, ...] = (
    Target("session", "frames of a client, to a live node", feed_session, seeds_session),
    Target("records", "rows, log records, frames of peers", feed_records, seeds_records),
    Target("keys", "the encoding of keys", feed_keys, seeds_keys),
    Target("log", "damaged files under the log reader", feed_log, seeds_log),
    Target("history", "importers of histories", feed_history, seeds_history),
    Target("files", "backups and token files", feed_files, seeds_files),
)
