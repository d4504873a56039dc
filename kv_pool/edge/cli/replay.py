"""`k2 pool replay`: a trace through directory and learner, in order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from k2store.cli.exits import Exit
from k2store.cli.verb import Verb, output
from k2store.errors import Rejected
from kv_pool.edge.trace import BLOCK_TOKENS, Request, read

if TYPE_CHECKING:
    import k2store
    from kv_pool.edge.replay import Replayed

REGION: Final = "local"
NOTE_S: Final = 5.0


@click.command("replay", cls=Verb)
@click.option(
    "--trace",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    metavar="PATH",
    help="Prompts, a line of JSON each.",
)
@click.option("--requests", type=click.IntRange(min=1), metavar="N", help="Only the first so many.")
@click.option(
    "--workers",
    type=click.IntRange(min=1, max=1_000),
    default=16,
    show_default=True,
    metavar="N",
    help="Over how many workers the prompts go.",
)
@click.option("--claims", is_flag=True, help="Claim and release every hit, too.")
@click.option(
    "--address", metavar="HOST:PORT", help="A store to use, instead of a node of its own."
)
def replay(
    *, file: Path, requests: int | None, workers: int, claims: bool, address: str | None
) -> None:
    """Match, then publish, every prompt of a trace, each after the one before is applied.

    Starts a node process with a folder that is thrown away, unless --address names a store. Pools are
    unlimited. Every hit of an endless cache must be hit: exit code 5 if the figures differ.
    """
    try:
        prompts = list(read(file, requests))
    except ValueError as error:
        raise Rejected(str(error), field="trace") from None
    if not prompts:
        raise Rejected(f"{file} holds no prompt", field="trace")
    figures = asyncio.run(_run(prompts, workers, address, claims=claims))
    text = (
        f"{figures.block_hits} of {figures.block_references} blocks hit "
        f"({100 * figures.block_hits / figures.block_references:.1f} %), ideal {figures.ideal_hits}; "
        f"{figures.publishes} publishes of {figures.published_blocks} blocks "
        f"by {workers} workers in {figures.elapsed_s:.1f} s"
    )
    document = {"trace": str(file)} | msgspec.to_builtins(figures)
    output().document(document, text)
    if figures.block_hits != figures.ideal_hits:
        click.get_current_context().exit(Exit.INVALID)


async def _run(
    prompts: list[Request], workers: int, address: str | None, *, claims: bool
) -> Replayed:
    from kv_pool.edge.pool import Pool
    from kv_pool.edge.replay import replay as replayed

    told_s = time.monotonic()

    def tell(figures: Replayed) -> None:
        nonlocal told_s
        if time.monotonic() - told_s > NOTE_S:
            told_s = time.monotonic()
            output().note(
                f"{figures.requests} of {len(prompts)} prompts, "
                f"{figures.block_hits} hits, ideal {figures.ideal_hits}"
            )

    async with _store(address) as db, Pool(db, REGION) as pool:
        return await replayed(
            pool,
            prompts,
            workers=workers,
            claims=claims,
            block_tokens=BLOCK_TOKENS,
            progress=tell,
        )


@contextlib.asynccontextmanager
async def _store(address: str | None) -> AsyncIterator[k2store.Database]:
    import k2store

    if address is not None:
        async with k2store.connect(address, name="replay") as db:
            yield db
        return
    from k2store.testing import local_node

    # Each prompt waits until the one before is visible, so a node of our own makes that quick.
    async with local_node(transactions__slack_min="1ms") as node, node.connect(name="replay") as db:
        yield db
