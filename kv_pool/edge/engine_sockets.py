"""Sockets of an engine: its live stream of events, its replay, and whether it is there.

vLLM and SGLang publish ``[topic, number, batch]`` on a PUB socket and keep the latest batches; a ROUTER
socket sends those from a number on, up to one with the number -1. What is not of this form is counted and
passed over.

Whether the engine is there is judged by the connection, not by traffic: an idle engine lives. The transport's
heartbeats end a connection whose other side is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

import k2store
from kv_pool.events.wire import decode_sequence

HIGH_WATER: Final = 100_000
"""Batches that wait in the socket before it drops some; what is dropped is noticed by its number."""
HEARTBEAT_MS: Final = 1_000
SILENCE_MS: Final = 3_000
"""How long the other side's transport may be silent before the connection ends."""
REPLAY_SILENCE_S: Final = 2.0
"""How long a replay may pause before it counts as ended."""
RECONNECT_MS: Final = 100
RECONNECT_MAX_MS: Final = 2_000


class EngineSockets:
    """The sockets of one engine, open inside ``with``.

    events  where it publishes, ``tcp://host:port`` or ``ipc://path``
    replay  where it replays; empty where it does not
    topic   only batches whose topic begins with this
    """

    def __init__(self, events: str, replay: str = "", topic: str = "") -> None:
        self._events = events
        self._replay = replay
        self._topic = topic
        self._context: zmq.asyncio.Context | None = None
        self._subscriber: zmq.asyncio.Socket | None = None
        self.malformed = 0

    def __enter__(self) -> EngineSockets:
        self._context = zmq.asyncio.Context()
        subscriber = self._socket(zmq.SUB)
        try:
            subscriber.setsockopt_string(zmq.SUBSCRIBE, self._topic)
            subscriber.set_hwm(HIGH_WATER)
            subscriber.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            subscriber.setsockopt(zmq.HEARTBEAT_TIMEOUT, SILENCE_MS)
            subscriber.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
            subscriber.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        except zmq.ZMQError:
            self._context.destroy(linger=0)
            raise
        self._subscriber = subscriber
        return self

    def __exit__(self, *_: object) -> None:
        assert self._context is not None, "what is closed was open"
        self._context.destroy(linger=0)

    @property
    def can_replay(self) -> bool:
        """Whether the engine offers replays."""
        return bool(self._replay)

    async def presence(self) -> AsyncGenerator[bool]:
        """Connects, and tells each time that the engine has come (True) or gone (False)."""
        subscriber = self._opened()
        monitor = subscriber.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        try:
            self._connect(subscriber, self._events)
            while True:
                frames = await monitor.recv_multipart()
                event = parse_monitor_message(frames)["event"]
                yield event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        finally:
            if not subscriber.closed:
                subscriber.disable_monitor()  # lets go of the monitor, but does not close it
            monitor.close(linger=0)

    async def batches(self) -> AsyncGenerator[tuple[int, bytes]]:
        """Number and payload of every batch, as they come."""
        subscriber = self._opened()
        while True:
            frames = await subscriber.recv_multipart()
            batch = self._batch(frames)
            if batch is not None:
                yield batch

    async def replayed(self, start: int) -> AsyncGenerator[tuple[int, bytes]]:
        """The batches that the engine still has, from a number on; ends early when it goes silent."""
        dealer = self._socket(zmq.DEALER)
        try:
            self._connect(dealer, self._replay)
            await dealer.send_multipart([b"", start.to_bytes(8, "big")])
            while True:
                try:
                    async with asyncio.timeout(REPLAY_SILENCE_S):
                        frames = await dealer.recv_multipart()
                except TimeoutError:
                    return
                batch = self._batch(frames)
                if batch is None:
                    continue
                if batch[0] < 0:
                    return
                # Where several streams come by one socket, each has numbers of its own.
                if len(frames) < 4 or frames[-3].startswith(self._topic.encode()):
                    yield batch
        finally:
            dealer.close(linger=0)

    def _batch(self, frames: list[bytes]) -> tuple[int, bytes] | None:
        """Older engines replay without a topic: what counts are the last two frames."""
        with contextlib.suppress(ValueError):
            if len(frames) >= 2:
                return decode_sequence(frames[-2]), frames[-1]
        self.malformed += 1
        return None

    def _socket(self, kind: int) -> zmq.asyncio.Socket:
        assert self._context is not None, "sockets are opened by `with`"
        return self._context.socket(kind)

    def _opened(self) -> zmq.asyncio.Socket:
        assert self._subscriber is not None, "sockets are opened by `with`"
        return self._subscriber

    def _connect(self, socket: zmq.asyncio.Socket, address: str) -> None:
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            raise k2store.Rejected(f"{address!r}: {error}", field="engine") from None
