"""A worker's HTTP API, until it is told to end or cannot go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from serving.api.app import Api, Served
from serving.api.metrics import Metrics
from serving.api.server import answer, now_s
from serving.instance.figures import page

if TYPE_CHECKING:
    import socket

    from serving.instance.instance import Instance
    from serving.model import LoadedModel


async def serve_instance(sock: socket.socket, instance: Instance, loaded: LoadedModel) -> None:
    """Answer at a listening socket until SIGTERM or SIGINT. Raises what ends the worker otherwise."""
    metrics = Metrics()
    served = Served(loaded.name, loaded.tokenizer)
    api = Api(served, instance, metrics, lambda: page(instance, metrics), now_s)
    answering = asyncio.get_running_loop().create_task(answer(sock, api))
    waited: list[asyncio.Future[object]] = [answering, instance.failed]  # type: ignore[list-item]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if instance.failed.done():
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        raise instance.failed.result()
    await answering
