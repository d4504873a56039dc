"""`k2 check sim`: the real store under the simulator, seed by seed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from jepsen_like.sim.swarm import Report, Summary


@click.command()
@click.option("--seeds", metavar="A..B", help="Run the seeds from A to B, both included.")
@click.option("--seed", type=click.IntRange(0), help="Run one seed.")
@click.option("--cluster", is_flag=True, help="Run regions of nodes instead of one node.")
@click.option("--workload", "only", multiple=True, metavar="NAME", help="Run only these workloads.")
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
    "--shrink", is_flag=True, help="Leave out faults of failing seeds that do not matter."
)
@click.option(
    "--determinism",
    default=0,
    metavar="N",
    type=click.IntRange(0),
    help="Run the first N seeds again in another process and compare the traces.",
)
@click.option(
    "--violate-clock",
    is_flag=True,
    help="Let clocks leave their bound: the checks should notice.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a failing seed, and the sum."
)
@click.pass_context
def sim(
    ctx: click.Context,
    seeds: str | None,
    seed: int | None,
    only: tuple[str, ...],
    jobs: int,
    trace: Path | None,
    *,
    cluster: bool,
    shrink: bool,
    determinism: int,
    violate_clock: bool,
    as_json: bool,
) -> None:
    """Run the real node and client on simulated machines under faults, and judge what they did.

    With --cluster they are regions of nodes with replicated logs, 40 to 100 ms apart. Clocks that
    leave their bound are then noticed by the other nodes, and nothing acknowledged may be lost.

    Exit status: 0 when all seeds hold, 5 when any fails, 2 for a usage error.
    """
    from jepsen_like.workloads import WORKLOADS

    unknown = sorted(set(only) - set(WORKLOADS))
    if unknown:
        offered = ", ".join(sorted(WORKLOADS))
        raise click.BadParameter(f"{unknown[0]} is none of {offered}", param_hint="--workload")
    numbers = numbers_of(seeds, seed)
    if trace is not None:
        if seed is None:
            raise click.UsageError("--trace needs --seed")
        ctx.exit(_trace(seed, only, trace, honest=not violate_clock, cluster=cluster))
    summaries, seconds = _run(
        numbers, only, jobs, honest=not violate_clock, cluster=cluster, quiet=as_json
    )
    failed = [summary for summary in summaries if summary.failures]
    for summary in failed:
        _show(summary, only, as_json=as_json, violated=violate_clock, cluster=cluster)
        if shrink and not violate_clock:
            _shrink(summary.seed, only, as_json=as_json, cluster=cluster)
    differing = _compare(numbers[:determinism], only, as_json=as_json, cluster=cluster)
    _sum(
        summaries,
        seconds,
        as_json=as_json,
        violated=violate_clock,
        differing=differing,
        cluster=cluster,
    )
    if violate_clock and not cluster:
        ctx.exit(0 if any(summary.anomalies for summary in failed) else 5)
    ctx.exit(5 if failed or differing else 0)


def numbers_of(seeds: str | None, seed: int | None) -> list[int]:
    """The seeds that the options name."""
    if (seeds is None) == (seed is None):
        raise click.UsageError("give either --seeds A..B or --seed N")
    if seed is not None:
        return [seed]
    assert seeds is not None
    first, dots, last = seeds.partition("..")
    if not (first.isdecimal() and (last.isdecimal() if dots else not last)):
        raise click.BadParameter(f"{seeds!r} is not A..B", param_hint="--seeds")
    found = list(range(int(first), int(last if dots else first) + 1))
    if not found:
        raise click.BadParameter(f"{seeds!r} is empty", param_hint="--seeds")
    return found


def _run(
    numbers: list[int],
    only: tuple[str, ...],
    jobs: int,
    *,
    honest: bool,
    cluster: bool,
    quiet: bool,
) -> tuple[list[Summary], float]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from jepsen_like.sim.swarm import each

    began_s = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), disable=quiet, transient=True
    )
    summaries: list[Summary] = []
    with bar:
        task = bar.add_task("seeds", total=len(numbers))
        for summary in each(numbers, only, jobs=jobs, honest=honest, cluster=cluster):
            summaries.append(summary)
            failures = sum(bool(one.failures) for one in summaries)
            bar.update(task, advance=1, description=f"seeds, {failures} failed")
    summaries.sort(key=lambda summary: summary.seed)
    return summaries, time.perf_counter() - began_s


def _replay(seed: int, only: tuple[str, ...], *, violated: bool, cluster: bool) -> str:
    options = " --cluster" if cluster else ""
    options += "".join(f" --workload {name}" for name in only)
    options += " --violate-clock" if violated else ""
    return f"k2 check sim --seed {seed}{options} --trace"


def _show(
    summary: Summary, only: tuple[str, ...], *, as_json: bool, violated: bool, cluster: bool
) -> None:
    replay = _replay(summary.seed, only, violated=violated, cluster=cluster)
    if as_json:
        document = {
            "seed": summary.seed,
            "failures": list(summary.failures),
            "anomalies": list(summary.anomalies),
            "trace": summary.trace,
            "replay": replay,
        }
        click.echo(msgspec.json.encode(document).decode())
        return
    click.echo(f"seed {summary.seed}: FAILED; again with: {replay}")
    for what in summary.failures:
        click.echo(f"  {what}")


def _shrink(seed: int, only: tuple[str, ...], *, as_json: bool, cluster: bool) -> None:
    from jepsen_like.sim import cluster as clusters
    from jepsen_like.sim import draw
    from jepsen_like.sim.swarm import shortest
    from jepsen_like.swarm.worker import played
    from k2store.testing.simulation import encode

    try:
        left = shortest(clusters.draw(seed, only) if cluster else draw(seed, only), played)
    except ValueError:
        click.echo(f"seed {seed} fails for lack of events only; nothing to shorten", err=True)
        return
    text = encode(left).decode()
    if as_json:
        click.echo(msgspec.json.encode({"seed": seed, "faults": left}).decode())
    else:
        click.echo(f"  {len(left)} faults are enough:\n{text}")


def _compare(numbers: list[int], only: tuple[str, ...], *, as_json: bool, cluster: bool) -> int:
    if not numbers:
        return 0
    from jepsen_like.sim.swarm import canary

    differing = canary(numbers, only, cluster=cluster)
    for seed, (here, there) in differing.items():
        click.echo(f"seed {seed}: traces differ between processes, {here} and {there}", err=True)
    if not as_json and not differing:
        click.echo(f"traces of {len(numbers)} seeds are the same in another process")
    return len(differing)


def _trace(seed: int, only: tuple[str, ...], to: Path, *, honest: bool, cluster: bool) -> int:
    from jepsen_like.sim import cluster as clusters
    from jepsen_like.sim import run

    with click.open_file(str(to), "w") as sink:
        play = clusters.run if cluster else run
        result = play(seed, only, trace_sink=sink, honest=honest)
    click.echo(f"trace {result.trace}", err=True)
    for what in result.failures:
        click.echo(f"  {what}", err=True)
    return 5 if result.failures else 0


def _sum(
    summaries: list[Summary],
    seconds: float,
    *,
    as_json: bool,
    violated: bool,
    differing: int,
    cluster: bool,
) -> None:
    from jepsen_like.sim.swarm import ALL_PROBES, CLUSTER_ALL_PROBES, summed

    report: Report = summed(summaries, seconds, CLUSTER_ALL_PROBES if cluster else ALL_PROBES)
    if as_json:
        document = msgspec.to_builtins(report) | {"violated_clock": violated}
        document["traces_differ"] = differing
        click.echo(msgspec.json.encode(document).decode())
        return
    click.echo(
        f"{report.seeds} seeds, {report.transactions} transactions ({report.commits} commits, "
        f"{report.conflicts} conflicts, {report.unknown_outcomes} unknown outcomes), "
        f"{report.faults} faults of {len(report.fault_kinds)} kinds, "
        f"{report.virtual_hours:.2f} virtual hours in {report.seconds:.1f} s"
    )
    hit, all_ = report.probes_hit, report.probes_hit + len(report.probes_missed)
    click.echo(f"{hit} of {all_} probes reached")
    if violated:
        noticed = sum(bool(summary.anomalies) for summary in summaries)
        if cluster:
            fenced = sum(summary.probes["cluster.clock_fenced"] > 0 for summary in summaries)
            click.echo(f"nodes noticed it in {fenced} seeds, {report.failures} seeds failed")
        click.echo(f"clocks outside their bound were noticed in {noticed} of {report.seeds} seeds")
    else:
        click.echo(f"{report.failures} seeds failed, {report.anomalies} anomalies")
