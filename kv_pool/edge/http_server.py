"""A small HTTP/1.1 server for JSON: bounded in everything, on the loop, with h11 for the protocol.

One answer for each request, keep-alive as the client likes. Heads, bodies, connections and waiting have
limits; what exceeds one is answered and the connection ends. No request can end the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import h11
import msgspec
from msgspec import Struct

import k2store

HEAD_BYTES_MAX: Final = 16 * 1024
BODY_BYTES_MAX: Final = 8 * 1024 * 1024
CONNECTIONS_MAX: Final = 256
IDLE_S: Final = 60.0
_READ_BYTES: Final = 64 * 1024


class Answer(Struct, frozen=True):
    """What goes back: a status, and a value that becomes JSON."""

    status: HTTPStatus
    body: object


Handle = Callable[[str, str, bytes], Awaitable[Answer]]
"""Method, path without query, body; gives the answer. Errors of the store's tree become answers, too."""


class HttpServer:
    """See the module."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[object]] = set()

    async def listen(self, address: str) -> str:
        """Serve at ``host:port``; gives the address with the port in use."""
        host, _, port = address.rpartition(":")
        try:
            self._server = await asyncio.start_server(self._serve, host.strip("[]"), int(port))
        except (OSError, ValueError, OverflowError) as error:
            raise k2store.Rejected(f"cannot listen at {address}: {error}", field="listen") from None
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop serving; connections end."""
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if len(self._open) <= CONNECTIONS_MAX:
                await self._converse(reader, writer)
        except (TimeoutError, OSError, asyncio.CancelledError):
            pass  # Whoever is silent for too long, or has gone, gets no answer.
        finally:
            self._open.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        while True:
            try:
                asked = await _request(connection, reader, writer)
                if asked is None:
                    return
                answer = await self._answer(*asked)
            except h11.RemoteProtocolError as error:
                answer = _refusal(HTTPStatus(error.error_status_hint), str(error))
            except _TooLarge:
                answer = _refusal(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"a body has at most {BODY_BYTES_MAX} bytes",
                )
            if not _may_answer(connection):
                return
            writer.write(_response(connection, answer))
            await writer.drain()
            if not _may_go_on(connection):
                return
            connection.start_next_cycle()

    async def _answer(self, request: h11.Request, body: bytes) -> Answer:
        path = request.target.partition(b"?")[0].decode("ascii", "replace")
        try:
            return await self._handle(request.method.decode("ascii"), path, body)
        except k2store.Rejected as error:
            return _refusal(HTTPStatus.UNPROCESSABLE_ENTITY, error.message)
        except k2store.Conflict as error:
            return _refusal(HTTPStatus.CONFLICT, error.message)
        except k2store.K2Error as error:
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, error.message)


class _TooLarge(Exception):
    """A body beyond the limit."""


async def _request(
    connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[h11.Request, bytes] | None:
    """The next request with its body; None when no more will come."""
    request: h11.Request | None = None
    body = bytearray()
    async with asyncio.timeout(IDLE_S):
        while True:
            event = connection.next_event()
            match event:
                case h11.NEED_DATA:
                    connection.receive_data(await reader.read(_READ_BYTES))
                case h11.Request():
                    request = event
                    if connection.they_are_waiting_for_100_continue:
                        go_on = h11.InformationalResponse(status_code=100, headers=[])
                        writer.write(connection.send(go_on) or b"")
                case h11.Data():
                    body += event.data
                    if len(body) > BODY_BYTES_MAX:
                        raise _TooLarge
                case h11.EndOfMessage():
                    assert request is not None, "a message ends after it has begun"
                    return request, bytes(body)
                case _:
                    return None


def _may_answer(connection: h11.Connection) -> bool:
    """Whether the request, or what was wrong with it, can be answered."""
    return connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}


def _may_go_on(connection: h11.Connection) -> bool:
    """Whether another request may follow on this connection."""
    return connection.our_state is h11.DONE and connection.their_state is h11.DONE


def _response(connection: h11.Connection, answer: Answer) -> bytes:
    body = msgspec.json.encode(answer.body)
    head = h11.Response(
        status_code=int(answer.status),
        reason=answer.status.phrase.encode(),
        headers=[
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ],
    )
    parts = [
        connection.send(head),
        connection.send(h11.Data(data=body)),
        connection.send(h11.EndOfMessage()),
    ]
    return b"".join([part for part in parts if part])


def _refusal(status: HTTPStatus, message: str) -> Answer:
    return Answer(status, {"error": message})
