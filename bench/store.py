"""`k2 bench store`: one node on one core, the load on another, and etcd beside it if asked."""

from __future__ import annotations

from pathlib import Path

import click

from bench import etcd
from bench.campaign import IN_FLIGHT, Settings, measure
from bench.processes import BenchError, own_folder
from bench.progress import progress
from bench.report import document, print_tables, warnings
from k2store.cli.verb import Verb, output

KEYS = 1_000_000
SECONDS = 5.0
RUNS = 3

QUICK_KEYS = 20_000
QUICK_SECONDS = 1.0


@click.command(cls=Verb)
@click.option("--peer", type=click.Choice(["etcd"]), help="Measure this beside, and the ratio.")
@click.option("--keys", type=click.IntRange(1), help=f"Resident keys ({KEYS:,}).")
@click.option(
    "--seconds", type=click.FloatRange(0.1), help=f"Length of a measurement ({SECONDS:g})."
)
@click.option("--runs", type=click.IntRange(1), help=f"Runs, of which the medians count ({RUNS}).")
@click.option(
    "--workload",
    "workloads",
    type=click.Choice(list(IN_FLIGHT)),
    multiple=True,
    help="Only this; may be repeated.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("/var/tmp"),  # noqa: S108 - a folder of our own is made in it
    show_default=True,
    help="Where the stores are made, and removed afterwards: on the disk to be measured.",
)
@click.option(
    "--quick", is_flag=True, help=f"{QUICK_KEYS:,} keys, {QUICK_SECONDS:g} s each, one run."
)
def store(
    *,
    peer: str | None,
    keys: int | None,
    seconds: float | None,
    runs: int | None,
    workloads: tuple[str, ...],
    data: Path,
    quick: bool,
) -> None:
    """Measure a node through the public client: rates, latencies, memory, restart.

    Every commit is synced to the disk, and the clock bound is declared as 0.5 ms, which decides
    the commit wait. With --json the last line is one object.
    """
    told = output()
    if peer == "etcd" and not etcd.installed():
        click.secho(etcd.HOW_TO_INSTALL, fg="yellow", bold=True, err=True)
        peer = None
    with own_folder("k2-bench-", data) as folder:
        settings = Settings(
            keys=keys or (QUICK_KEYS if quick else KEYS),
            seconds=seconds or (QUICK_SECONDS if quick else SECONDS),
            runs=runs or (1 if quick else RUNS),
            workloads=workloads or tuple(IN_FLIGHT),
            folder=folder,
            with_etcd=peer == "etcd",
        )
        try:
            with progress(quiet=told.quiet) as begin:
                findings = measure(settings, begin)
        except BenchError as error:
            raise click.ClickException(str(error)) from None
    if told.as_json:
        for warning in warnings(findings):
            told.note(f"! {warning}")
        told.document(document(findings), "")
    else:
        print_tables(findings, told)
