"""The report of a run: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from bench.demo.live import share
from bench.demo.plots import COLOURS, Band, Line, Point, chart, distribution
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
    draw = _Drawing(plan, raw)
    elsewhere = found.blocks.elsewhere
    parts = [
        opening("k2 demo"),
        (
            f"<p class=lead>{found.prompts:,} prompts to SmolLM2-135M-Instruct in {len(plan.regions)} regions "
            f"({', '.join(plan.regions)}), {plan.workers_per_region} worker(s) each, kept apart by "
            f"{escape(raw.wan_kind)}; load of the machine at the end {found.machine_load:.1f}.</p>"
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
        draw.cached(),
        draw.fetched(),
        "<h2>Latencies <span class=label>real</span></h2>",
        draw.first_tokens(),
        draw.directory(Timeline(raw.notes)),
        "<h2>Staleness of the routers' learners <span class=label>real</span></h2>",
        draw.staleness(),
        "<h2>Faults, and until all was well</h2>",
        recoveries(raw.faults),
        "<h2>Verdict</h2>",
        verdict(found.judgement, found.incidents),
        "<h2>All figures</h2>",
        table(("figure", "value"), rows(plan, found)),
        "<h2>What was said</h2>",
        _talks(raw.turns),
        "</html>",
    ]
    return "\n".join(parts)


class _Drawing:
    """The plots of one run, all over seconds since the first prompt."""

    def __init__(self, plan: Plan, raw: Raw) -> None:
        self._plan = plan
        self._raw = raw
        self._colour = dict(zip(plan.regions, COLOURS, strict=False))
        self._bands = [
            Band(fault.kind, self._s(fault.began_ns), self._s(fault.ended_ns or raw.ended_ns))
            for fault in raw.faults
        ]
        self._answered = sorted(
            [one for one in raw.turns if not one.failure], key=lambda one: one.ended_ns
        )

    def cached(self) -> str:
        """Share of the prompts' tokens so far."""
        tokens = cached = 0
        points: list[Point] = []
        for one in self._answered:
            tokens += one.tokens
            cached += one.cached
            points.append((self._s(one.ended_ns), 100 * cached / tokens))
        return self._chart(
            [Line("found computed", points, COLOURS[0])],
            title="Tokens of prompts that were found computed, so far",
            up="%",
        )

    def fetched(self) -> str:
        """Blocks from other regions."""
        lines = [
            Line(
                region,
                [
                    (self._s(at), float(blocks))
                    for at, where, blocks in self._raw.fetched
                    if where == region
                ],
                self._colour[region],
            )
            for region in self._plan.regions
        ]
        return self._chart(lines, title="Blocks fetched from other workers, so far", up="blocks")

    def first_tokens(self) -> str:
        """Distributions of the time to the first token."""
        kinds = {
            "first turn": [one for one in self._answered if not one.is_lookup and not one.number],
            "second turn elsewhere": [one for one in self._answered if one.is_elsewhere],
            "later turn where the last one was": [
                one for one in self._answered if one.number and one.region == one.before
            ],
            "lookup": [one for one in self._answered if one.is_lookup],
        }
        return chart(
            [
                distribution(name, [one.first_s * 1000 for one in turns], colour)
                for (name, turns), colour in zip(kinds.items(), COLOURS, strict=False)
                if turns
            ],
            title="How many first tokens took at most so long",
            across="ms",
            up="%",
            log=True,
            high=100.0,
        )

    def directory(self, timeline: Timeline) -> str:
        """Distributions of the directory's transactions."""
        return chart(
            [
                distribution(name, [one / 1e6 for one in timeline.took_ns[name]], colour)
                for name, colour in (("publish", COLOURS[0]), ("acquire", COLOURS[1]))
                if timeline.took_ns.get(name)
            ],
            title="How many transactions took at most so long, faults included",
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
                    if where == region
                ],
                self._colour[region],
            )
            for region in self._plan.regions
        ]
        return self._chart(lines, title="Stated staleness", up="ms")

    def _chart(self, lines: Sequence[Line], *, title: str, up: str) -> str:
        across = "seconds since the first prompt"
        return chart(lines, title=title, across=across, up=up, bands=self._bands)

    def _s(self, at_ns: int) -> float:
        return (at_ns - self._raw.started_ns) / 1e9


def _tiles(found: Findings) -> str:
    blocks, sameness = found.blocks, found.sameness
    recovery_s = max([one.recovery_s for one in found.faults], default=0.0)
    good = found.judgement.valid
    return tiles(
        [
            ("tokens found computed", share(found.cached, found.tokens), ""),
            ("second turns elsewhere", str(len(blocks.elsewhere)), ""),
            ("tokens computed again there", f"{found.recomputed_elsewhere:,}", ""),
            ("first token p50", f"{found.first.p50_ms:,.0f} ms", ""),
            ("publish p50", f"{found.publish.p50_ms:.1f} ms", ""),
            ("staleness p99", f"{found.staleness.p99_ms:.0f} ms", ""),
            ("worst recovery", f"{recovery_s:.1f} s" if found.faults else "no faults", ""),
            (
                "answers as without a cache",
                f"{sameness.compared - len(sameness.different)} of {sameness.compared}",
                "good" if sameness.identical else "bad",
            ),
            ("checker", "valid" if good else "INVALID", "good" if good else "bad"),
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
