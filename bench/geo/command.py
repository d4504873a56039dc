"""`k2 bench geo`: three regions on this machine, and what geography costs there."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.processes import BenchError
from bench.progress import progress
from k2store.cli.verb import Verb, output

if TYPE_CHECKING:
    from bench.geo.report import Findings
    from bench.geo.scene import WanKind
    from bench.progress import Begin

KILLS = 10
COUNT = 20
WRITES = 300
READS = 60
SECONDS = 3.0
RUNS = 3

QUICK_KILLS = 3
QUICK_COUNT = 3
QUICK_WRITES = 40
QUICK_READS = 10
QUICK_SECONDS = 0.5

VIOLATION = 5
"""Exit status when a promise was seen broken, as of `k2 check`."""


@click.command(cls=Verb)
@click.option(
    "--kills", type=click.IntRange(1), help=f"Leaders killed ({KILLS}; {QUICK_KILLS} if quick)."
)
@click.option(
    "--wan",
    type=click.Choice(["auto", "namespaces", "proxy"]),
    default="auto",
    show_default=True,
    help="How regions are kept apart: network namespaces (root), or a proxy.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("/var/tmp"),  # noqa: S108 - a folder of our own is made in it
    show_default=True,
    help="Where the nodes' folders are made, and removed afterwards.",
)
@click.option("--quick", is_flag=True, help="Few of everything: whether it works, not how fast.")
@click.pass_context
def geo(ctx: click.Context, *, kills: int | None, wan: WanKind, data: Path, quick: bool) -> None:
    """Measure round trips, visibility, replica reads and failover over three regions.

    Real nodes in fra, iad and sin, 45 to 110 ms apart one way, on this machine. Every commit is
    synced; the clock bound is declared as 0.5 ms. With --json the last line is one object. The exit
    status is 5 if an acknowledged write was lost, a read was stale, or a view was not whole.
    """
    from bench.geo.report import broken, document, print_tables, warnings

    told = output()
    with tempfile.TemporaryDirectory(prefix="k2-geo-", dir=data) as folder:
        try:
            with progress(quiet=told.quiet) as begin:
                found = _measure(
                    Path(folder),
                    wan,
                    quick=quick,
                    kills=kills or (QUICK_KILLS if quick else KILLS),
                    begin=begin,
                )
        except BenchError as error:
            raise click.ClickException(str(error)) from None
    if told.as_json:
        for warning in warnings(found):
            told.note(f"! {warning}")
        told.document(document(found), "")
    else:
        print_tables(found, told)
    violations = broken(found)
    for violation in violations:
        click.secho(violation, fg="red", bold=True, err=True)
    ctx.exit(VIOLATION if violations else 0)


def _measure(folder: Path, wan: WanKind, *, quick: bool, kills: int, begin: Begin) -> Findings:
    from bench.geo.commits import LINKS, Commits
    from bench.geo.failover import failover
    from bench.geo.reads import replica_reads, strong_reads
    from bench.geo.report import Findings
    from bench.geo.scene import arrange, scene
    from bench.geo.visibility import Visibility
    from bench.machine import examine

    begin("calibrating", 1.0)
    machine = examine(folder)
    before = os.getloadavg()[0]
    begin("three regions start", 10.0)
    with scene(wan, folder / "regions") as cluster:
        arrange(cluster)
        delays_ms = {
            f"{one}-{other}": cluster.wan.rule(one, other).delay_s * 1000 for one, other in LINKS
        }
        found = Findings(machine=machine, wan=cluster.wan.kind, delays_ms=delays_ms, load=[before])
        commits = Commits(cluster, QUICK_COUNT if quick else COUNT, begin)
        found.commits = asyncio.run(commits.run())
        writes = QUICK_WRITES if quick else WRITES
        visibility = Visibility(cluster, writes)
        begin("visibility, writers at home", writes * 0.06)
        found.visibility = asyncio.run(visibility.run(remote_writers=False))
        begin("visibility, writers elsewhere as well", writes * 0.08)
        found.visibility_remote = asyncio.run(visibility.run(remote_writers=True))
        found.seen = visibility.seen
        reads = QUICK_READS if quick else READS
        begin("strong reads", reads * 0.4)
        found.strong = asyncio.run(strong_reads(cluster, reads))
        found.reads = replica_reads(
            cluster,
            folder / "alone",
            seconds=QUICK_SECONDS if quick else SECONDS,
            runs=1 if quick else RUNS,
            begin=begin,
        )
    begin("a region of three nodes starts", 10.0)
    found.failover = failover(folder / "failover", kills, begin)
    found.load.append(os.getloadavg()[0])
    return found
