"""`k2 dev --single`: one node to try things on, with a live table of what it does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Final

from k2store.cli.node import say_ready
from k2store.cli.verb import output, settings

if TYPE_CHECKING:
    from rich.table import Table

    from k2store.node.process import NodeProcess
    from k2store.node.report import Reading

RATES: Final = ("operations", "commits", "turns", "syncs", "frames")
"""Counters shown as rates, by the engine's names."""


def run(*, data: str | None, listen: str | None, admin: str | None, interval_s: float) -> None:
    """Run one node in this process until it is told to end; a table or records beside it."""
    with _folder(data) as folder:
        loaded = settings(
            {
                "node.data": folder,
                "node.listen": listen,
                "admin.listen": admin,
                "clock.source": "declared",
                "logging.level": "warning",
            }
        )
        from k2store.node.launch import launch

        launch(loaded.settings, on_ready=say_ready, beside=_beside(interval_s))
    output().note("stopped")


@contextlib.contextmanager
def _folder(data: str | None) -> Iterator[str]:
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="k2-dev-") as folder:
        yield folder


def _beside(interval_s: float) -> Callable[[NodeProcess], Awaitable[None]] | None:
    """What runs next to the node: records, a table, or nothing where nobody looks."""
    out = output()
    if out.as_json:
        return lambda node: _records(node, interval_s)
    if sys.stdout.isatty() and not out.quiet and os.environ.get("TERM") != "dumb":
        return lambda node: _table(node, interval_s)
    return None


async def _records(node: NodeProcess, interval_s: float) -> None:
    out = output()
    async for rates, reading in looks(node, interval_s):
        status = reading.status
        out.record(
            {name + "_per_s": round(rate, 1) for name, rate in rates.items()}
            | {
                "state": status.state,
                "sessions": status.sessions,
                "transactions": status.transactions,
                "uptime_s": status.uptime_s,
            },
            "",
        )


async def _table(node: NodeProcess, interval_s: float) -> None:
    from rich.live import Live

    with Live(auto_refresh=False, transient=True) as live:
        async for rates, reading in looks(node, interval_s):
            live.update(draw(rates, reading), refresh=True)


async def looks(
    node: NodeProcess, interval_s: float
) -> AsyncIterator[tuple[dict[str, float], Reading]]:
    """The node's figures at every interval, with rates since the one before."""
    before, before_s = node.reading().counts, node.uptime_s()
    while True:
        await asyncio.sleep(interval_s)
        reading, now_s = node.reading(), node.uptime_s()
        past_s = max(now_s - before_s, 1e-9)
        yield {name: (reading.counts[name] - before[name]) / past_s for name in RATES}, reading
        before, before_s = reading.counts, now_s


def draw(rates: dict[str, float], reading: Reading) -> Table:
    """One look as a table."""
    from rich import box
    from rich.table import Table

    status = reading.status
    clock = status.clock
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{status.node} {status.state}")
    for name in RATES:
        table.add_column(f"{name}/s", justify="right")
    for name in ("sessions", "open", "keys in memory", "commit wait"):
        table.add_column(name, justify="right")
    mean_ns = clock.commit_wait_ns_total // clock.commits if clock.commits else 0
    table.add_row(
        *(f"{rates[name]:,.0f}" for name in RATES),
        str(status.sessions),
        str(status.transactions),
        f"{sum(one.keys_in_memory for one in status.partitions):,}",
        f"{mean_ns / 1000:.0f} µs",
    )
    return table
