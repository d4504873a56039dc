"""What the processes of the demo have in common: how they begin, and that they end with their owner.

The owner writes one line, the setting, and keeps the pipe open; when it closes, the process ends, however the
owner came to its end.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

import k2store
from bench.demo.simulated.messages import Setting

READY: Final = "ready"
CALL_S: Final = 5.0
"""Deadline of a call to the store that states none."""


def begin(main: Callable[[Setting, Callable[[], None]], Awaitable[None]]) -> None:
    """Read the setting, run `main` with it until the owner is gone, or `main` ends."""
    setting = msgspec.json.decode(sys.stdin.buffer.readline(), type=Setting)
    asyncio.run(_run(setting, main))


def connect(setting: Setting) -> k2store.Database:
    """The store, as from the process's region."""
    return k2store.connect(setting.client, name=setting.name.replace("/", "-"), timeout=CALL_S)


async def _run(
    setting: Setting, main: Callable[[Setting, Callable[[], None]], Awaitable[None]]
) -> None:
    loop = asyncio.get_running_loop()
    owner = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(owner), sys.stdin
    )
    work = asyncio.ensure_future(main(setting, _ready))
    orphaned = asyncio.ensure_future(owner.read())
    try:
        await asyncio.wait((work, orphaned), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
    finally:
        work.cancel()
        orphaned.cancel()
        await asyncio.gather(work, orphaned, return_exceptions=True)
        transport.close()


def _ready() -> None:
    sys.stdout.write(READY + "\n")
    sys.stdout.flush()
