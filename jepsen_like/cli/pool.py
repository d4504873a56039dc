"""`k2 check pool`: the pool's sessions and transactions under faults, judged from outside."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from jepsen_like.pool.campaign import Result
    from jepsen_like.sim.swarm import Summary


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
    help="Run for so long on three regions of real processes, instead of seeds.",
)
@click.option(
    "--runs", type=click.IntRange(1), help="With --processes: so many runs, each on a new cluster."
)
@click.option(
    "--record",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --processes: a folder for the history, logs and data of each run.",
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
    runs: int | None,
    record: Path | None,
    *,
    as_json: bool,
) -> None:
    """Run workers and routers of a pool on simulated regions under faults, and judge what they were told.

    Nothing handed out may be gone, nothing claimed be evicted, no copy be lost in a move, nothing be left over;
    bytes read under a claim are those that were claimed; learners equal a scan of the store at their stamp.
    With --processes workers are killed and stopped, nodes and leaders killed, stopped and paused, and regions
    cut off for real; a run fails as well when a fault left no evidence, or too little happened to prove anything.

    Exit status: 0 when all hold, 5 when any fails, 2 for a usage error.
    """
    from jepsen_like.cli.sim import numbers_of
    from jepsen_like.pool import swarm
    from jepsen_like.pool.scene import run

    if seconds is not None:
        if seeds is not None:
            raise click.UsageError("either --seeds or --processes")
        ctx.exit(_processes(seconds, runs or 1, seed, record, as_json=as_json))
    if runs is not None or record is not None:
        raise click.UsageError("--runs and --record need --processes")
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
            _show(summary, as_json=as_json)
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


def _processes(
    wanted: float, runs: int, seed: int | None, record: Path | None, *, as_json: bool
) -> int:
    from random import Random

    chance = Random(seed)
    results: list[Result] = []
    for number in range(1, runs + 1):
        drawn = chance.getrandbits(32) if seed is None or runs > 1 else seed
        result = _campaign(wanted, drawn, None if record is None else record / f"run-{number}")
        results.append(result)
        if as_json:
            document = msgspec.to_builtins(result) | {"valid": result.valid}
            click.echo(msgspec.json.encode(document).decode())
            continue
        done = ", ".join(f"{name} {count}" for name, count in result.done.items())
        faults = ", ".join(f"{name} {count}" for name, count in result.faults.items())
        click.echo(
            f"{'valid' if result.valid else 'INVALID'}: {result.operations} operations in "
            f"{result.seconds:.0f} s ({done}), {result.reads} reads under claims, {result.compared} "
            f"comparisons of learners, equal again {result.agreed_s_max:.1f} s after a fault at most; "
            f"faults: {faults or 'none'} (seed {result.seed})"
        )
        for what in (*result.anomalies, *result.flaws):
            click.echo(f"  {what}")
    return 0 if all(result.valid for result in results) else 5


def _campaign(seconds: float, seed: int, record: Path | None) -> Result:
    """One run on a cluster of its own; with `record` its history and logs are kept there."""
    import asyncio
    import shutil
    import tempfile
    from random import Random

    from jepsen_like.pool.campaign import Campaign, words
    from k2store.testing.cluster import local_cluster

    regions = ("fra", "iad", "sin")
    with tempfile.TemporaryDirectory(prefix="k2-check-pool-") as made:
        folder = Path(made)
        with local_cluster(
            regions, wan="proxy", tls=False, path=folder / "nodes", keyspaces=words(regions)
        ) as cluster:
            result = asyncio.run(Campaign(cluster, Random(seed), folder).run(seconds))
        result.seed = seed
        if record is not None:
            shutil.rmtree(record, ignore_errors=True)
            shutil.copytree(folder, record)
    return result


def _show(summary: Summary, *, as_json: bool) -> None:
    from jepsen_like.pool.swarm import is_vacuous

    again = f"k2 check pool --seed {summary.seed} --trace"
    if as_json:
        document = {"seed": summary.seed, "failures": list(summary.failures), "replay": again}
        click.echo(msgspec.json.encode(document).decode())
        return
    word = "proved nothing" if is_vacuous(summary) else "FAILED"
    click.echo(f"seed {summary.seed}: {word}; again with: {again}")
    for what in summary.failures:
        click.echo(f"  {what}")
