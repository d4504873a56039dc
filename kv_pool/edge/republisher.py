"""The directory as a stream of engine events: one source for whoever follows engines today.

::

    learner ──▶ what changed ──▶ PUB     [topic, number, batch]       topic: kv@region/worker@model
                                  ▲
    follower ──DEALER──▶ ROUTER ──┘      batches from a number on, kept for a while

Batches have the form of vLLM 0.33: ``[time, [events], rank]`` with tagged maps. Each topic is a stream with
numbers of its own, as if its engine published it. Blocks carry the hashes that engines gave them; tokens
are not known here and are empty. Whatever makes a run invalid (evicted, cleared, fenced, replaced) is told
as blocks removed, so a follower that knows only this stream believes in exactly what the directory holds.

A follower that comes late asks the replay socket from number 0 and gets the latest batches of all topics. What
has been forgotten of them it cannot learn here: it sees the gap, as with an engine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
import zmq
import zmq.asyncio

import k2store
from kv_pool.blocks import NAME_BYTES, is_weak, split_names
from kv_pool.edge.engine_sockets import HIGH_WATER
from kv_pool.keys import Worker
from kv_pool.records import Run
from truetime.timestamp import time_ns

if TYPE_CHECKING:
    from kv_pool.edge.following import Tree

KEPT: Final = 10_000
"""Batches that can be replayed, as many as engines keep."""
GATHER_S: Final = 0.01
_END: Final = (-1).to_bytes(8, "big", signed=True)
_MEDIA: Final = ("GPU", "CPU", "DISK", "EXTERNAL")
_ENCODE: Final = msgspec.msgpack.Encoder().encode

Key: TypeAlias = tuple[int, bytes, bytes]
"""A run of a worker: in which tier and namespace, and its first name."""
Event: TypeAlias = dict[str, object]


class Republisher:
    """See the module; open inside ``async with``.

    events, replay  addresses to bind, such as ``tcp://127.0.0.1:5560``
    """

    def __init__(self, tree: Tree, events: str, replay: str = "", *, kept: int = KEPT) -> None:
        self._tree = tree
        self._addresses = (events, replay)
        self._kept: deque[tuple[bytes, int, bytes]] = deque(maxlen=kept)
        self._numbers: dict[bytes, int] = {}
        self._shown: dict[Worker, dict[Key, Run]] = {}
        self._context: zmq.asyncio.Context | None = None
        self._publisher: zmq.asyncio.Socket | None = None
        self._router: zmq.asyncio.Socket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.events = ""
        self.replay = ""

    async def __aenter__(self) -> Republisher:
        self._context = zmq.asyncio.Context()
        try:
            self._publisher, self.events = self._bind(zmq.PUB, self._addresses[0])
            if self._addresses[1]:
                self._router, self.replay = self._bind(zmq.ROUTER, self._addresses[1])
        except BaseException:
            self._context.destroy(linger=0)
            raise
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._publish(), name="republisher"))
        if self._router is not None:
            self._tasks.append(loop.create_task(self._replay(self._router), name="replays"))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._context is not None, "what is closed was open"
        self._context.destroy(linger=0)

    def number_of(self, worker: Worker, model: str) -> int:
        """How many batches have been published about a worker's blocks of a model."""
        return self._numbers.get(_topic(worker, model), 0)

    async def _publish(self) -> None:
        """Whatever the learner has learned, as one round of batches: a worker's in one."""
        changes = self._tree.changes()
        while True:
            touched = await changes.next()
            at_s = time_ns(self._tree.as_of) / 1e9
            for worker, model, events in self._differences(touched):
                await self._send(worker, model, [at_s, events, 0])
            # Commits that come close together are told together.
            await asyncio.sleep(GATHER_S)

    async def _send(self, worker: Worker, model: str, batch: list[object]) -> None:
        assert self._publisher is not None, "a republisher is open"
        topic = _topic(worker, model)
        payload = _ENCODE(batch)
        number = self._numbers.get(topic, 0)
        self._numbers[topic] = number + 1
        self._kept.append((topic, number, payload))
        await self._publisher.send_multipart([topic, number.to_bytes(8, "big"), payload])

    def _differences(
        self, touched: frozenset[Worker] | None
    ) -> list[tuple[Worker, str, list[Event]]]:
        """What differs from what was told: first what is gone, then what is there, parents first."""
        learner = self._tree.learner
        workers = learner.known_workers() if touched is None else sorted(touched)
        workers = sorted({*workers, *(self._shown if touched is None else ())})
        found: list[tuple[Worker, str, list[Event]]] = []
        for worker in workers:
            now = {
                (tier, digest, run.names[:NAME_BYTES]): run
                for _, tier, digest, run in learner.valid_runs([worker])
            }
            before = self._shown.pop(worker, {})
            if now:
                self._shown[worker] = now
            found += [(worker, model, each) for model, each in self._told(before, now).items()]
        return found

    def _told(self, shown: dict[Key, Run], now: dict[Key, Run]) -> dict[str, list[Event]]:
        """Events that turn one worker's rows into what they are now, by model."""
        events: dict[str, list[Event]] = {}
        namespaces = self._tree.learner.known_namespaces()

        def of(key: Key) -> list[Event]:
            namespace = namespaces.get(key[1])
            return events.setdefault(key[1].hex() if namespace is None else namespace.model, [])

        for key, run in shown.items():
            after = now.get(key)
            if after is not run:
                keep = 0 if after is None else _shared(run, after)
                if keep < run.live:
                    gone: Event = {
                        "type": "BlockRemoved",
                        "block_hashes": _hashes(run, keep, run.live),
                        "medium": _MEDIA[key[0]],
                    }
                    of(key).append(gone)
        for key, run in sorted(now.items(), key=lambda item: item[1].depth):
            before = shown.get(key)
            if before is not run:
                start = 0 if before is None else _shared(before, run)
                if start < run.live:
                    namespace = namespaces.get(key[1])
                    size = 0 if namespace is None else namespace.block_tokens
                    of(key).append(self._stored(run, start, _MEDIA[key[0]], size, now, key))
        return events

    def _stored(
        self, run: Run, start: int, medium: str, size: int, now: dict[Key, Run], key: Key
    ) -> Event:
        if start:
            parent: object = _hashes(run, start - 1, start)[0]
        elif run.depth:
            parent = self._parent(run, now, key)
        else:
            parent = None
        return {
            "type": "BlockStored",
            "block_hashes": _hashes(run, start, run.live),
            "parent_block_hash": parent,
            "token_ids": [],
            "block_size": size,
            "lora_id": None,
            "medium": medium,
        }

    def _parent(self, run: Run, now: dict[Key, Run], key: Key) -> object:
        """The hash of the block before a run, as its engine gave it, where that run is known."""
        if run.engine and not is_weak(run.parent):
            for (_, digest, _), other in now.items():
                if digest == key[1] and other.depth < run.depth:
                    at = other.live_names().find(run.parent)
                    if at >= 0 and at % NAME_BYTES == 0:
                        return _hashes(other, at // NAME_BYTES, at // NAME_BYTES + 1)[0]
        return _hash(run.parent)

    async def _replay(self, router: zmq.asyncio.Socket) -> None:
        while True:
            frames = await router.recv_multipart()
            if len(frames) != 3 or len(frames[2]) != 8:
                continue
            client, start = frames[0], int.from_bytes(frames[2], "big")
            # A follower that has gone is no reason to end.
            with suppress(zmq.ZMQError):
                for topic, number, payload in list(self._kept):
                    if number >= start:
                        await router.send_multipart(
                            [client, b"", topic, number.to_bytes(8, "big"), payload]
                        )
                await router.send_multipart([client, b"", b"", _END, b""])

    def _bind(self, kind: int, address: str) -> tuple[zmq.asyncio.Socket, str]:
        assert self._context is not None
        socket = self._context.socket(kind)
        socket.set_hwm(HIGH_WATER)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise k2store.Rejected(f"cannot bind {address!r}: {error}", field="republish") from None
        return socket, socket.getsockopt_string(zmq.LAST_ENDPOINT)


def _topic(worker: Worker, model: str) -> bytes:
    return f"kv@{worker}@{model}".encode()


def _shared(before: Run, after: Run) -> int:
    """How many of the first blocks two rows of one key have in common, as long as it is the same run."""
    if before.generation != after.generation or before.epoch != after.epoch:
        return 0
    live = min(before.live, after.live)
    end = live * NAME_BYTES
    return live if before.names[:end] == after.names[:end] else 0


def _hashes(run: Run, start: int, end: int) -> list[object]:
    """Hashes of some blocks of a run, as the engine gave them."""
    width = len(run.engine) * NAME_BYTES // len(run.names)
    if width:
        return [run.engine[place * width : (place + 1) * width] for place in range(start, end)]
    return [_hash(name) for name in split_names(run.names[start * NAME_BYTES : end * NAME_BYTES])]


def _hash(name: bytes) -> object:
    """A name as an engine's hash: a number of 64 bits where it is one."""
    return int.from_bytes(name[8:], "big") if is_weak(name) else name
