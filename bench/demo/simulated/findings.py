"""The figures of a run, from what it left.

Three kinds of figures: *real* ones (processes, wall clock: latencies, staleness, recovery), *counted* ones (blocks,
phantoms, bytes), and *simulated* ones (prefills and the bytes of blocks, by the cost model).
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from msgspec import Struct

from bench.demo.course import Fault
from bench.demo.figures import Figures, calm_publishes, details, figures, promised
from bench.demo.judging import Judgement
from bench.demo.simulated.causes import causes, ideal_of
from bench.demo.simulated.conductor import Raw
from bench.demo.simulated.messages import Outcome
from bench.demo.simulated.plan import Plan
from bench.demo.timeline import Publish, Timeline
from bench.samples import Spread, quantile, rounded, spread
from k2store.testing.wan.matrix import round_trip_ms

NS_PER_MS: Final = 1e6


class Visibility(Struct, frozen=True, kw_only=True):
    """How long after its acknowledgement a publish of `source` was shown in `viewer`, by its learner."""

    source: str
    viewer: str
    publishes: int
    p50_ms: float
    p99_ms: float


class Findings(Struct, frozen=True, kw_only=True):
    """See the module. Attributes that are not obvious:

    failed          prompts that nobody served
    phantoms        claims that found less than the learner believed, `phantom_blocks` fewer blocks in all
    untrue          matches whose stated staleness was too small: a publish acknowledged before that was not shown
    quicker_share   publishes that were acknowledged in less than the shortest round trip to another region
    cut_publishes   publishes acknowledged in a region while it was cut off
    simulated_far_bytes  of blocks that were fetched from other regions
    offered_load    simulated seconds of prefill for each second of all accelerators; above 1 queues grow
    """

    shared: Figures
    requests: int
    served: int
    failed: int
    references: int
    hits: int
    local: int
    fetched: int
    fetched_far: int
    ideal: int
    causes: dict[str, int]
    phantoms: int
    phantom_blocks: int
    broken: int
    rerouted: int
    unkept: int
    claims_refused: int
    match: Spread
    acquire: Spread
    far_acquire: Spread
    evicted_blocks: int
    pinned_blocks: int
    quicker_share: float
    cut_publishes: int
    staleness: Spread
    untrue: int
    visibility: list[Visibility]
    prefill: Spread
    simulated_prefill_p50_s: float
    offered_load: float
    simulated_far_bytes: int
    wrong_pages: int

    @property
    def sound(self) -> bool:
        """Whether every promise was seen kept."""
        return self.shared.kept and not self.untrue and not self.wrong_pages


def find(plan: Plan, raw: Raw, judgement: Judgement, *, machine_load: float) -> Findings:
    """All figures."""
    served = [one for one in raw.outcomes if one.worker]
    timeline = Timeline(raw.course.notes, raw.course.started_ns)
    references = sum([one.local + one.fetched + one.computed for one in served])
    hits = sum([one.local + one.fetched for one in served])
    far_blocks = sum([one.fetched for one in served if one.far])
    calm = calm_publishes(raw.course, timeline)
    took_ns = [one.known_ns - one.asked_ns for one in calm]
    shortest_ns = _shortest_round_trip_ms(plan) * NS_PER_MS
    simulated = sorted([one.prefill_ns for one in served])
    return Findings(
        shared=figures(raw.course, timeline, judgement, machine_load=machine_load),
        requests=len(raw.outcomes),
        served=len(served),
        failed=len(raw.outcomes) - len(served),
        references=references,
        hits=hits,
        local=sum([one.local for one in served]),
        fetched=sum([one.fetched for one in served]),
        fetched_far=far_blocks,
        ideal=ideal_of(plan.requests, served),
        causes=causes(plan.requests, served, timeline),
        phantoms=sum([one.denied for one in raw.outcomes]),
        phantom_blocks=sum([one.believed - one.claimed for one in raw.outcomes if one.denied]),
        broken=sum([one.broken for one in raw.outcomes]),
        rerouted=sum([one.rerouted for one in raw.outcomes]),
        unkept=sum([one.unkept for one in served]),
        claims_refused=timeline.failed.get("acquire", 0),
        match=spread(array("q", [one.match_ns for one in raw.outcomes])),
        acquire=spread(array("q", raw.acquires_ns)),
        far_acquire=spread(array("q", raw.far_acquires_ns)),
        evicted_blocks=sum([one.evicted for one in raw.stocks.values()]),
        pinned_blocks=sum([one.pinned for one in raw.stocks.values()]),
        quicker_share=_share(sum([one < shortest_ns for one in took_ns]), len(took_ns)),
        cut_publishes=_cut_publishes(plan, timeline.publishes, raw.course.faults),
        staleness=spread(array("q", [one.stale_ns for one in raw.outcomes])),
        untrue=untrue(raw.outcomes, timeline.publishes),
        visibility=list(_visibility(plan, raw, calm)),
        prefill=spread(array("q", simulated)),
        simulated_prefill_p50_s=quantile(simulated, 0.5) / 1e9 * plan.speed if simulated else 0.0,
        offered_load=_offered_load(plan, served),
        simulated_far_bytes=far_blocks * plan.cost.block_bytes,
        wrong_pages=sum([one.wrong_pages for one in raw.stocks.values()]),
    )


def document(plan: Plan, found: Findings) -> dict[str, object]:
    """The figures for programs; names that were promised come first."""
    return {
        **promised(
            found.shared,
            requests=found.requests,
            blocks=(found.references, found.hits, found.ideal),
            phantoms=found.phantoms,
            acquire=found.acquire,
            staleness=found.staleness,
        ),
        "failed_requests": found.failed,
        "rerouted": found.rerouted,
        "missed": found.causes,
        "fetched_blocks": found.fetched,
        "fetched_far_blocks": found.fetched_far,
        "evicted_blocks": found.evicted_blocks,
        "publishes_under_a_round_trip": rounded(found.quicker_share),
        "publishes_while_cut_off": found.cut_publishes,
        "far_acquire_p50_ms": rounded(found.far_acquire.p50_ms),
        "match_p50_us": rounded(found.match.p50_ms * 1000),
        "staleness_understated": found.untrue,
        "simulated_far_bytes": found.simulated_far_bytes,
        "wrong_pages": found.wrong_pages,
        **details(found.shared),
        "offered_load": rounded(found.offered_load),
        "speed": rounded(plan.speed),
        "trace": plan.trace,
        "regions": list(plan.regions),
        "pool_blocks": plan.pool_blocks,
        "policy": plan.policy,
    }


def untrue(outcomes: Sequence[Outcome], publishes: Sequence[Publish]) -> int:
    """Matches that said to lag behind by less than they did.

    What was acknowledged before the moment that a match claims to show must have a stamp that it shows.
    """
    acknowledged = sorted([(one.known_ns, one.stamp) for one in publishes])
    moments = [moment for moment, _ in acknowledged]
    newest = list(accumulate([stamp for _, stamp in acknowledged], max))
    wrong = 0
    for outcome in outcomes:
        place = bisect.bisect_left(moments, outcome.matched_ns - outcome.stale_ns)
        wrong += place > 0 and newest[place - 1] > outcome.as_of
    return wrong


def _visibility(plan: Plan, raw: Raw, calm: Sequence[Publish]) -> Iterator[Visibility]:
    for viewer in plan.regions:
        for source in plan.regions:
            shown = raw.shown.get(viewer, {}).get(source, [])
            stamps = list(accumulate([stamp for _, stamp in shown], max))
            lags: list[int] = []
            for one in calm:
                if one.worker.startswith(f"{source}/"):
                    place = bisect.bisect_left(stamps, one.stamp)
                    if place < len(stamps):
                        lags.append(max(0, shown[place][0] - one.known_ns))
            if lags:
                lags.sort()
                yield Visibility(
                    source=source,
                    viewer=viewer,
                    publishes=len(lags),
                    p50_ms=quantile(lags, 0.5) / NS_PER_MS,
                    p99_ms=quantile(lags, 0.99) / NS_PER_MS,
                )


def _cut_publishes(plan: Plan, publishes: Sequence[Publish], faults: Sequence[Fault]) -> int:
    cut = [one for one in faults if one.kind == "cut"]
    region = plan.regions[-1]
    return sum(
        [
            publish.worker.startswith(f"{region}/")
            and any(
                one.began_ns < publish.asked_ns
                and publish.known_ns < one.ended_ns - int(one.recovery_s * 1e9)
                for one in cut
            )
            for publish in publishes
        ]
    )


def _shortest_round_trip_ms(plan: Plan) -> float:
    return min(
        [
            round_trip_ms(one, other)
            for one in plan.regions
            for other in plan.regions
            if one != other
        ],
        default=0.0,
    )


def _offered_load(plan: Plan, served: Sequence[Outcome]) -> float:
    work_s = sum(
        [
            plan.cost.prefill_s(plan.requests[one.number].input_length, one.local + one.fetched)
            for one in served
        ]
    )
    span_s = plan.requests[-1].timestamp / 1000
    return work_s / (span_s * len(plan.workers)) if span_s else 0.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
