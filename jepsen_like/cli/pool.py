"""`k2 check pool`: the pool's sessions and transactions under faults, judged from outside."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import msgspec


@click.command()
@click.option("--seeds", metavar="A..B", help="Run the seeds from A to B, both included.")
@click.option("--seed", type=click.IntRange(0), help="Run one seed.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Processes.")
@click.option(
    "--trace",
    "trace",
    is_flag=False,
    flag_value="-",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="With --seed: write every event to a file (default: standard output).",
)
@click.option(
    "--processes",
    "seconds",
    metavar="SECONDS",
    type=click.FloatRange(1),
    help="Run for so long on a cluster of real processes, instead of seeds.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a failing seed, and the sum."
)
@click.pass_context
def pool(
    ctx: click.Context,
    seeds: str | None,
    seed: int | None,
    jobs: int,
    trace: Path | None,
    seconds: float | None,
    *,
    as_json: bool,
) -> None:
    """Run workers and routers of a pool on simulated regions under faults, and judge what they were told.

    Nothing handed out may be gone, nothing claimed be evicted, no copy be lost in a move, nothing be left over;
    bytes read under a claim are those that were claimed; learners equal a scan of the store at their stamp.
    With --processes workers are killed and stopped, nodes and leaders killed, and regions cut off for real.

    Exit status: 0 when all seeds hold, 5 when any fails, 2 for a usage error.
    """
    from jepsen_like.cli.sim import numbers_of
    from jepsen_like.pool import swarm
    from jepsen_like.pool.scene import run

    if seconds is not None:
        if seeds is not None:
            raise click.UsageError("either --seeds or --processes")
        ctx.exit(_processes(seconds, seed, as_json=as_json))
    numbers = numbers_of(seeds, seed)
    if trace is not None:
        if seed is None:
            raise click.UsageError("--trace needs --seed")
        with click.open_file(str(trace), "w") as sink:
            result = run(seed, trace_sink=sink)
        click.echo("\n".join([f"trace {result.trace}", *result.failures]), err=True)
        ctx.exit(5 if result.failures else 0)
    began_s = time.perf_counter()
    summaries = []
    for number, summary in enumerate(swarm.each(numbers, jobs), 1):
        summaries.append(summary)
        if summary.failures:
            _show(summary.seed, summary.failures, as_json=as_json)
        if sys.stderr.isatty():
            click.echo(f"\r{number} of {len(numbers)} seeds", nl=number == len(numbers), err=True)
    report = swarm.summed(summaries, time.perf_counter() - began_s)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    else:
        click.echo(
            f"{report.seeds} seeds, {report.operations} operations ({report.done} done, {report.unknown} "
            f"unknown), {report.faults} faults of {len(report.fault_kinds)} kinds, "
            f"{report.compared} comparisons of learners, {report.reads} reads under claims, "
            f"{report.virtual_hours:.2f} virtual hours in {report.seconds:.1f} s"
        )
        click.echo(
            f"{report.failures} seeds failed, {report.anomalies} anomalies; "
            f"{report.vacuous} proved nothing"
        )
    ctx.exit(5 if report.failures else 0)


def _processes(seconds: float, seed: int | None, *, as_json: bool) -> int:
    import asyncio
    import tempfile
    from random import Random

    from jepsen_like.pool.campaign import Campaign, words
    from k2store.testing.cluster import local_cluster

    rng = Random(seed)
    regions = ("fra", "iad", "sin")
    with (
        tempfile.TemporaryDirectory() as folder,
        local_cluster(regions, wan="proxy", tls=False, keyspaces=words(regions)) as cluster,
    ):
        result = asyncio.run(Campaign(cluster, rng, Path(folder)).run(seconds))
    if as_json:
        document = msgspec.to_builtins(result) | {"valid": result.valid}
        click.echo(msgspec.json.encode(document).decode())
        return 0 if result.valid else 5
    done = ", ".join(f"{name} {count}" for name, count in result.done.items())
    faults = ", ".join(f"{name} {count}" for name, count in result.faults.items())
    click.echo(
        f"{'valid' if result.valid else 'INVALID'}: {result.operations} operations in "
        f"{result.seconds:.0f} s ({done}), faults: {faults or 'none'}"
    )
    for what in result.anomalies:
        click.echo(f"  {what}")
    return 0 if result.valid else 5


def _show(seed: int, failures: tuple[str, ...], *, as_json: bool) -> None:
    again = f"k2 check pool --seed {seed} --trace"
    if as_json:
        document = {"seed": seed, "failures": list(failures), "replay": again}
        click.echo(msgspec.json.encode(document).decode())
        return
    click.echo(f"seed {seed}: FAILED; again with: {again}")
    for what in failures:
        click.echo(f"  {what}")
