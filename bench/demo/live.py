"""What is shown of a run: a live table on a terminal, lines elsewhere, and a summary in the end."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from bench.demo.simulated.causes import CAUSES

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bench.demo.simulated.conductor import Conductor
    from bench.demo.simulated.findings import Findings
    from bench.demo.simulated.plan import Plan
    from bench.samples import Spread
    from k2store.cli.output import Output

REFRESH_PER_S: Final = 4
LINE_S: Final = 5.0
EVENTS_MAX: Final = 8


class Live:
    """What is known to whoever draws; made by `shown`."""

    def __init__(self, told: Output, *, drawn: bool) -> None:
        self._told = told
        self._drawn = drawn
        self._began_s = time.monotonic()
        self._stage = ""
        self._conductor: Conductor | None = None
        self.events: deque[str] = deque(maxlen=EVENTS_MAX)

    def say(self, text: str) -> None:
        """Something happened."""
        self.events.append(text)
        if not self._drawn:
            self._told.note(text)

    def stage(self, text: str) -> None:
        """What is going on now."""
        self._stage = text
        if not self._drawn:
            self._told.note(text)

    def watch(self, conductor: Conductor | None) -> None:
        """From now on, what a conductor says; None for no longer."""
        self._conductor = conductor

    def line(self) -> str:
        """The state in a line; empty where there is nothing to tell yet."""
        conductor = self._conductor
        if conductor is None or not conductor.replay_began_ns:
            return ""
        tallies = conductor.tallies.values()
        requests = sum([one.requests for one in tallies])
        references = sum([one.references for one in tallies])
        stalest_s = max(conductor.staleness_s(), default=0.0)
        return (
            f"{requests} of {len(conductor.plan.requests)} prompts, "
            f"hits {share(sum([one.hits for one in tallies]), references)}, "
            f"learners lag by {stalest_s * 1000:.0f} ms at most"
        )

    def render(self) -> RenderableType:
        """The state as a table."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        conductor = self._conductor
        stage = self._stage if conductor is None else conductor.stage
        elapsed_s = time.monotonic() - self._began_s
        parts: list[RenderableType] = [Text(f"k2 demo · {stage} · {elapsed_s:.0f} s", "bold")]
        if conductor is not None:
            total = len(conductor.plan.requests)
            done = sum([one.requests for one in conductor.tallies.values()])
            parts += [ProgressBar(total=total, completed=done, width=60), _table(conductor)]
        parts += [Text(event, "dim") for event in self.events]
        return Group(*parts)


@contextlib.contextmanager
def shown(told: Output) -> Iterator[Live]:
    """Show a run while the block runs, unless nobody wants to see it."""
    drawn = not told.quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    live = Live(told, drawn=drawn)
    if told.quiet:
        yield live
    elif drawn:
        from rich.console import Console
        from rich.live import Live as Screen

        with Screen(
            console=Console(stderr=True),
            get_renderable=live.render,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
        ):
            yield live
        for event in live.events:
            told.note(event)
    else:
        with _lines(live, told):
            yield live


@contextlib.contextmanager
def _lines(live: Live, told: Output) -> Iterator[None]:
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(LINE_S):
            line = live.line()
            if line:
                told.note(line)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _table(conductor: Conductor) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = ("region", "prompts", "under way", "hits", "fetched", "phantoms", "rerouted")
    for name in (*columns, "workers", "lags by"):
        table.add_column(name, justify="left" if name == "region" else "right")
    for region, tally in conductor.tallies.items():
        seen = conductor.seen.get(region)
        live = 0
        if seen is not None:
            live = sum([live for name, (_, live) in seen.members.items() if _is_in(name, region)])
        table.add_row(
            region,
            str(tally.requests),
            "-" if seen is None else str(seen.waiting),
            share(tally.hits, tally.references),
            str(tally.fetched),
            str(tally.phantoms),
            str(tally.rerouted),
            f"{live}/{conductor.plan.workers_per_region}",
            "-" if seen is None else f"{seen.stale_s * 1000:.0f} ms",
        )
    return table


def _is_in(worker: str, region: str) -> bool:
    return worker.startswith(f"{region}/")


# ----------------------------------------------------------------------------------- summary


def summary(told: Output, plan: Plan, found: Findings) -> None:
    """The figures for people, a row a figure."""
    told.table("figures", ("figure", "value"), list(rows(plan, found)))


