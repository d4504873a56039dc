"""`k2 demo`: the verb."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from bench.demo.simulated import plan as plans
from bench.machine import fdatasync_us
from bench.processes import BenchError
from k2store.cli.exits import Exit
from k2store.cli.verb import Verb, output
from k2store.errors import Rejected

if TYPE_CHECKING:
    from bench.demo.simulated.findings import Findings

UNLIMITED = "unlimited"
HISTORY = "history.k2h"


class Blocks(click.ParamType):  # type: ignore[type-arg] # generic in newer click only
    """A number of blocks, or ``unlimited``."""

    name = "blocks"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """The number; None without limit."""
        if value is None or isinstance(value, int):
            return value
        if value == UNLIMITED:
            return None
        if not str(value).isdecimal() or int(str(value)) < 1:
            self.fail(f"{value!r} is neither a number of blocks nor {UNLIMITED!r}", param, ctx)
        return int(str(value))


@click.command("demo", cls=Verb)
@click.option(
    "--trace",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Prompts to replay, JSON lines; without it a trace is made up.",
)
@click.option(
    "--regions",
    type=click.IntRange(1, plans.REGIONS_MAX),
    default=3,
    show_default=True,
    metavar="N",
    help="How many regions, at the real distances of cities.",
)
@click.option(
    "--workers-per-region",
    type=click.IntRange(1, plans.WORKERS_MAX),
    default=2,
    show_default=True,
    metavar="N",
    help="Worker processes of each region.",
)
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many prompts, from the beginning of the trace; by default as many as come in "
    f"{plans.REPLAY_S:g} s.",
)
@click.option(
    "--pool-blocks",
    type=Blocks(),
    default=plans.POOL_BLOCKS,
    show_default=True,
    metavar="N",
    help=f"Blocks that a worker has room for, or {UNLIMITED}.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True, max=plans.SPEED_MAX),
    metavar="X",
    help="How many times as fast as recorded; by default "
    f"{plans.RATE_PER_S_MAX:g} prompts come in a second, fewer where the disk syncs slowly.",
)
@click.option("--faults", is_flag=True, help="Kill workers and a leader, cut a region off.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a page with plots.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for nodes, logs and the history; it is kept.",
)
@click.option(
    "--wan",
    type=click.Choice(["auto", "namespaces", "proxy"]),
    default="proxy",
    show_default=True,
    help="How regions are kept apart: network namespaces (root), or a proxy.",
)
@click.option("--seed", type=int, default=0, metavar="N", help="Of the trace that is made up.")
def demo(
    *,
    file: Path | None,
    regions: int,
    workers_per_region: int,
    requests: int | None,
    pool_blocks: int | None,
    speed: float | None,
    faults: bool,
    report: Path | None,
    data: Path | None,
    wan: Literal["auto", "namespaces", "proxy"],
    seed: int,
) -> None:
    """Serve the prompts of a trace over regions, by routers and workers that share one directory.

    Nodes, routers and workers are processes; regions are as far apart as the real ones; prefills are
    simulated by a stated cost model. In the end learners are compared with the store, and a checker
    judges what every process was told. Exit code 5 if that finds anything, 1 if a process died that
    nobody killed on purpose.
    """
    prompts = plans.prompts(file, requests, seed)
    if speed is None:
        with tempfile.TemporaryDirectory(prefix="k2-demo-") as probe:
            rate_per_s = plans.rate_for(fdatasync_us(Path(probe))[0] / 1e6)
        if requests is None:
            prompts = prompts[: int(rate_per_s * plans.REPLAY_S)]
        speed = plans.speed_for(prompts, rate_per_s)
    elif requests is None:
        prompts = plans.in_time(prompts, speed)
    plan = plans.Plan(
        requests=prompts,
        trace=None if file is None else str(file),
        regions=plans.ORDER[:regions],
        workers_per_region=workers_per_region,
        pool_blocks=pool_blocks,
        pool_slots=plans.slots_for(prompts, pool_blocks),
        speed=speed,
        faults=faults,
        wan=wan,
        seed=seed,
    )
    with ExitStack() as stack:
        if data is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="k2-demo-")))
        else:
            folder = data.resolve()
            if folder.exists() and any(folder.iterdir()):
                raise Rejected(f"{folder} is not empty", field="data")
            folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_ended_like_ctrl_c())
        try:
            found = _run(plan, folder, report, keep=data is not None)
        except BenchError as error:
            raise click.ClickException(str(error)) from None
    ctx = click.get_current_context()
    if not found.sound:
        ctx.exit(Exit.INVALID)
    if found.incidents or found.failed:
        ctx.exit(Exit.FAILED)


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """A request to end (SIGTERM) ends every process, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(plan: plans.Plan, folder: Path, report: Path | None, *, keep: bool) -> Findings:
    from bench.demo.simulated.conductor import Conductor
    from bench.demo.simulated.findings import document, find
    from bench.demo.judging import judge
    from bench.demo.live import shown, summary
    from bench.demo.simulated.page import page
    from bench.demo.simulated.scene import cluster

    told = output()
    with shown(told) as live:
        live.stage("regions start")
        with cluster(plan, folder) as regions:
            conductor = Conductor(plan, regions, folder, live.say)
            live.watch(conductor)
            raw = asyncio.run(conductor.run())
            live.watch(None)
            live.stage("regions end")
        live.stage("the history is judged")
        judgement = judge(raw.notes, folder / HISTORY if keep else None)
        found = find(plan, raw, judgement, machine_load=os.getloadavg()[0])
    if report is not None:
        report.write_text(page(plan, raw, found), encoding="utf-8")
        told.note(f"report: {report}")
    if told.as_json:
        told.document(document(plan, found), "")
    else:
        summary(told, plan, found)
    return found
