"""One HTTP exchange over ASGI: a bounded body in, one answer or a stream of events out.

ASGI (the interface between HTTP servers and Python applications) gives an application three things: what
the request line and headers say, a way to wait for more (body, or that the client has gone), and a way
to send. That is little enough to be used as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

import k2store

# What travels is a dictionary whose values depend on its "type": the interface has no better type.
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON: Final = b"application/json"
EVENTS: Final = b"text/event-stream"


class Gone(Exception):
    """The client went away before its request was complete."""


class Exchange:
    """See the module."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.begun = False

    @property
    def method(self) -> str:
        """GET, POST, ..."""
        method: str = self._scope["method"]
        return method

    @property
    def path(self) -> str:
        """Without the query."""
        path: str = self._scope["path"]
        return path

    def header(self, name: bytes) -> bytes:
        """The value of a header, by its name in small letters; empty without it."""
        headers: list[tuple[bytes, bytes]] = self._scope["headers"]
        return next((value for key, value in headers if key == name), b"")

    async def body(self, bytes_max: int, timeout_s: float) -> bytes:
        """All of the body. `k2store.Rejected` for one that is too large or too slow, `Gone`."""
        body = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                more = True
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > bytes_max:
                        raise k2store.Rejected(f"a body has at most {bytes_max:,} bytes")
        except TimeoutError:
            raise k2store.Rejected(f"a body arrives within {timeout_s:g} s") from None
        return bytes(body)

    async def while_present(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something, unless the client goes away first: then it is cancelled.

        For after the body: what is received then can only be that the client has gone.
        """
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._receive())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (working, leaving):
                task.cancel()
            done = await asyncio.gather(working, leaving, return_exceptions=True)
        if isinstance(done[0], BaseException) and not isinstance(done[0], asyncio.CancelledError):
            raise done[0]

    async def answer(
        self,
        status: HTTPStatus,
        body: bytes,
        kind: bytes = JSON,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        """The whole answer."""
        length = (b"content-length", str(len(body)).encode())
        await self._head(status, kind, (length, *headers))
        await self._send({"type": "http.response.body", "body": body})

    async def begin_events(self) -> None:
        """From here on `event`."""
        await self._head(HTTPStatus.OK, EVENTS, ())

    async def event(self, value: object) -> None:
        """A server-sent event."""
        body = b"data: " + msgspec.json.encode(value) + b"\n\n"
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end_events(self) -> None:
        """Say that this was all, in the API's words."""
        await self._send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _head(
        self, status: HTTPStatus, kind: bytes, headers: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        self.begun = True
        fixed = ((b"content-type", kind), (b"cache-control", b"no-store"))
        await self._send(
            {
                "type": "http.response.start",
                "status": int(status),
                "headers": [*fixed, *headers],
            }
        )
