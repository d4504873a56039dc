"""`k2 demo`: the main job on one machine. A node process, and a trace of prompts replayed against it.

Each prompt reads the longest prefix that the store knows and publishes its new blocks in one
one-shot. At the end the node is killed and started again, and what it holds is counted once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec
from msgspec import Struct

from bench import trace as traces
from bench.prompts import Pool, register
from bench.replay import Counts, Holding, Replay, holding
from bench.samples import Spread, rounded
from k2store.cli.exits import Exit
from k2store.cli.remote import admin
from k2store.cli.verb import Verb, output
from k2store.config import load
from k2store.errors import Rejected
from k2store.testing import LocalNode, local_node

if TYPE_CHECKING:
    from rich.table import Table

LIMIT_S: Final = 40.0
"""With what comes before and after it, a run ends within a minute wherever it runs."""
LOOK_S: Final = 0.25
NOTE_LOOKS: Final = 20
"""Where no table can be drawn, one line of progress in so many looks."""
REGION: Final = "local"
WORKER: Final = "worker-1"


class Figures(Struct, frozen=True, kw_only=True):
    """What a run prints.

    trace            the file; None when it was made up
    hit_share        blocks found, as a share of the blocks referred to; `ideal_share` likewise
    match            finding the longest prefix: reads at one fresh stamp, one for each run passed
    publish          one one-shot: until it is durable and true time is past its stamp
    holds            what the store holds of this run; `log_bytes` and `settled_bytes` on disk
    survived_kill    whether it was the same after kill -9 and a restart, which took `restart_s`
    """

    trace: str | None = None
    requests: int
    elapsed_s: float
    requests_per_s: float
    references: int
    hits: int
    hit_share: float
    ideal_hits: int
    ideal_share: float
    reads: int
    publishes: int
    published_blocks: int
    overtaken: int
    in_flight: int
    fsync: bool
    clock_bound_ns: int
    match: Spread
    publish: Spread
    holds: Holding
    log_bytes: int
    settled_bytes: int
    survived_kill: bool
    restart_s: float
    data: str | None = None


@click.command("demo", cls=Verb)
@click.option(
    "--trace",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Prompts to replay, JSON lines; without it a trace is made up.",
)
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    default=traces.CONVERSATION.requests,
    show_default=True,
    metavar="N",
    help="How many prompts, from the beginning of the trace.",
)
@click.option(
    "--seconds",
    "limit_s",
    type=click.FloatRange(min=0),
    default=LIMIT_S,
    show_default=True,
    metavar="S",
    help="Begin no more prompts after so long; 0: replay all of them.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="X",
    help="Let prompts come X times as fast as recorded; 0: without pauses.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(min=1, max=1_000),
    default=16,
    show_default=True,
    metavar="N",
    help="Most prompts under way at a time.",
)
@click.option("--seed", type=int, default=0, metavar="N", help="Of the trace that is made up.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the node; it is kept.",
)
@click.option("--keep", is_flag=True, help="Keep the folder that is made without --data.")
def demo(
    *,
    file: Path | None,
    requests: int,
    limit_s: float,
    speed: float,
    in_flight: int,
    seed: int,
    data: Path | None,
    keep: bool,
) -> None:
    """Replay prompts against a node: longest prefixes read, new blocks published.

    Starts a node process with a data folder that is thrown away, replays the head of a trace
    through the client library, then kills the node, starts it again and counts what it holds.
    Exit code 5 if that differs.
    """
    prompts = _prompts(file, requests, seed)
    folder = Path(tempfile.mkdtemp(prefix="k2-demo-")) if keep and data is None else data
    with local_node(folder) as node:
        figures = asyncio.run(
            _run(node, prompts, speed=speed, limit_s=limit_s, in_flight=in_flight)
        )
    figures = msgspec.structs.replace(
        figures,
        trace=None if file is None else str(file),
        data=None if folder is None else str(folder),
    )
    if output().as_json:
        output().document(msgspec.to_builtins(figures), "")
    else:
        output().table("figures", ("figure", "value"), list(_page(figures)))
    if not figures.survived_kill:
        click.get_current_context().exit(Exit.INVALID)


def _prompts(file: Path | None, count: int, seed: int) -> list[traces.Request]:
    if file is None:
        return traces.generate(seed)[:count]
    try:
        found = list(traces.read(file, count))
    except ValueError as error:
        raise Rejected(str(error), field="trace") from None
    if not found:
        raise Rejected(f"{file} holds no prompt", field="trace")
    return found


async def _run(
    node: LocalNode,
    prompts: list[traces.Request],
    *,
    speed: float,
    limit_s: float,
    in_flight: int,
) -> Figures:
    async with node.connect(name="demo") as db:
        pool = await register(db, REGION, WORKER)
        replay = Replay(pool, prompts, speed=speed, limit_s=limit_s)
        async with _shown(replay, len(prompts)):
            await replay.run(in_flight)
        holds = await holding(pool)
        log_bytes, settled_bytes = await asyncio.to_thread(_on_disk, node)
    output().note("killing the node and starting it again")
    await asyncio.to_thread(node.kill)
    await asyncio.to_thread(node.start)
    async with node.connect(name="demo") as db:
        after = await holding(Pool(db, REGION, WORKER, pool.incarnation))
    counts = replay.counts
    return Figures(
        requests=counts.requests,
        elapsed_s=rounded(replay.elapsed_s),
        requests_per_s=rounded(counts.requests / replay.elapsed_s),
        references=counts.references,
        hits=counts.hits,
        hit_share=rounded(counts.hits / counts.references),
        ideal_hits=counts.ideal,
        ideal_share=rounded(counts.ideal / counts.references),
        reads=counts.reads,
        publishes=counts.publishes,
        published_blocks=counts.published_blocks,
        overtaken=counts.overtaken,
        in_flight=in_flight,
        fsync=True,
        clock_bound_ns=node.ready["clock_bound_ns"],
        match=replay.match_spread(),
        publish=replay.publish_spread(),
        holds=holds,
        log_bytes=log_bytes,
        settled_bytes=settled_bytes,
        survived_kill=after == holds,
        restart_s=rounded(node.ready["start_s"]),
    )


def _on_disk(node: LocalNode) -> tuple[int, int]:
    """Bytes of the log and of the settled state, as the node says."""
    with admin(load(env={}, overrides={"client.endpoint": node.address}).settings) as remote:
        status = remote.status()
    return status.log_bytes, status.settled_bytes


# ------------------------------------------------------------------------------- what is shown


@contextlib.asynccontextmanager
async def _shown(replay: Replay, total: int) -> AsyncIterator[None]:
    """Show rates while the block runs: a table on a terminal, else a line now and then."""
    if output().quiet:
        yield
        return
    drawn = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    looking = asyncio.create_task(_draw(replay, total) if drawn else _tell(replay, total))
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait((looking,))


async def _draw(replay: Replay, total: int) -> None:
    from rich.console import Console
    from rich.live import Live

    before = Counts()
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        while True:
            now = msgspec.structs.replace(replay.counts)
            live.update(_table(before, now, total), refresh=True)
            before = now
            await asyncio.sleep(LOOK_S)


def _table(before: Counts, now: Counts, total: int) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    cells = {
        "prompts": f"{now.requests} of {total}",
        "prompts/s": f"{(now.requests - before.requests) / LOOK_S:.0f}",
        "publishes/s": f"{(now.publishes - before.publishes) / LOOK_S:.0f}",
        "reads/s": f"{(now.reads - before.reads) / LOOK_S:.0f}",
        "blocks": str(now.published_blocks),
        "hits": _share(now.hits, now.references),
        "ideal": _share(now.ideal, now.references),
    }
    for name in cells:
        table.add_column(name, justify="right")
    table.add_row(*cells.values())
    return table


async def _tell(replay: Replay, total: int) -> None:
    while True:
        await asyncio.sleep(LOOK_S * NOTE_LOOKS)
        now = replay.counts
        output().note(
            f"{now.requests} of {total} prompts, {now.published_blocks} blocks published, "
            f"hits {_share(now.hits, now.references)}, "
            f"ideal {_share(now.ideal, now.references)}"
        )


def _page(figures: Figures) -> Iterator[tuple[str, str]]:
    """The summary for people, a row a figure."""
    holds = figures.holds
    yield "trace", figures.trace or "made up"
    yield "prompts", f"{figures.requests} in {figures.elapsed_s} s, {figures.requests_per_s:.0f}/s"
    yield "block references", str(figures.references)
    yield "hits", f"{figures.hits} ({_share(figures.hits, figures.references)})"
    yield "hits, ideal", f"{figures.ideal_hits} ({_share(figures.ideal_hits, figures.references)})"
    yield "longest prefix", f"{_times(figures.match)}; {figures.reads} rows read"
    yield "publish", f"{_times(figures.publish)}; {figures.publishes} runs, each synced"
    yield "published meanwhile", f"{figures.overtaken} publishes were overtaken and matched anew"
    yield "in flight", str(figures.in_flight)
    yield "clock bound", f"{figures.clock_bound_ns / 1000:.0f} µs, declared; latencies include it"
    yield "the store holds", f"{holds.runs} runs, {holds.blocks} blocks, {holds.bytes} bytes"
    yield "on disk", f"log {figures.log_bytes} bytes, settled {figures.settled_bytes} bytes"
    survived = "holds the same" if figures.survived_kill else "DIFFERS"
    yield "after kill -9", f"{survived}; up again after {figures.restart_s} s"
    if figures.data is not None:
        yield "data", figures.data


def _times(spread: Spread) -> str:
    return f"p50 {spread.p50_ms:.2f} ms, p99 {spread.p99_ms:.2f} ms"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
