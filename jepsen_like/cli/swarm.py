"""`k2 check swarm`: seeds of the simulator for as long as there is time."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from jepsen_like.sim.plan import Load
    from jepsen_like.swarm.campaign import Report
    from jepsen_like.swarm.crew import Stuck, Task
    from jepsen_like.swarm.worker import Answer

KINDS = ("node", "slow", "cluster", "ambush", "liars", "contested")
"""As `jepsen_like.swarm.worker` has them; naming them here keeps the simulator out of every start."""


@click.command()
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="For how long.")
@click.option("--seeds", type=click.IntRange(1), help="How many seeds, instead or at most.")
@click.option("--first", type=click.IntRange(0), help="The first seed (default: by the ledger).")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Processes.")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    help="Only plans of this kind (default: a mixture of all).",
)
@click.option(
    "--ledger",
    "ledger_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file to which a line a seed is added, and from which seeds are numbered on.",
)
@click.option(
    "--record",
    "record_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file to which a line for this swarm is added, and from which seeds are numbered on.",
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
    record_path: Path | None,
    *,
    as_json: bool,
) -> None:
    """Run the real store on simulated machines under faults, seed after seed.

    One seed in fifty is run again in a fresh process under another hash seed: its trace must be
    the same. A seed that does not come to an end counts as stuck.

    Exit status: 0 when every seed holds, 5 when one fails, is stuck or has two traces.
    """
    from importlib.metadata import version

    import msgspec

    from jepsen_like import swarm as swarms
    from jepsen_like.swarm.campaign import FIRST_SEED

    if minutes is None and seeds is None:
        raise click.UsageError("give --minutes or --seeds")

    def told(task: Task, came: Answer | Stuck) -> None:
        failures = _failures(came)
        if not failures:
            return
        again = f"k2 check replay {task.seed} --kind {task.kind}"
        if as_json:
            document = {"kind": task.kind, "seed": task.seed, "failures": failures, "replay": again}
            click.echo(msgspec.json.encode(document).decode())
        else:
            click.echo(f"{task.kind} seed {task.seed}: FAILED; again with: {again}")
            for what in failures:
                click.echo(f"  {what}")

    record = None if record_path is None else swarms.Record(record_path)
    if first is None and record is not None:
        first = record.next_seed(FIRST_SEED)
    report = swarms.swarm(
        minutes=minutes or 0.0,
        seeds=seeds or 0,
        jobs=jobs,
        ledger=swarms.Ledger(ledger_path),
        first=first,
        kinds=KINDS if kind is None else (kind,),
        told=told,
    )
    if record is not None:
        record.add(report.run(version("k2store")))
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


_KIND = click.option(
    "--kind",
    default="node",
    show_default=True,
    type=click.Choice(KINDS),
    help="The kind of plan; a swarm says it with the seed.",
)
_SCHEDULE = click.option(
    "--schedule",
    "schedule_path",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="What goes wrong, from this file instead of from the seed.",
)


def _plan(kind: str, seed: int, schedule_path: Path | None) -> Load:
    from jepsen_like.nemesis import BadSchedule, read
    from jepsen_like.sim.scheduled import with_schedule
    from jepsen_like.swarm.worker import plan_of

    plan = plan_of(kind, seed)
    if schedule_path is None:
        return plan
    try:
        return with_schedule(plan, read(schedule_path))
    except BadSchedule as error:
        raise click.BadParameter(str(error), param_hint="--schedule") from error


@click.command()
@click.argument("seed", type=click.IntRange(0))
@_KIND
@_SCHEDULE
@click.option(
    "--write",
    "written",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what goes wrong to this file, and run nothing.",
)
@click.option(
    "--trace",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Write every event to this file.",
)
@click.pass_context
def replay(
    ctx: click.Context,
    seed: int,
    kind: str,
    schedule_path: Path | None,
    written: Path | None,
    trace: Path | None,
) -> None:
    """Run one seed again, tell its faults as they took effect, and judge it.

    Exit status: 0 when it holds, 5 when not, 2 for a schedule that does not fit.
    """
    from jepsen_like.nemesis import write
    from jepsen_like.sim.scheduled import schedule_of
    from jepsen_like.swarm.worker import played

    plan = _plan(kind, seed, schedule_path)
    if written is not None:
        written.write_bytes(write(schedule_of(plan)))
        return
    with contextlib.ExitStack() as stack:
        sink = None if trace is None else stack.enter_context(click.open_file(str(trace), "w"))
        result = played(plan, sink)
    click.echo(f"workloads {', '.join(plan.workloads)}; {len(plan.clients)} clients")
    for fault in plan.schedule:
        where = fault.target or " ".join("-".join(pair) for pair in fault.pairs)
        when = f", when {fault.when}" if fault.when else ""
        begins = f"{fault.at_ns / 1e9:8.3f} s{when}"
        click.echo(f"  {begins}  {fault.name} {where} {fault.for_ns / 1e9:.3f} s")
    took = ", ".join(f"{name} {count}" for name, count in sorted(result.fault_kinds.items()))
    click.echo(f"took effect: {took or 'nothing'}")
    click.echo(f"{result.commits} commits, {result.conflicts} conflicts; trace {result.trace}")
    for what in result.failures:
        click.echo(f"FAILED: {what}")
    ctx.exit(5 if result.failures else 0)


@click.command()
@click.argument("seed", type=click.IntRange(0))
@_KIND
@_SCHEDULE
def shrink(seed: int, kind: str, schedule_path: Path | None) -> None:
    """Leave out faults of a failing seed that do not matter, and print the schedule that is left."""
    from jepsen_like.nemesis import write
    from jepsen_like.sim.scene import without
    from jepsen_like.sim.scheduled import schedule_of
    from jepsen_like.sim.swarm import shortest
    from jepsen_like.swarm.worker import played

    def tried(count: int, failed: bool) -> None:  # noqa: FBT001 - the caller's signature
        click.echo(f"with {count} faults it {'fails' if failed else 'holds'}", err=True)

    plan = _plan(kind, seed, schedule_path)
    try:
        left = shortest(plan, played, tried=tried)
    except ValueError:
        raise click.ClickException(f"seed {seed} holds: there is nothing to shorten") from None
    click.echo(write(schedule_of(without(plan, left))).decode(), nl=False)
