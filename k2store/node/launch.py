"""One node as a whole process: event loop, signals, collector, logs.

This is the only place where a node touches what belongs to the process. gRPC's own poller stays
at its defaults: without its event engine a lone frame costs a quarter less, but under load, when
the loop is busy with turns, a node answers a third fewer transactions.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from k2store.config import Settings

if TYPE_CHECKING:
    from k2store.node.process import NodeProcess, Ready

GC_THRESHOLDS: Final = (50_000, 20, 100)
"""Rare collections: 6-8 % more transactions, and the worst pause is a quarter of the default's."""

Beside = Callable[["NodeProcess"], Awaitable[None]]


def launch(
    settings: Settings,
    *,
    on_ready: Callable[[Ready], None],
    beside: Beside | None = None,
) -> None:
    """Run a node until it is told to end.

    The first SIGTERM or SIGINT drains, the second ends at once. `beside` runs next to the node
    and is cancelled at its end. Raises the K2Error that kept the node from serving, or that
    stopped it.
    """
    import uvloop

    uvloop.run(_run(settings, on_ready, beside))


async def _run(
    settings: Settings, on_ready: Callable[[Ready], None], beside: Beside | None
) -> None:
    from k2store.node.logs import Forward, make_logger
    from k2store.node.process import NodeProcess
    from k2store.node.supervisor import READY, STOPPING, tell

    logger = make_logger(
        sys.stderr,
        level=settings.logging.level,
        form=settings.logging.format,
        node=settings.node.name,
    )
    logging.getLogger().addHandler(Forward(logger))
    node = NodeProcess(settings, logger)
    loop = asyncio.get_running_loop()
    starting = asyncio.current_task()
    assert starting is not None

    def interrupted() -> None:
        if node.ready is None:
            starting.cancel("interrupted while starting")
        elif node.draining:
            node.stop()
        else:
            tell(os.environ, STOPPING)
            node.drain()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, interrupted)
    async with node:
        # What recovery has built stays: the collector need never look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        assert node.ready is not None
        on_ready(node.ready)
        if problem := tell(os.environ, READY, f"STATUS={node.ready.line()}"):
            logger.warning("supervisor.untold", problem=problem)
        companion = None if beside is None else asyncio.ensure_future(beside(node))
        try:
            await node.wait()
        finally:
            if companion is not None:
                companion.cancel()
                await asyncio.wait((companion,))
