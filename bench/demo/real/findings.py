"""The figures of a run, from what it left: latencies are by the wall clock, the rest is counted."""

from __future__ import annotations

from array import array

from msgspec import Struct

from bench.demo.course import Course, troubled
from bench.demo.figures import NS_PER_S, Figures, details, figures, promised
from bench.demo.judging import Judgement
from bench.demo.real.conductor import Conductor
from bench.demo.real.plan import Plan
from bench.demo.real.reference import Sameness
from bench.demo.real.tokens import Blocks
from bench.demo.timeline import Timeline
from bench.samples import Spread, rounded, spread


class Fleet(Struct, frozen=True, kw_only=True):
    """What routers and workers have counted.

    fetch_failures  by kind: prefixes that were computed after all
    declined        prefixes elsewhere that were taken for cheaper to compute
    moved_bytes     of pages, read from another worker
    resumed         answers that another worker went on with; `retried` before anything was told
    spilled         tries that workers of other regions were given
    """

    fetched: int
    declined: int
    fetch_failures: dict[str, int]
    moved_bytes: int
    resumed: int
    retried: int
    spilled: int


class Findings(Struct, frozen=True, kw_only=True):
    """See the module.

    failed     prompts without an answer; `left` were not asked, for want of time
    phantoms   claims that were refused: what the learner believed was there no more
    """

    shared: Figures
    prompts: int
    failed: int
    left: int
    tokens: int
    cached: int
    generated: int
    blocks: Blocks
    fleet: Fleet
    first: Spread
    phantoms: int
    acquire: Spread
    staleness: Spread
    sameness: Sameness

    @property
    def recomputed_elsewhere(self) -> int:
        """Tokens of prefixes that second turns elsewhere have computed again."""
        return sum([one.recomputed for one in self.blocks.elsewhere])

    @property
    def sound(self) -> bool:
        """Whether every promise was seen kept."""
        return self.shared.kept and not self.sameness.different


def find(
    plan: Plan, conductor: Conductor, judgement: Judgement, blocks: Blocks, *, machine_load: float
) -> Findings:
    """All figures."""
    raw = conductor.raw
    answered = [one for one in raw.turns if not one.failure]
    timeline = Timeline(raw.course.notes, raw.course.started_ns)
    return Findings(
        shared=figures(raw.course, timeline, judgement, machine_load=machine_load),
        prompts=len(raw.turns),
        failed=len(raw.turns) - len(answered),
        left=raw.left,
        tokens=sum([one.tokens for one in answered]),
        cached=sum([one.cached for one in answered]),
        generated=sum([one.generated for one in answered]),
        blocks=blocks,
        fleet=_fleet(plan, conductor),
        first=spread(array("q", [int(one.first_s * NS_PER_S) for one in answered])),
        phantoms=timeline.failed.get("acquire", 0),
        acquire=spread(array("q", timeline.took_ns.get("acquire", []))),
        staleness=spread(array("q", _calm_staleness(raw.course))),
        sameness=raw.sameness,
    )


def document(plan: Plan, found: Findings) -> dict[str, object]:
    """The figures for programs; names that were promised come first."""
    shared, fleet, blocks = found.shared, found.fleet, found.blocks
    return {
        **promised(
            shared,
            requests=found.prompts,
            blocks=(blocks.references, blocks.hits, blocks.ideal),
            phantoms=found.phantoms,
            acquire=found.acquire,
            staleness=found.staleness,
        ),
        "cached_token_ratio": rounded(found.cached / found.tokens if found.tokens else 0.0),
        "ttft_p50_ms": rounded(found.first.p50_ms),
        "ttft_p99_ms": rounded(found.first.p99_ms),
        "greedy_identical": found.sameness.identical,
        "second_turns_elsewhere": len(blocks.elsewhere),
        "recomputed_prefix_tokens_elsewhere": found.recomputed_elsewhere,
        "prefix_tokens_elsewhere": sum([one.prefix for one in blocks.elsewhere]),
        "second_turns_elsewhere_whole": sum([not one.recomputed for one in blocks.elsewhere]),
        "failed_requests": found.failed,
        "left_out_requests": found.left,
        "greedy_compared": found.sameness.compared,
        "greedy_different": [list(one) for one in found.sameness.different],
        "prompt_tokens": found.tokens,
        "cached_tokens": found.cached,
        "generated_tokens": found.generated,
        "fetched_blocks": fleet.fetched,
        "fetches_declined": fleet.declined,
        "fetches_failed": fleet.fetch_failures,
        "fetched_bytes": fleet.moved_bytes,
        "resumed_answers": fleet.resumed,
        "retried_requests": fleet.retried,
        "spilled_requests": fleet.spilled,
        "published_blocks": shared.published_blocks,
        "claims": shared.claims,
        **details(shared),
        "start_s": rounded(shared.start_s),
        "regions": list(plan.regions),
        "workers_per_region": plan.workers_per_region,
    }


def _fleet(plan: Plan, conductor: Conductor) -> Fleet:
    routers = [one for name, one in conductor.counted.items() if name not in plan.workers]
    workers = [one for name, one in conductor.counted.items() if name in plan.workers]
    failures: dict[str, int] = {}
    for worker in workers:
        for kind, count in worker.by_label("k2_fleet_fetches_failed_total", "error").items():
            failures[kind] = failures.get(kind, 0) + count

    def routed(name: str) -> int:
        return int(sum([one.sum(f"k2_router_{name}_total") for one in routers]))

    def worked(name: str, *said: str) -> int:
        return int(sum([one.sum(f"k2_fleet_{name}_total", *said) for one in workers]))

    return Fleet(
        fetched=worked("fetched_blocks"),
        declined=worked("fetches_declined"),
        fetch_failures=failures,
        moved_bytes=worked("moved_bytes", 'what="read"'),
        resumed=routed("resumed"),
        retried=routed("retried"),
        spilled=routed("spilled"),
    )


def _calm_staleness(course: Course) -> list[int]:
    """What learners said outside of faults, ns."""
    return [
        int(stale_s * NS_PER_S)
        for at_ns, _, stale_s in course.staleness
        if not troubled(at_ns, course.faults)
    ]
