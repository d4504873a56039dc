"""`k2 check report`: what happened in a run, as a page to look at."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path, exists=True))
@click.option("--seed", type=click.IntRange(0), help="Instead of RUN: a seed of the simulator.")
@click.option("--cluster", is_flag=True, help="With --seed: a seed of regions of nodes.")
@click.option(
    "--length",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="With --seed: as in replay.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the page goes; beside the record, or into this folder, as .html, otherwise.",
)
def report(
    run: Path | None, seed: int | None, length: int, output: Path | None, *, cluster: bool
) -> None:
    """Make a page of RUN: a record, or the folder of a run that has one.

    `k2 check cluster --record` writes records of real processes; with --seed a simulated run is
    repeated and recorded. The page is one file that needs nothing else: faults as bands over the
    lanes of nodes and clients, failed and unknown operations, latency, leaders, and the verdict.
    """
    from jepsen_like.report import page, read
    from jepsen_like.report.record import NAME, BadRecord, Record
    from jepsen_like.report.simulated import simulated

    record: Record
    if (run is None) == (seed is None):
        raise click.UsageError("give RUN or --seed")
    if seed is not None:
        record = simulated(seed, cluster=cluster, length=length)
        target = output or Path(f"seed-{seed}.html")
    else:
        assert run is not None, "one of both was given"
        try:
            record = read(run)
        except (BadRecord, OSError) as error:
            raise click.BadParameter(str(error), param_hint="RUN") from error
        target = output or (run / NAME if run.is_dir() else run).with_suffix(".html")
    target.write_text(page(record), encoding="utf-8")
    click.echo(str(target))
