"""`k2 check swarm`: seeds of the simulator for as long as there is time."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from jepsen_like.swarm.campaign import Report
    from jepsen_like.swarm.crew import Stuck, Task
    from jepsen_like.swarm.worker import Answer


@click.command()
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="For how long.")
@click.option("--seeds", type=click.IntRange(1), help="How many seeds, instead or at most.")
@click.option("--first", type=click.IntRange(0), help="The first seed (default: by the ledger).")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Processes.")
@click.option(
    "--kind",
    type=click.Choice(["node", "cluster"]),
    help="Only plans of one node, or of clusters (default: both).",
)
@click.option(
    "--ledger",
    "ledger_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file to which a line a seed is added, and from which seeds are numbered on.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a failing seed, and the sum."
)
@click.pass_context
def swarm(
    ctx: click.Context,
    minutes: float | None,
    seeds: int | None,
    first: int | None,
    jobs: int,
    kind: str | None,
    ledger_path: Path | None,
    *,
    as_json: bool,
) -> None:
    """Run the real store on simulated machines under faults, seed after seed.

    One seed in fifty is run again in a fresh process under another hash seed: its trace must be
    the same. A seed that does not come to an end counts as stuck.

    Exit status: 0 when every seed holds, 5 when one fails, is stuck or has two traces.
    """
    import msgspec

    from jepsen_like import swarm as swarms
    from jepsen_like.swarm.worker import CLUSTER, KINDS, length_of

    if minutes is None and seeds is None:
        raise click.UsageError("give --minutes or --seeds")

    def told(task: Task, came: Answer | Stuck) -> None:
        failures = _failures(came)
        if not failures:
            return
        length = length_of(task.kind, task.seed)
        again = f"k2 check replay {task.seed}" + (
            " --cluster" if task.kind == CLUSTER else f" --length {length}" if length > 1 else ""
        )
        if as_json:
            document = {"kind": task.kind, "seed": task.seed, "failures": failures, "replay": again}
            click.echo(msgspec.json.encode(document).decode())
        else:
            click.echo(f"{task.kind} seed {task.seed}: FAILED; again with: {again}")
            for what in failures:
                click.echo(f"  {what}")

    report = swarms.swarm(
        minutes=minutes or 0.0,
        seeds=seeds or 0,
        jobs=jobs,
        ledger=swarms.Ledger(ledger_path),
        first=first,
        kinds=KINDS if kind is None else (kind,),
        told=told,
    )
    click.echo(msgspec.json.encode(report).decode() if as_json else _sentences(report))
    ctx.exit(0 if report.holds else 5)


def _failures(came: Answer | Stuck) -> list[str]:
    from jepsen_like.swarm.campaign import vacuous
    from jepsen_like.swarm.crew import Stuck

    if isinstance(came, Stuck):
        return [came.what]
    return [] if vacuous(came.summary) else list(came.summary.failures)


def _sentences(report: Report) -> str:
    lines = [
        f"{report.seeds} seeds from {report.first_seed} on, in {report.seconds:.0f} s",
        f"{report.transactions} transactions, {report.commits} commits",
        f"{report.virtual_hours:.2f} virtual hours under load",
        f"{sum(report.fault_kinds.values())} faults of {len(report.fault_kinds)} kinds",
        f"{report.probes_hit} of {report.probes_declared} probes hit",
        f"{len(report.failed_seeds)} seeds failed with {report.anomalies} anomalies",
        f"{len(report.stuck_seeds)} seeds were stuck",
        f"{len(report.vacuous_seeds)} seeds were vacuous and count for nothing",
        f"{report.trace_mismatches} of {report.canaries} second runs had another trace",
    ]
    if report.probes_missed:
        lines.append(f"not hit: {', '.join(report.probes_missed)}")
    return "\n".join(lines)


@click.command()
@click.argument("seed", type=click.IntRange(0))
@click.option("--cluster", is_flag=True, help="A seed of regions of nodes.")
@click.option(
    "--length",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="How many times as long; a swarm says it with the seed.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Write every event to this file.",
)
@click.pass_context
def replay(
    ctx: click.Context, seed: int, length: int, trace: Path | None, *, cluster: bool
) -> None:
    """Run one seed again, tell its faults as they took effect, and judge it.

    Exit status: 0 when it holds, 5 when not.
    """
    from jepsen_like.sim import cluster as clusters
    from jepsen_like.sim import draw, run

    with contextlib.ExitStack() as stack:
        sink = None if trace is None else stack.enter_context(click.open_file(str(trace), "w"))
        if cluster:
            result = clusters.run(seed, trace_sink=sink)
        else:
            result = run(seed, plan=draw(seed, length=length), trace_sink=sink)
    plan = result.plan
    click.echo(f"workloads {', '.join(plan.workloads)}; {len(plan.clients)} clients")
    for fault in plan.schedule:
        where = fault.target or " ".join("-".join(pair) for pair in fault.pairs)
        click.echo(f"  {fault.at_ns / 1e9:8.3f} s  {fault.name} {where} {fault.for_ns / 1e9:.3f} s")
    took = ", ".join(f"{name} {count}" for name, count in sorted(result.fault_kinds.items()))
    click.echo(f"took effect: {took or 'nothing'}")
    click.echo(f"{result.commits} commits, {result.conflicts} conflicts; trace {result.trace}")
    for what in result.failures:
        click.echo(f"FAILED: {what}")
    ctx.exit(5 if result.failures else 0)


@click.command()
@click.argument("seed", type=click.IntRange(0))
@click.option("--cluster", is_flag=True, help="A seed of regions of nodes.")
@click.option(
    "--length",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="How many times as long; a swarm says it with the seed.",
)
def shrink(seed: int, length: int, *, cluster: bool) -> None:
    """Leave out faults of a failing seed that do not matter, and print those that are left."""
    from jepsen_like.sim.swarm import shortest
    from k2store.testing.simulation import encode

    def tried(count: int, failed: bool) -> None:  # noqa: FBT001 - the caller's signature
        click.echo(f"with {count} faults it {'fails' if failed else 'holds'}", err=True)

    try:
        left = shortest(seed, tried=tried, cluster=cluster, length=length)
    except ValueError:
        raise click.ClickException(f"seed {seed} holds: there is nothing to shorten") from None
    click.echo(encode(left).decode())
