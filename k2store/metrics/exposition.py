"""The admin port: `/metrics`, `/healthz` and `/readyz` over plain HTTP/1.1.

    /healthz   503 once the node has failed or quarantined itself, else 200
    /readyz    200 while new clients are welcome; 503 while it starts, drains or has failed
    /metrics   the catalogue, in the text format of Prometheus

One request a connection, GET and HEAD only, no bodies, small and bounded heads: nothing here can
be used to make the node remember anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from k2store.metrics.catalogue import NodeCollector
from k2store.node.report import FAILED, QUARANTINED, SERVING, Reading

HEAD_BYTES_MAX: Final = 8 * 1024
HEAD_TIMEOUT_S: Final = 5.0
CONNECTIONS_MAX: Final = 64

_TEXT: Final = "text/plain; charset=utf-8"
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


class AdminPort:
    """The HTTP server of one node."""

    def __init__(self, read: Callable[[], Reading], state: Callable[[], str]) -> None:
        """`read` gives the node's figures, `state` one of the node's states."""
        self._state = state
        self._registry = CollectorRegistry()
        self._registry.register(NodeCollector(read))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._server: asyncio.Server | None = None
        self._open = 0

    async def listen(self, address: str) -> str:
        """Serve at `host:port`; returns the address with the port in use. Raises OSError."""
        host, _, port = address.rpartition(":")
        self._server = await asyncio.start_server(
            self._serve, host.strip("[]"), int(port), limit=HEAD_BYTES_MAX
        )
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS_MAX:
                async with asyncio.timeout(HEAD_TIMEOUT_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # Whoever cannot send a request in time gets none answered.
        finally:
            self._open -= 1
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response(400, _TEXT, b"not HTTP/1.1\n")
        method, target = words[0], words[1].partition(b"?")[0]
        if method not in {b"GET", b"HEAD"}:
            return _response(405, _TEXT, b"GET or HEAD\n")
        code, kind, body = self._page(target)
        return _response(code, kind, body, with_body=method == b"GET")

    def _page(self, target: bytes) -> tuple[int, str, bytes]:
        state = self._state()
        if target == b"/healthz":
            return (503 if state in {FAILED, QUARANTINED} else 200), _TEXT, f"{state}\n".encode()
        if target == b"/readyz":
            return (200 if state == SERVING else 503), _TEXT, f"{state}\n".encode()
        if target == b"/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        return 404, _TEXT, b"/metrics /healthz /readyz\n"


def _response(code: int, kind: str, body: bytes, *, with_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
