"""The report of a run: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from bench.demo.simulated.causes import CAUSES
from bench.demo.live import rows, share, times
from bench.demo.plots import COLOURS, Band, Line, Point, bars, chart, distribution
from bench.demo.timeline import Publish, Timeline

if TYPE_CHECKING:
    from bench.demo.simulated.conductor import Raw
    from bench.demo.simulated.findings import Findings
    from bench.demo.simulated.plan import Plan

SLICE_S: Final = 1.0

_STYLE: Final = """
:root { color-scheme: light }
body { font: 15px/1.55 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 60rem;
  padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem }
.lead { color: #555; margin-top: 0 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem; margin: 1.2rem 0 }
.tile { border: 1px solid #ddd; border-radius: 6px; padding: .6rem .8rem }
.tile b { font-size: 1.35rem; display: block }
.tile span { color: #666; font-size: .85rem } .good b { color: #1f7a4d } .bad b { color: #b23a48 }
figure { margin: 1rem 0 1.4rem } figcaption { font-weight: 600; margin-bottom: .2rem }
svg { width: 100%; height: auto; max-width: 52rem } svg text { font: 11.5px system-ui, sans-serif; fill: #444 }
.end { text-anchor: end } .mid { text-anchor: middle } svg text.note { font-size: 10px; fill: #8a5a00 }
.grid { stroke: #e6e6e6 } .line { fill: none; stroke-width: 1.8 } .band { fill: #f6c667; opacity: .33 }
.key { margin-right: 1.1rem; font-size: .88rem } .key i { display: inline-block; width: .8rem; height: .8rem;
  border-radius: 2px; margin-right: .35rem; vertical-align: -1px }
table { border-collapse: collapse; margin: .6rem 0 } td, th { text-align: left; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid #e6e6e6; vertical-align: top } td.n, th.n { text-align: right }
.label { font-size: .75rem; border: 1px solid #bbb; border-radius: 3px; padding: 0 .3rem; color: #555 }
"""


def page(plan: Plan, raw: Raw, found: Findings) -> str:
    """The page."""
    timeline = Timeline(raw.notes)
    draw = _Drawing(plan, raw, found, timeline)
    trace = plan.trace or f"a made-up trace (seed {plan.seed})"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'><title>k2 demo</title>",
        f"<style>{_STYLE}</style><h1>k2 demo</h1>",
        (
            f"<p class=lead>{found.requests:,} prompts of {escape(trace)} over {len(plan.regions)} regions "
            f"({', '.join(plan.regions)}), {plan.workers_per_region} workers each with room for "
            f"{'every block' if plan.pool_blocks is None else f'{plan.pool_blocks:,} blocks'}; "
            f"{plan.speed:.0f} times as fast as recorded; policy {escape(plan.policy)}; regions kept apart "
            f"by {escape(raw.wan_kind)}; load of the machine at the end {found.machine_load:.1f}.</p>"
        ),
        _tiles(found),
        "<h2>Hits, and what is short of the ideal</h2>",
        (
            "<p>The ideal is an endless cache that knows everything at once: every block is computed once. "
            f"Here {found.ideal - found.hits:,} blocks more were computed. Each has one cause. "
            "<span class=label>counted</span></p>"
        ),
        draw.hits(),
        draw.causes(),
        "<h2>Latencies of the directory <span class=label>real</span></h2>",
        (
            f"<p>A publish is one transaction, synced, in the home region of its worker: {times(found.publish)}; "
            f"it takes {found.publish_wan_round_trips} round trips between regions (counted before prompts came), "
            f"and {100 * found.quicker_share:.1f} % took less time than any. A claim: "
            f"{times(found.acquire)}; one in another region: {times(found.far_acquire)}. All include the wait "
            "for the clock.</p>"
        ),
        draw.latencies(),
        "<h2>Staleness of the learners <span class=label>real</span></h2>",
        (
            f"<p>By how much each router's learner says to lag behind. Of {found.requests:,} matches "
            f"{found.untrue} said less than was true.</p>"
        ),
        draw.staleness(),
        draw.visibility(),
        "<h2>Work</h2>",
        draw.rate(),
        "<h2>Faults, and until all was well</h2>",
        draw.faults(),
        "<h2>Bytes between regions</h2>",
        draw.bytes(),
        "<h2>Verdict</h2>",
        draw.verdict(),
        "<h2>All figures</h2>",
        _table(("figure", "value"), rows(plan, found)),
        "<h2>How to read this</h2>",
        _notes(plan),
        "</html>",
    ]
    return "\n".join(parts)


class _Drawing:
    """The plots of one run, all over seconds since the first prompt was due."""

    def __init__(self, plan: Plan, raw: Raw, found: Findings, timeline: Timeline) -> None:
        self._plan = plan
        self._raw = raw
        self._found = found
        self._timeline = timeline
        self._colour = dict(zip(plan.regions, COLOURS, strict=False))
        self._zero_ns = min([one.arrived_ns for one in raw.outcomes], default=raw.began_ns)
        self._bands = [
            Band(fault.kind, self._s(fault.began_ns), self._s(fault.ended_ns or raw.ended_ns))
            for fault in raw.faults
        ]

    def hits(self) -> str:
        """Share of hits and the ideal one so far."""
        requests = self._plan.requests
        seen: set[int] = set()
        references = hits = ideal = 0
        mine: list[Point] = []
        best: list[Point] = []
        for one in sorted(self._raw.outcomes, key=lambda one: one.ended_ns):
            blocks = requests[one.number].hash_ids
            references += len(blocks)
            hits += one.local + one.fetched
            ideal += sum([block in seen for block in blocks])
            seen.update(blocks)
            at_s = self._s(one.ended_ns)
            mine.append((at_s, 100 * hits / references))
            best.append((at_s, 100 * ideal / references))
        return self._chart(
            [Line("hits", mine, COLOURS[0]), Line("ideal", best, COLOURS[8], dashed=True)],
            title="Blocks hit so far",
            up="% of references",
        )

    def causes(self) -> str:
        """Blocks that were computed again."""
        found = sorted(self._found.causes.items(), key=lambda one: -one[1])
        drawn = bars(
            [(cause, float(blocks), f"{blocks:,}") for cause, blocks in found],
            title="Blocks that were computed again, by cause",
            colour=COLOURS[1],
        )
        said = _table(("cause", "what it means"), [(cause, CAUSES[cause]) for cause, _ in found])
        return drawn + said

    def latencies(self) -> str:
        """Distributions."""
        took = {
            region: [
                (one.known_ns - one.asked_ns) / 1e6
                for one in self._timeline.publishes
                if _region(one) == region
            ]
            for region in self._plan.regions
        }
        lines = [
            distribution(f"publish in {region}", samples, self._colour[region])
            for region, samples in took.items()
            if samples
        ]
        for name, samples, colour in (
            ("acquire", self._raw.acquires_ns, COLOURS[7]),
            ("acquire in another region", self._raw.far_acquires_ns, COLOURS[8]),
        ):
            if samples:
                lines.append(distribution(name, [one / 1e6 for one in samples], colour))
        return chart(
            lines,
            title="How many took at most so long, faults included",
            across="ms",
            up="%",
            log=True,
            high=100.0,
        )

    def staleness(self) -> str:
        """What learners said."""
        lines = [
            Line(
                region,
                [
                    (self._s(at_ns), stale_s * 1000)
                    for at_ns, where, stale_s in self._raw.staleness
                    if where == region and at_ns >= self._zero_ns
                ],
                self._colour[region],
            )
            for region in self._plan.regions
        ]
        return self._chart(lines, title="Stated staleness", up="ms")

    def visibility(self) -> str:
        """From an acknowledgement to being shown elsewhere."""
        return (
            "<p>From the acknowledgement of a publish until a learner showed it, outside of faults:</p>"
            + _table(
                ("published in", "shown in", "publishes", "p50 ms", "p99 ms"),
                [
                    (
                        one.source,
                        one.viewer,
                        f"{one.publishes:,}",
                        f"{one.p50_ms:.0f}",
                        f"{one.p99_ms:.0f}",
                    )
                    for one in self._found.visibility
                ],
            )
        )

    def rate(self) -> str:
        """Prompts that were finished."""
        lines = []
        for region in self._plan.regions:
            slices: dict[int, int] = {}
            for one in self._raw.outcomes:
                if one.region == region:
                    place = int(self._s(one.ended_ns) / SLICE_S)
                    slices[place] = slices.get(place, 0) + 1
            last = max(slices, default=0)
            points = [(at * SLICE_S, slices.get(at, 0) / SLICE_S) for at in range(last + 1)]
            lines.append(Line(region, points, self._colour[region]))
        return self._chart(lines, title="Prompts finished", up="in a second")

    def faults(self) -> str:
        """Bars of recovery, and what was seen."""
        faults = self._raw.faults
        if not faults:
            return "<p>None were asked for (<code>--faults</code>).</p>"
        drawn = bars(
            [(one.kind, one.recovery_s, f"{one.recovery_s:.1f} s") for one in faults],
            title="Seconds until all was well again",
            colour=COLOURS[2],
        )
        said = _table(
            ("fault", "what was seen", "learners beside the store"),
            [
                (
                    one.what,
                    one.evidence,
                    (
                        f"{'equal' if not one.differences else 'DIFFER'}: {one.rows:,} rows, "
                        f"{one.prompts} prompts"
                    ),
                )
                for one in faults
            ],
        )
        return drawn + said

    def bytes(self) -> str:
        """What went over each link."""
        found = self._found
        told = _table(
            ("from", "to", "on the wire, MB", "delivered, MB"),
            [
                (
                    source,
                    target,
                    f"{counts.sent_bytes / 1e6:.2f}",
                    f"{counts.delivered_bytes / 1e6:.2f}",
                )
                for (source, target), counts in sorted(self._raw.wan.items())
                if source != target
            ],
        )
        return (
            "<p>The directory's own traffic, all regions learning of all others "
            "<span class=label>counted</span>. "
            f"Blocks fetched from other regions would have been {found.simulated_far_bytes / 1e9:,.1f} GB "
            f"({found.fetched_far:,} blocks) <span class=label>simulated</span>.</p>{told}"
        )

    def verdict(self) -> str:
        """What the checker says."""
        judgement = self._found.judgement
        word = "valid" if judgement.valid else "INVALID"
        items = "".join([f"<li>{escape(one)}</li>" for one in judgement.findings])
        incidents = "".join([f"<li>{escape(one)}</li>" for one in self._found.incidents])
        return (
            f"<p>The history of all processes, {judgement.operations:,} operations of which "
            f"{judgement.unknown} have an unknown outcome, is <b>{word}</b>: every claim was given what was "
            "there at its stamp, nothing was evicted while claimed, nothing a dead worker published "
            "counts, and in the end the store holds what was acknowledged and no more.</p>"
            f"<ul>{items}</ul>" + (f"<p>Not planned:</p><ul>{incidents}</ul>" if incidents else "")
        )

    def _chart(self, lines: Sequence[Line], *, title: str, up: str) -> str:
        across = "seconds since the first prompt"
        return chart(lines, title=title, across=across, up=up, bands=self._bands)

    def _s(self, at_ns: int) -> float:
        return (at_ns - self._zero_ns) / 1e9


def _region(publish: Publish) -> str:
    return publish.worker.partition("/")[0]


def _tiles(found: Findings) -> str:
    recovery_s = max([one.recovery_s for one in found.faults], default=0.0)
    tiles = [
        ("hits", share(found.hits, found.references), ""),
        ("ideal", share(found.ideal, found.references), ""),
        ("phantoms", f"{found.phantoms}", ""),
        ("publish p50", f"{found.publish.p50_ms:.1f} ms", ""),
        ("acquire p50", f"{found.acquire.p50_ms:.1f} ms", ""),
        ("staleness p99", f"{found.staleness.p99_ms:.0f} ms", ""),
        ("worst recovery", f"{recovery_s:.1f} s" if found.faults else "no faults", ""),
        (
            "checker",
            "valid" if found.judgement.valid else "INVALID",
            "good" if found.judgement.valid else "bad",
        ),
    ]
    cells = "".join(
        [
            f"<div class='tile {mood}'><b>{escape(value)}</b><span>{name}</span></div>"
            for name, value, mood in tiles
        ]
    )
    return f"<div class=tiles>{cells}</div>"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    top = "".join([f"<th>{escape(cell)}</th>" for cell in head])
    lines = "".join(
        ["<tr>" + "".join([f"<td>{escape(cell)}</td>" for cell in row]) + "</tr>" for row in body]
    )
    return f"<table><tr>{top}</tr>{lines}</table>"


def _notes(plan: Plan) -> str:
    cost = plan.cost
    return (
        "<ul>"
        "<li><b>Real</b>: nodes, routers and workers are processes; commits are synced; delays between "
        "regions are those of real cities; faults are signals and cut links; latencies are by the wall clock.</li>"
        "<li><b>Counted</b>: blocks, claims, phantoms, bytes on the emulated links.</li>"
        f"<li><b>Simulated</b>: a prefill is a pause of {cost.base_s * 1000:g} ms + {cost.linear_s * 1e6:g} µs a "
        f"token + {cost.attention_s * 1e9:g} ns a pair of positions, divided by the speed; a fetch takes "
        f"{cost.block_bytes / 1e6:.0f} MB a block over {cost.pull_bytes_per_s / 1e9:g} GB/s "
        f"({cost.far_bytes_per_s / 1e9:g} GB/s from another region), divided by the speed. What "
        "travels is a page of 32 bytes a block, which is compared.</li>"
        f"<li>Prompts come {plan.speed:.0f} times as fast as recorded, while the network and the store are "
        "not scaled: against arrivals, oceans are as many times wider.</li>"
        "<li>No trace says where prompts come from: conversations have homes by a hash, and one prompt in "
        "ten comes to another region.</li></ul>"
    )
