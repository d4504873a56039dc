"""A worker of its own: a model, an engine, and the API over HTTP, until it is told to end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvicorn

import k2store
from k2store.clock import DeclaredClock
from serving.api.app import Api, Limits, Served
from serving.api.exchange import Message, Receive, Send
from serving.api.metrics import Metrics, sample
from serving.engine.engine import Engine
from serving.engine.front import Front
from serving.model import Tokenizer

GRACE_S = 5
"""How long answers that are under way may take when the server is told to end."""

_NANOSECONDS = 1_000_000_000

Application = Callable[[Message, Receive, Send], Awaitable[None]]
"""What the server runs: `Api`, or something around one."""


def listening(address: str) -> socket.socket:
    """A listening socket at ``host:port``; port 0 takes a free one. `k2store.Rejected` otherwise."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=512)
    except (OSError, ValueError, OverflowError) as error:
        raise k2store.Rejected(f"cannot listen at {address}: {error}", field="listen") from None


async def serve(
    sock: socket.socket,
    served: Served,
    front: Front,
    *,
    limits: Limits | None = None,
    key: str = "",
    until: asyncio.Event | None = None,
) -> None:
    """Answer for an engine at a listening socket; see `answer`."""
    metrics = Metrics()

    async def figures() -> bytes:
        return metrics.text(await front.call(sample))

    api = Api(served, front, metrics, figures, now_s, limits=limits, key=key)
    await answer(sock, api, limits, until)


async def answer(
    sock: socket.socket,
    api: Application,
    limits: Limits | None = None,
    until: asyncio.Event | None = None,
) -> None:
    """Let an application answer at a listening socket until SIGTERM, SIGINT, or `until` is set.

    Answers that are under way have `GRACE_S` to come to their end.
    """
    limits = limits or Limits()
    config = uvicorn.Config(
        api,
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        limit_concurrency=limits.connections_max,
        timeout_keep_alive=round(limits.keep_alive_s),
        timeout_graceful_shutdown=GRACE_S,
    )
    server = uvicorn.Server(config)

    async def end() -> None:
        if until is not None:
            await until.wait()
            server.should_exit = True

    with _signals_end_only_the_server():
        ending = asyncio.ensure_future(end())
        await server.serve(sockets=[sock])
        ending.cancel()


def now_s() -> int:
    """Seconds since the Unix epoch, by this machine's clock."""
    return DeclaredClock().read()[1] // _NANOSECONDS


def run(
    sock: socket.socket,
    engine: Engine,
    name: str,
    tokenizer: Tokenizer,
    *,
    limits: Limits,
    key: str,
    on_ready: Callable[[], None],
) -> None:
    """Serve one engine in this process; `on_ready` is called when requests are welcome."""

    async def main() -> None:
        try:
            async with Front(engine) as front:
                on_ready()
                await serve(sock, Served(name, tokenizer), front, limits=limits, key=key)
        finally:
            engine.pool.close()

    asyncio.run(main())


@contextmanager
def _signals_end_only_the_server() -> Iterator[None]:
    """uvicorn raises the signal that ended it once more when it is through; here it has done its work."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