def rows(plan: Plan, found: Findings) -> Iterator[tuple[str, str]]:
    """Names and values of the figures that matter."""
    yield "trace", plan.trace or f"made up (seed {plan.seed})"
    yield (
        "prompts",
        (
            f"{found.served} served of {found.requests} in {found.elapsed_s:.1f} s, they came within "
            f"{plan.replay_s:.0f} s, "
            f"{plan.speed:.0f} times as fast as recorded"
        ),
    )
    yield "block references", f"{found.references:,}"
    yield (
        "hits",
        (
            f"{found.hits:,} ({share(found.hits, found.references)}); {found.local:,} where the prompt "
            f"went, {found.fetched:,} fetched, {found.fetched_far:,} of them from another region"
        ),
    )
    yield "hits, ideal", f"{found.ideal:,} ({share(found.ideal, found.references)})"
    for cause, blocks in sorted(found.causes.items(), key=lambda one: -one[1]):
        if blocks:
            yield "  computed again", f"{blocks:,}: {CAUSES[cause]}"
    yield (
        "phantoms",
        (
            f"{found.phantoms} claims found less than was believed, by {found.phantom_blocks} blocks; "
            f"{found.claims:,} were given"
        ),
    )
    yield "match", f"p50 {found.match.p50_ms * 1000:.0f} µs, p99 {found.match.p99_ms * 1000:.0f} µs"
    several = len(plan.regions) > 1
    far = f"; in another region {times(found.far_acquire)}" if several else ""
    yield "acquire", f"{times(found.acquire)}{far}"
    quicker = f"{found.publish_wan_round_trips} round trips between regions"
    publishes = f"{found.publishes:,} of {found.published_blocks:,} blocks, synced"
    yield "publish", f"{times(found.publish)}; {publishes}{f'; {quicker}' if several else ''}"
    if found.evicted_blocks or found.pinned_blocks:
        yield (
            "evicted",
            f"{found.evicted_blocks:,} blocks; {found.pinned_blocks} stayed since they were claimed",
        )
    yield (
        "staleness, as stated",
        f"{times(found.staleness)}; understated in {found.untrue} of {found.requests}",
    )
    yield "between regions", f"{found.wan_bytes / 1e6:.1f} MB on the wire"
    yield (
        "load",
        (
            f"accelerators (simulated) {100 * found.offered_load:.0f} % of their time"
            f"{', so queues grow' if found.offered_load > 1 else ''}; "
            f"this machine {found.machine_load:.1f} at the end"
        ),
    )
    yield "prefill, simulated", f"p50 {found.simulated_prefill_p50_s:.2f} s of the model's time"
    for fault in found.faults:
        yield (
            f"after {fault.kind}",
            (
                f"{fault.recovery_s:.1f} s; {fault.evidence}; "
                f"learners {'equal' if not fault.differences else 'DIFFER from'} the store "
                f"({fault.rows:,} rows, {fault.prompts} prompts)"
            ),
        )
    if any(fault.kind == "cut" for fault in found.faults):
        yield "published while cut off", f"{found.cut_publishes} publishes in the region that was"
    if found.rerouted or found.failed or found.broken:
        yield (
            "troubles",
            (
                f"{found.rerouted} tries moved to another worker, {found.broken} claims or fetches "
                f"failed, {found.failed} prompts unserved"
            ),
        )
    yield (
        "learners in the end",
        (
            f"{'equal' if not found.differences else 'DIFFER from'} the store "
            f"({found.compared_rows:,} rows, {found.compared_prompts} prompts)"
        ),
    )
    for difference in found.differences[:5]:
        yield "  difference", difference
    judgement = found.judgement
    yield (
        "checker",
        (
            f"{'valid' if judgement.valid else 'INVALID'}: {judgement.operations:,} operations of "
            f"all processes, {judgement.unknown} of unknown outcome"
        ),
    )
    for finding in judgement.findings:
        yield "  finding", finding
    for incident in found.incidents:
        yield "incident", incident


def times(spread: Spread) -> str:
    """Median and tail."""
    return f"p50 {spread.p50_ms:.1f} ms, p99 {spread.p99_ms:.1f} ms"


def share(part: int, whole: int) -> str:
    """A part in percent."""
    return f"{100 * part / whole:.1f} %" if whole else "-"
