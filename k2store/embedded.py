"""A store inside this process: the node's engine and the client, joined without a network.

::

    with k2store.open("data") as db:
        ...
    async with k2store.open_async("data") as db:
        ...

Everything is as with a node elsewhere: the same transactions, the same log on disk, the same
failures. One process has a folder at a time; what is acknowledged survives the process. The
engine needs the `server` extra; without it opening a store says so.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from k2store.client.connect import connect
from k2store.errors import Rejected
from k2store.rpc.local import LocalTransport

if TYPE_CHECKING:
    from k2store import blocking
    from k2store.client.database import Database
    from k2store.client.settings import Span
    from k2store.config import Settings

_NAME = "embedded:7400"


def open_async(
    path: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    timeout: Span | None = None,
) -> AbstractAsyncContextManager[Database]:
    """Open the store in a folder, which is made when it is missing, for ``async with``.

    settings  those of the node, its data folder aside; its ports are not opened
    timeout   deadline of every call that states none

    Raises `Corruption` when the folder has lost what was acknowledged, and `Unavailable` when
    another process has it.
    """
    return _opened(os.fspath(path), settings, timeout)


def open(  # noqa: A001 - read as k2store.open
    path: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    timeout: Span | None = None,
) -> blocking.Database:
    """Open the store in a folder for ``with``: the blocking form of `open_async`."""
    from k2store import blocking

    return blocking.Database(lambda: open_async(path, settings=settings, timeout=timeout))


@asynccontextmanager
async def _opened(
    path: str, settings: Settings | None, timeout: Span | None
) -> AsyncIterator[Database]:
    try:
        from k2store.config import Settings
        from k2store.node.assembly import engine_of
    except ImportError as error:
        raise Rejected(
            f"an embedded store needs the server's parts ({error.name} is missing): "
            "pip install 'k2store[server]'",
            field="path",
        ) from error
    settings = settings or Settings()
    node = msgspec.structs.replace(settings.node, data=path)
    engine = engine_of(msgspec.structs.replace(settings, node=node))
    try:
        await engine.start()
        transport = LocalTransport()
        listening = await transport.listen(_NAME, engine)
        async with connect(
            f"k2://{_NAME}", dialer=transport, timeout=timeout, name="embedded"
        ) as database:
            yield database
        await listening.close()
    finally:
        engine.close()
