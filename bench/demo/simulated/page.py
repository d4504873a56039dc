"""The report of a run: one HTML page that needs nothing but itself."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from bench.demo.company import region_of
from bench.demo.drawing import Drawing, latencies
from bench.demo.figures import tiles_told
from bench.demo.live import share, times
from bench.demo.plots import COLOURS, Line, Point, bars
from bench.demo.sheet import opening, recoveries, table, tiles, verdict
from bench.demo.simulated.causes import CAUSES
from bench.demo.simulated.telling import rows
from bench.demo.timeline import Timeline

if TYPE_CHECKING:
    from bench.demo.simulated.conductor import Raw
    from bench.demo.simulated.findings import Findings
    from bench.demo.simulated.plan import Plan

SLICE_S: Final = 1.0


def page(plan: Plan, raw: Raw, found: Findings) -> str:
    """The page."""
    course, shared = raw.course, found.shared
    draw = _Drawing(plan, raw, found)
    trace = plan.trace or f"a made-up trace (seed {plan.seed})"
    parts = [
        opening("k2 demo"),
        (
            f"<p class=lead>{found.requests:,} prompts of {escape(trace)} over {len(plan.regions)} regions "
            f"({', '.join(plan.regions)}), {plan.workers_per_region} workers each with room for "
            f"{'every block' if plan.pool_blocks is None else f'{plan.pool_blocks:,} blocks'}; "
            f"{plan.speed:.0f} times as fast as recorded; policy {escape(plan.policy)}; regions kept apart "
            f"by {escape(course.wan_kind)}; load of the machine at the end {shared.machine_load:.1f}.</p>"
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
            f"<p>A publish is one transaction, synced, in the home region of its worker: {times(shared.publish)}; "
            f"it takes {shared.publish_wan_round_trips} round trips between regions (counted before prompts came), "
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
        draw.shared.staleness(),
        draw.visibility(),
        "<h2>Work</h2>",
        draw.rate(),
        "<h2>Faults, and until all was well</h2>",
        recoveries(course.faults),
        "<h2>Bytes between regions</h2>",
        draw.bytes(),
        "<h2>Verdict</h2>",
        verdict(shared.judgement, shared.incidents),
        "<h2>All figures</h2>",
        table(("figure", "value"), rows(plan, found)),
        "<h2>How to read this</h2>",
        _notes(plan),
        "</html>",
    ]
    return "\n".join(parts)


class _Drawing:
    """The plots of one run that no other has; those that all have are in `shared`."""

    def __init__(self, plan: Plan, raw: Raw, found: Findings) -> None:
        self._plan = plan
        self._raw = raw
        self._found = found
        self._publishes = Timeline(raw.course.notes).publishes
        zero_ns = min([one.arrived_ns for one in raw.outcomes], default=raw.course.began_ns)
        self.shared = Drawing(plan.regions, raw.course, zero_ns)

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
            at_s = self.shared.at(one.ended_ns)
            mine.append((at_s, 100 * hits / references))
            best.append((at_s, 100 * ideal / references))
        return self.shared.chart(
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
        said = table(("cause", "what it means"), [(cause, CAUSES[cause]) for cause, _ in found])
        return drawn + said

    def latencies(self) -> str:
        """Distributions."""
        took = [
            (
                f"publish in {region}",
                [
                    (one.known_ns - one.asked_ns) / 1e6
                    for one in self._publishes
                    if region_of(one.worker) == region
                ],
                colour,
            )
            for region, colour in self.shared.colours.items()
        ]
        for name, samples, colour in (
            ("acquire", self._raw.acquires_ns, COLOURS[7]),
            ("acquire in another region", self._raw.far_acquires_ns, COLOURS[8]),
        ):
            took.append((name, [one / 1e6 for one in samples], colour))
        return latencies(took, title="How many took at most so long, faults included")

    def visibility(self) -> str:
        """From an acknowledgement to being shown elsewhere."""
        return (
            "<p>From the acknowledgement of a publish until a learner showed it, outside of faults:</p>"
            + table(
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
                    place = int(self.shared.at(one.ended_ns) / SLICE_S)
                    slices[place] = slices.get(place, 0) + 1
            last = max(slices, default=0)
            points = [(at * SLICE_S, slices.get(at, 0) / SLICE_S) for at in range(last + 1)]
            lines.append(Line(region, points, self.shared.colours[region]))
        return self.shared.chart(lines, title="Prompts finished", up="in a second")

    def bytes(self) -> str:
        """What went over each link."""
        found = self._found
        told = table(
            ("from", "to", "on the wire, MB", "delivered, MB"),
            [
                (
                    source,
                    target,
                    f"{counts.sent_bytes / 1e6:.2f}",
                    f"{counts.delivered_bytes / 1e6:.2f}",
                )
                for (source, target), counts in sorted(self._raw.course.wan.items())
                if source != target
            ],
        )
        return (
            "<p>The directory's own traffic, all regions learning of all others "
            "<span class=label>counted</span>. "
            f"Blocks fetched from other regions would have been {found.simulated_far_bytes / 1e9:,.1f} GB "
            f"({found.fetched_far:,} blocks) <span class=label>simulated</span>.</p>{told}"
        )


def _tiles(found: Findings) -> str:
    return tiles(
        [
            ("hits", share(found.hits, found.references), ""),
            ("ideal", share(found.ideal, found.references), ""),
            ("phantoms", f"{found.phantoms}", ""),
            ("acquire p50", f"{found.acquire.p50_ms:.1f} ms", ""),
            *tiles_told(found.shared, found.staleness),
        ]
    )


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
