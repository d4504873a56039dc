"""`k2 check cluster`: regions of real node processes under faults."""

from __future__ import annotations

import asyncio
import collections
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from jepsen_like.nemesis.schedule import Schedule
    from jepsen_like.regions import Result


@click.command()
@click.option("--runs", default=1, show_default=True, type=click.IntRange(1), help="How many runs.")
@click.option(
    "--seconds", default=60.0, show_default=True, type=click.FloatRange(10), help="Of load, a run."
)
@click.option(
    "--nodes",
    default=9,
    show_default=True,
    type=click.IntRange(3, 9),
    help="Nodes in all, as many in each of three regions.",
)
@click.option(
    "--clients", default=2, show_default=True, type=click.IntRange(1), help="Clients a region."
)
@click.option(
    "--schedule",
    "schedule_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The faults, as `k2 check replay` takes them; drawn from the seed otherwise.",
)
@click.option(
    "--kinds", help="Kinds of faults to draw from, with commas; all that are known otherwise."
)
@click.option("--seed", type=int, help="Of the faults; a random one otherwise.")
@click.option(
    "--violations",
    is_flag=True,
    help="Clocks may leave their bound: then durability is judged, and not order.",
)
@click.option(
    "--record",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the record, schedule and logs of each run; see `k2 check report`.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where the nodes' disks lie, as images; in memory otherwise.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a run, and the sum.")
@click.pass_context
def cluster(
    ctx: click.Context,
    runs: int,
    seconds: float,
    nodes: int,
    clients: int,
    schedule_file: Path | None,
    kinds: str | None,
    seed: int | None,
    *,
    violations: bool,
    record: Path | None,
    images: Path | None,
    as_json: bool,
) -> None:
    """Load three regions of real nodes, let everything go wrong, and judge what clients saw.

    Nodes are processes with mutual TLS on an emulated network, each with a disk whose power can be
    cut and a clock that can be wrong (as root; elsewhere with a proxy, and without what that cannot
    do). Exit status: 0 when every run is valid, 5 otherwise.
    """
    import msgspec

    from jepsen_like.nemesis.drivers import DRIVERS
    from jepsen_like.nemesis.schedule import BadSchedule, read
    from jepsen_like.regions.run import Wanted, run

    given: Schedule | None = None
    if schedule_file is not None:
        try:
            given = read(schedule_file)
        except BadSchedule as error:
            raise click.BadParameter(str(error), param_hint="--schedule") from error
    wanted_kinds = tuple(sorted(DRIVERS)) if kinds is None else tuple(kinds.split(","))
    if unknown := sorted(set(wanted_kinds) - set(DRIVERS)):
        raise click.BadParameter(
            f"no such faults: {', '.join(unknown)}; there are {', '.join(sorted(DRIVERS))}",
            param_hint="--kinds",
        )
    seed = Random().getrandbits(32) if seed is None else seed
    rng = Random(seed)
    results: list[Result] = []
    for number in range(runs):
        wanted = Wanted(
            seed=rng.getrandbits(32),
            seconds=seconds,
            nodes=nodes,
            clients=clients,
            kinds=wanted_kinds,
            honest=not violations,
            schedule=given,
            images=images,
            record=None if record is None else record / f"run-{number + 1}",
        )
        result = asyncio.run(run(wanted))
        results.append(result)
        if as_json:
            document = msgspec.to_builtins(result) | {"valid": result.valid}
            click.echo(msgspec.json.encode(document).decode())
        else:
            _tell(result)
    if as_json:
        click.echo(msgspec.json.encode(_sum(results, seed)).decode())
    ctx.exit(0 if all(result.valid for result in results) else 5)


def _tell(result: Result) -> None:
    faults = ", ".join(f"{name} {count}" for name, count in result.faults.items())
    click.echo(
        f"{'valid' if result.valid else 'INVALID'}: {result.commits} commits in "
        f"{result.seconds:.0f} s ({result.txn_per_s:.0f}/s), writes everywhere again after "
        f"{result.recovery_s:.1f} s, {result.leader_changes} changes of leaders; "
        f"faults: {faults or 'none'} (seed {result.seed})"
    )
    for name, why in result.skipped_faults.items():
        click.echo(f"  skipped {name}: {why}")
    for what in (*result.anomalies, *result.flaws):
        click.echo(f"  {what}")


def _sum(results: list[Result], seed: int) -> dict[str, object]:
    """The last object: all runs together."""
    recoveries = sorted(result.recovery_s for result in results)
    faults = collections.Counter[str]()
    for result in results:
        faults.update(result.faults)
    seconds = sum(result.seconds for result in results)
    return {
        "runs": len(results),
        "transactions": sum(result.transactions for result in results),
        "commits": sum(result.commits for result in results),
        "txn_per_s": round(sum(result.commits for result in results) / seconds, 1),
        "faults": sum(faults.values()),
        "fault_kinds": dict(sorted(faults.items())),
        "valid": all(result.valid for result in results),
        "recovery_s_p99": recoveries[min(len(recoveries) - 1, len(recoveries) * 99 // 100)],
        "leader_changes": sum(result.leader_changes for result in results),
        "unknown": sum(result.unknown for result in results),
        "stalls": sum(result.stalls for result in results),
        "stall_s_max": max(result.stall_s_max for result in results),
        "seed": seed,
    }
