"""How processes of the demo speak: frames over TCP, many calls at a time on one connection.

A frame is a length of four bytes and msgpack of ``(call, kind, body)``. Who asks gives the call a number; the answer
has the same. Both ends may ask.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from msgspec import Struct

from bench.demo.simulated.messages import Message

FRAME_BYTES_MAX: Final = 64 << 20
CONNECT_S: Final = 5.0

_ASK: Final = 0
_ANSWER: Final = 1
_FAILURE: Final = 2

Handler = Callable[[Message], Awaitable[Message]]


class Gone(ConnectionError):
    """The process at the other end has ended, or nothing reaches it."""


class Failed(RuntimeError):
    """The other end could not do what it was asked; the message is its own."""


class _Frame(Struct, array_like=True):
    call: int
    kind: int
    message: Message | str


_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(_Frame).decode


class Link:
    """One connection. `handle` answers what the other end asks."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handle = handle
        self._calls = 0
        self._open: dict[int, asyncio.Future[Message]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self.gone = asyncio.Event()

    async def ask(self, message: Message) -> Message:
        """What the other end answers; `Gone` when it cannot any more."""
        if self.gone.is_set():
            raise Gone("the connection has ended")
        self._calls += 1
        call = self._calls
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._open[call] = future
        try:
            self._send(_Frame(call, _ASK, message))
            answer: Message = await future
            return answer
        finally:
            self._open.pop(call, None)

    async def run(self) -> None:
        """Carry frames until the connection ends."""
        try:
            while True:
                head = await self._reader.readexactly(4)
                size = int.from_bytes(head, "big")
                if size > FRAME_BYTES_MAX:
                    break
                self._take(_DECODE(await self._reader.readexactly(size)))
        except (OSError, EOFError, msgspec.MsgspecError):
            # A process that was killed ends its connections anyhow.
            pass
        finally:
            self.close()

    def close(self) -> None:
        """End it; whoever waits for an answer learns that none comes."""
        self.gone.set()
        self._writer.close()
        for future in self._open.values():
            if not future.done():
                future.set_exception(Gone("the connection ended before the answer"))
        for task in self._answering:
            task.cancel()

    def _take(self, frame: _Frame) -> None:
        if frame.kind == _ASK:
            task = asyncio.get_running_loop().create_task(self._answer(frame))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            return
        future = self._open.get(frame.call)
        if future is None or future.done():
            return
        if isinstance(frame.message, str):
            future.set_exception(Failed(frame.message))
        else:
            future.set_result(frame.message)

    async def _answer(self, frame: _Frame) -> None:
        assert not isinstance(frame.message, str), "a question is a message"
        try:
            answer = _Frame(frame.call, _ANSWER, await self._handle(frame.message))
        except Exception as error:  # noqa: BLE001 - told to whoever asked, whatever it is
            answer = _Frame(frame.call, _FAILURE, f"{type(error).__name__}: {error}")
        if not self.gone.is_set():
            self._send(answer)

    def _send(self, frame: _Frame) -> None:
        body = _ENCODE(frame)
        assert len(body) <= FRAME_BYTES_MAX, "what is asked fits a frame"
        self._writer.write(len(body).to_bytes(4, "big") + body)


async def listen(address: str, handle: Handler) -> asyncio.Server:
    """Answer whoever connects; the port of `address`, on every address of this machine."""
    host, _, port = address.rpartition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # When the process ends so does this task, which nobody is to be told of.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            link = Link(reader, writer, handle)
            await link.run()
            await writer.wait_closed()

    return await asyncio.start_server(serve, host, int(port))


class Peer:
    """The other end at an address, connected when it is asked and again when it has come back."""

    def __init__(self, address: str, handle: Handler) -> None:
        self._address = address
        self._handle = handle
        self._link: Link | None = None
        self._running: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether the last connection stands."""
        return self._link is not None and not self._link.gone.is_set()

    async def ask(self, message: Message) -> Message:
        """What it answers; `Gone` when it is not there."""
        async with self._connecting:
            link = self._link
            if link is None or link.gone.is_set():
                link = await self._connect()
        return await link.ask(message)

    async def close(self) -> None:
        """End the connection."""
        if self._link is not None:
            self._link.close()
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)

    async def _connect(self) -> Link:
        host, _, port = self._address.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(host, int(port))
        except (OSError, TimeoutError) as error:
            raise Gone(f"{self._address}: {error}") from None
        link = self._link = Link(reader, writer, self._handle)
        self._running = asyncio.get_running_loop().create_task(link.run())
        return link


async def refuse(message: Message) -> Message:
    """The handler of who answers no questions."""
    raise Failed(f"nobody is asked {type(message).__name__} here")
