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

from bench.demo.faults import Fault, troubled
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
    wan_bytes       between regions, on the wire; `simulated_far_bytes` are those of blocks that were fetched
    offered_load    simulated seconds of prefill for each second of all accelerators; above 1 queues grow
    machine_load    processes that wanted a core at the end, the others' included
    """

    requests: int
    served: int
    failed: int
    elapsed_s: float
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
    claims: int
    claims_refused: int
    match: Spread
    acquire: Spread
    far_acquire: Spread
    publish: Spread
    publishes: int
    published_blocks: int
    evicted_blocks: int
    pinned_blocks: int
    quicker_share: float
    publish_wan_round_trips: int
    cut_publishes: int
    staleness: Spread
    untrue: int
    visibility: list[Visibility]
    prefill: Spread
    simulated_prefill_p50_s: float
    offered_load: float
    machine_load: float
    wan_bytes: int
    simulated_far_bytes: int
    wrong_pages: int
    faults: list[Fault]
    differences: list[str]
    compared_rows: int
    compared_prompts: int
    judgement: Judgement
    incidents: list[str]

    @property
    def sound(self) -> bool:
        """Whether every promise was seen kept."""
        return (
            self.judgement.valid
            and not self.differences
            and not any(fault.differences for fault in self.faults)
            and not self.untrue
            and not self.wrong_pages
        )


def find(plan: Plan, raw: Raw, judgement: Judgement, *, machine_load: float) -> Findings:
    """All figures."""
    served = [one for one in raw.outcomes if one.worker]
    timeline = Timeline(raw.notes, raw.began_ns + int(raw.start_s * 1e9))
    references = sum([one.local + one.fetched + one.computed for one in served])
    hits = sum([one.local + one.fetched for one in served])
    far_blocks = sum([one.fetched for one in served if one.far])
    calm = [one for one in timeline.publishes if not troubled(one.asked_ns, raw.faults)]
    took = array("q", [one.known_ns - one.asked_ns for one in calm])
    shortest_ns = _shortest_round_trip_ms(plan) * NS_PER_MS
    publish = spread(took)
    simulated = sorted([one.prefill_ns for one in served])
    return Findings(
        requests=len(raw.outcomes),
        served=len(served),
        failed=len(raw.outcomes) - len(served),
        elapsed_s=(raw.ended_ns - raw.began_ns) / 1e9 - raw.start_s,
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
        claims=timeline.done.get("acquire", 0),
        claims_refused=timeline.failed.get("acquire", 0),
        match=spread(array("q", [one.match_ns for one in raw.outcomes])),
        acquire=spread(array("q", raw.acquires_ns)),
        far_acquire=spread(array("q", raw.far_acquires_ns)),
        publish=publish,
        publishes=len(timeline.publishes),
        published_blocks=sum([one.blocks for one in timeline.publishes]),
        evicted_blocks=sum([one.evicted for one in raw.stocks.values()]),
        pinned_blocks=sum([one.pinned for one in raw.stocks.values()]),
        quicker_share=_share(sum([one < shortest_ns for one in took]), len(took)),
        publish_wan_round_trips=raw.crossings,
        cut_publishes=_cut_publishes(plan, timeline.publishes, raw.faults),
        staleness=spread(array("q", [one.stale_ns for one in raw.outcomes])),
        untrue=untrue(raw.outcomes, timeline.publishes),
        visibility=list(_visibility(plan, raw, calm)),
        prefill=spread(array("q", simulated)),
        simulated_prefill_p50_s=quantile(simulated, 0.5) / 1e9 * plan.speed if simulated else 0.0,
        offered_load=_offered_load(plan, served),
        machine_load=machine_load,
        wan_bytes=sum(
            [counts.sent_bytes for (source, target), counts in raw.wan.items() if source != target]
        ),
        simulated_far_bytes=far_blocks * plan.cost.block_bytes,
        wrong_pages=sum([one.wrong_pages for one in raw.stocks.values()]),
        faults=raw.faults,
        differences=raw.differences,
        compared_rows=raw.compared_rows,
        compared_prompts=raw.compared_prompts,
        judgement=judgement,
        incidents=raw.incidents,
    )


def document(plan: Plan, found: Findings) -> dict[str, object]:
    """The figures for programs; names that were promised come first."""
    return {
        "requests": found.requests,
        "block_references": found.references,
        "block_hits": found.hits,
        "ideal_hits": found.ideal,
        "phantoms": found.phantoms,
        "acquire_p50_ms": rounded(found.acquire.p50_ms),
        "publish_p50_ms": rounded(found.publish.p50_ms),
        "staleness_p99_ms": rounded(found.staleness.p99_ms),
        "publish_wan_round_trips": found.publish_wan_round_trips,
        "faults": len(found.faults),
        "recovery_s": rounded(max([one.recovery_s for one in found.faults], default=0.0)),
        "checker_valid": found.judgement.valid,
        "failed_requests": found.failed,
        "rerouted": found.rerouted,
        "missed": found.causes,
        "fetched_blocks": found.fetched,
        "fetched_far_blocks": found.fetched_far,
        "evicted_blocks": found.evicted_blocks,
        "publishes": found.publishes,
        "publishes_under_a_round_trip": rounded(found.quicker_share),
        "publishes_while_cut_off": found.cut_publishes,
        "acquire_p99_ms": rounded(found.acquire.p99_ms),
        "publish_p99_ms": rounded(found.publish.p99_ms),
        "far_acquire_p50_ms": rounded(found.far_acquire.p50_ms),
        "match_p50_us": rounded(found.match.p50_ms * 1000),
        "staleness_understated": found.untrue,
        "wan_bytes": found.wan_bytes,
        "simulated_far_bytes": found.simulated_far_bytes,
        "wrong_pages": found.wrong_pages,
        "learner_differences": len(found.differences)
        + sum([len(one.differences) for one in found.faults]),
        "compared_rows": found.compared_rows + sum([one.rows for one in found.faults]),
        "checked_operations": found.judgement.operations,
        "checker_findings": list(found.judgement.findings),
        "incidents": found.incidents,
        "fault_details": [
            {
                "kind": one.kind,
                "what": one.what,
                "recovery_s": rounded(one.recovery_s),
                "evidence": one.evidence,
            }
            for one in found.faults
        ],
        "elapsed_s": rounded(found.elapsed_s),
        "offered_load": rounded(found.offered_load),
        "machine_load": rounded(found.machine_load),
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
