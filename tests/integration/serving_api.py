"""The API over a tiny model with the real tokenizer, served in this process for the length of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache

import msgspec

from serving.api.app import Limits, Served
from serving.api.server import listening, serve
from serving.engine.assembly import Tiers, engine_over
from serving.engine.engine import Engine
from serving.engine.front import Front
from serving.engine.settings import EngineSettings
from serving.model import Llama, LoadedModel
from tests.unit.serving_models import TINY, greedy, pool_for, smollm2

NAME = "tiny"


@cache
def loaded() -> LoadedModel:
    """Weights of nothing in particular, and SmolLM2's tokenizer."""
    tokenizer = smollm2().tokenizer
    config = msgspec.structs.replace(TINY, vocabulary=tokenizer.vocabulary, layers=2)
    model = Llama.random(config, seed=3)
    weights = {
        name: weight if name == "embedding" or weight.dim() == 1 else 12 * weight
        for name, weight in model.weights.items()
    }
    return LoadedModel(NAME, "none", Llama(config, weights), tokenizer)


@cache
def answer_to(tokens: tuple[int, ...], count: int) -> list[int]:
    """What the model says, alone and in one piece; without an end token."""
    model, tokenizer = loaded().model, loaded().tokenizer
    pages = -(-(len(tokens) + count) // 16)
    return greedy(model, pool_for(model, pages), range(pages), tokens, tokenizer.end, count)


@dataclass
class Running:
    """A server that answers.

    base  of the API
    port  where it listens
    """

    base: str
    port: int
    front: Front


@asynccontextmanager
async def server(
    *,
    pages: int = 64,
    settings: EngineSettings | None = None,
    limits: Limits | None = None,
    key: str = "",
) -> AsyncIterator[Running]:
    """Serve; afterwards no page may be active and the engine must be whole."""
    engine = engine_over(loaded(), Tiers(device=pages, host=8), settings)
    sock = listening("127.0.0.1:0")
    port = sock.getsockname()[1]
    until = asyncio.Event()
    async with Front(engine) as front:
        served = Served(NAME, loaded().tokenizer)
        task = asyncio.ensure_future(
            serve(sock, served, front, limits=limits, key=key, until=until)
        )
        try:
            yield Running(f"http://127.0.0.1:{port}/v1", port, front)
            if front.failure is None:
                await front.call(Engine.check_integrity)
        finally:
            until.set()
            await task


async def eventually(front: Front, holds: Callable[[Engine], bool]) -> None:
    """Look at the engine between its steps until something holds; the test's timeout bounds it."""
    while not await front.call(holds):
        await asyncio.sleep(0.005)


async def raw(port: int, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which something was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    return reader, writer


def post(path: str, body: object, *headers: str) -> bytes:
    """A request as bytes."""
    sent = body if isinstance(body, bytes) else msgspec.json.encode(body)
    lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {len(sent)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + sent


async def ask(port: int, request: bytes) -> tuple[int, bytes, bytes]:
    """Send a request that closes its connection; gives status, head and body."""
    reader, writer = await raw(port, request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    body = await reader.readexactly(length)
    writer.close()
    return int(head.split(b" ", 2)[1]), head, body


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine."""

    async def awaited() -> None:
        await main()

    asyncio.run(awaited())
