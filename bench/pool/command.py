"""`k2 bench pool`: the learner and the directory on a real trace, with their peers beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.processes import BenchError, own_folder
from bench.progress import progress
from k2store.cli.verb import Verb, output

if TYPE_CHECKING:
    from bench.pool.campaign import Findings
    from bench.progress import Begin

SECONDS = 5.0
ROUNDS = 3
FENCED = 100_000
SMALL_PROMPTS = 2_000
"""Prompts that are cut into 16 tokens a block, of the trace's first: 32 times as many blocks each."""

QUICK_SECONDS = 0.5
QUICK_PROMPTS = 300
QUICK_FENCED = 1_000
PEERS = "redis,etcd,dynamo,mooncake"


@click.command(cls=Verb)
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Prompts, JSON lines; without it a trace is made up.",
)
@click.option(
    "--block-tokens",
    type=click.Choice(["512", "16"]),
    help="Only blocks of this size; else of 512, and after that of 16.",
)
@click.option(
    "--peers",
    default=PEERS,
    show_default=True,
    metavar="NAMES",
    help="Measure these beside, separated by commas; empty for none.",
)
@click.option("--seconds", type=click.FloatRange(0.1), help=f"Of a measurement ({SECONDS:g}).")
@click.option("--prompts", type=click.IntRange(1), help="So many from the trace's beginning (all).")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("/var/tmp"),  # noqa: S108 - a folder of our own is made in it
    show_default=True,
    help="Where the stores are made, and removed afterwards: on the disk to be measured.",
)
@click.option("--quick", is_flag=True, help="Little of everything: whether it works, not how fast.")
def pool(
    *,
    trace: Path | None,
    block_tokens: str | None,
    peers: str,
    seconds: float | None,
    prompts: int | None,
    data: Path,
    quick: bool,
) -> None:
    """Measure the learner, publish, acquire, fence and warm start on a trace, beside peers.

    16 workers and a router use the pool's sessions against one node on one core; every commit is synced, the
    clock bound is declared as 0.5 ms. Peers that are not installed are named with the way to get
    them. With --json the last line is one object.
    """
    from bench.pool.campaign import PEERS as KNOWN
    from bench.pool.report import document, print_tables, warnings

    told = output()
    wanted = tuple([name for name in peers.split(",") if name])
    for name in wanted:
        if name not in KNOWN:
            raise click.BadParameter(f"{name!r} is none of {', '.join(KNOWN)}", param_hint="peers")
    findings = []
    with own_folder("k2-pool-", data) as folder:
        try:
            with progress(quiet=told.quiet) as begin:
                for size in [int(block_tokens)] if block_tokens else [512, 16]:
                    limit = QUICK_PROMPTS if quick else SMALL_PROMPTS if size == 16 else 0
                    findings.append(
                        _measure(
                            begin,
                            folder=folder,
                            trace=trace,
                            block_tokens=size,
                            limit=prompts or limit,
                            peers=wanted,
                            seconds=seconds or (QUICK_SECONDS if quick else SECONDS),
                            quick=quick,
                        )
                    )
        except BenchError as error:
            raise click.ClickException(str(error)) from None
    for warning in {warning: None for found in findings for warning in warnings(found)}:
        click.secho(f"! {warning}", fg="yellow", bold=True, err=True)
    if told.as_json:
        figures = document(findings[0])
        for other in findings[1:]:
            figures[f"at_{other.settings.block_tokens}_tokens"] = document(other)
        told.document(figures, "")
    else:
        for found in findings:
            print_tables(found, told)


def _measure(
    begin: Begin,
    *,
    folder: Path,
    trace: Path | None,
    block_tokens: int,
    limit: int,
    peers: tuple[str, ...],
    seconds: float,
    quick: bool,
) -> Findings:
    from bench.pool.campaign import Settings, measure

    settings = Settings(
        trace=None if trace is None else trace.resolve(),
        limit=limit,
        block_tokens=block_tokens,
        seconds=seconds,
        rounds=1 if quick else ROUNDS,
        fenced=QUICK_FENCED if quick else FENCED,
        peers=peers,
        folder=folder,
    )

    def titled(title: str, about_s: float) -> None:
        begin(f"{block_tokens} tokens: {title}", about_s)

    return measure(settings, titled)
