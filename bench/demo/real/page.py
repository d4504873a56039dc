"""The report of a run: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from bench.demo.drawing import Drawing, latencies
from bench.demo.figures import tiles_told
from bench.demo.live import share
from bench.demo.plots import COLOURS, Line, Point
from bench.demo.real.telling import rows
from bench.demo.sheet import opening, recoveries, table, tiles, verdict
from bench.demo.timeline import Timeline

if TYPE_CHECKING:
    from bench.demo.real.conductor import Raw
    from bench.demo.real.findings import Findings
    from bench.demo.real.people import Turn
    from bench.demo.real.plan import Plan

TALKS_MAX: Final = 40
"""Conversations that are shown with their words."""
WORDS_MAX: Final = 160
"""Characters of an answer that are shown."""


def page(plan: Plan, raw: Raw, found: Findings) -> str:
    """The page."""
    course, shared = raw.course, found.shared
    drawing = Drawing(plan.regions, course, course.started_ns)
    elsewhere = found.blocks.elsewhere
    parts = [
        opening("k2 demo"),
        (
            f"<p class=lead>{found.prompts:,} prompts to SmolLM2-135M-Instruct in {len(plan.regions)} regions "
            f"({', '.join(plan.regions)}), {plan.workers_per_region} worker(s) each, kept apart by "
            f"{escape(course.wan_kind)}; load of the machine at the end {shared.machine_load:.1f}.</p>"
        ),
        _tiles(found),
        "<h2>Conversations that moved <span class=label>counted</span></h2>",
        (
            f"<p>{len(elsewhere)} second turns were asked in another region than the first ones. The keys and "
            f"values of {sum([one.prefix for one in elsewhere]):,} tokens were there to be had; "
            f"{found.recomputed_elsewhere:,} of them were computed again.</p>"
        ),
        table(
            (
                "conversation",
                "from",
                "to",
                "prompt",
                "had been left",
                "found",
                "computed again",
                "first token",
            ),
            [
                (
                    f"{one.turn.talk}",
                    one.turn.before,
                    one.turn.region,
                    f"{one.turn.tokens} tokens",
                    str(one.prefix),
                    str(one.turn.cached),
                    str(one.recomputed),
                    f"{one.turn.first_s:.2f} s",
                )
                for one in elsewhere
            ],
        ),
        "<h2>What was found computed <span class=label>counted</span></h2>",
        _cached(raw, drawing),
        _fetched(raw, drawing),
        "<h2>Latencies <span class=label>real</span></h2>",
        _first_tokens(raw),
        _transactions(Timeline(course.notes)),
        "<h2>Staleness of the routers' learners <span class=label>real</span></h2>",
        drawing.staleness(),
        "<h2>Faults, and until all was well</h2>",
        recoveries(course.faults),
        "<h2>Verdict</h2>",
        verdict(shared.judgement, shared.incidents),
        "<h2>All figures</h2>",
        table(("figure", "value"), rows(plan, found)),
        "<h2>What was said</h2>",
        _talks(raw.turns),
        "</html>",
    ]
    return "\n".join(parts)


def _cached(raw: Raw, drawing: Drawing) -> str:
    """Share of the prompts' tokens so far."""
    tokens = cached = 0
    points: list[Point] = []
    for one in sorted(_answered(raw), key=lambda one: one.ended_ns):
        tokens += one.tokens
        cached += one.cached
        points.append((drawing.at(one.ended_ns), 100 * cached / tokens))
    return drawing.chart(
        [Line("found computed", points, COLOURS[0])],
        title="Tokens of prompts that were found computed, so far",
        up="%",
    )


def _fetched(raw: Raw, drawing: Drawing) -> str:
    """Blocks from other regions."""
    lines = [
        Line(
            region,
            [
                (drawing.at(at), float(blocks))
                for at, where, blocks in raw.fetched
                if where == region
            ],
            colour,
        )
        for region, colour in drawing.colours.items()
    ]
    return drawing.chart(lines, title="Blocks fetched from other workers, so far", up="blocks")


def _first_tokens(raw: Raw) -> str:
    """Distributions of the time to the first token."""
    answered = _answered(raw)
    kinds = {
        "first turn": [one for one in answered if not one.is_lookup and not one.number],
        "second turn elsewhere": [one for one in answered if one.is_elsewhere],
        "later turn where the last one was": [
            one for one in answered if one.number and one.region == one.before
        ],
        "lookup": [one for one in answered if one.is_lookup],
    }
    return latencies(
        [
            (name, [one.first_s * 1000 for one in turns], colour)
            for (name, turns), colour in zip(kinds.items(), COLOURS, strict=False)
        ],
        title="How many first tokens took at most so long",
    )


def _transactions(timeline: Timeline) -> str:
    """Distributions of the directory's transactions."""
    return latencies(
        [
            (name, [one / 1e6 for one in timeline.took_ns.get(name, [])], colour)
            for name, colour in (("publish", COLOURS[0]), ("acquire", COLOURS[1]))
        ],
        title="How many transactions took at most so long, faults included",
    )


def _answered(raw: Raw) -> list[Turn]:
    return [one for one in raw.turns if not one.failure]


def _tiles(found: Findings) -> str:
    sameness = found.sameness
    same = sameness.compared - len(sameness.different)
    return tiles(
        [
            ("tokens found computed", share(found.cached, found.tokens), ""),
            ("second turns elsewhere", str(len(found.blocks.elsewhere)), ""),
            ("tokens computed again there", f"{found.recomputed_elsewhere:,}", ""),
            ("first token p50", f"{found.first.p50_ms:,.0f} ms", ""),
            (
                "answers as without a cache",
                f"{same} of {sameness.compared}",
                "good" if sameness.identical else "bad",
            ),
            *tiles_told(found.shared, found.staleness),
        ]
    )


def _talks(turns: Sequence[Turn]) -> str:
    """Questions and answers, with where they were."""
    ordered = sorted(turns, key=lambda one: (one.talk, one.number))
    return table(
        ("conversation", "in", "asked", "answered", "found of prompt"),
        [
            (
                f"{one.talk}.{one.number + 1}",
                one.region,
                one.messages[-1]["content"],
                one.failure or one.answer[:WORDS_MAX],
                f"{one.cached} of {one.tokens}",
            )
            for one in ordered
            if one.talk < TALKS_MAX
        ],
    )
