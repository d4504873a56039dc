"""The figures that every run has, from its course, and how they are told: to programs, to people, on a page."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from bench.demo.course import Compared, Course, Fault, troubled
from bench.demo.judging import Judgement
from bench.demo.live import times
from bench.demo.timeline import Publish, Timeline
from bench.samples import Spread, rounded, spread

NS_PER_S: Final = 1e9
FINDINGS_MAX: Final = 5
"""Differences that are told in words."""


class Figures(Struct, frozen=True, kw_only=True):
    """See the module.

    start_s    until everybody had started
    publish    of publishes that no fault fell into
    wan_bytes  between regions, on the wire
    machine_load  processes that wanted a core at the end, the others' included
    """

    start_s: float
    elapsed_s: float
    claims: int
    publish: Spread
    publishes: int
    published_blocks: int
    publish_wan_round_trips: int
    wan_bytes: int
    faults: list[Fault]
    compared: Compared
    judgement: Judgement
    incidents: list[str]
    machine_load: float

    @property
    def kept(self) -> bool:
        """Whether the directory was seen to keep its promises."""
        return (
            self.judgement.valid
            and not self.compared.differences
            and not any(fault.compared.differences for fault in self.faults)
        )

    @property
    def recovery_s(self) -> float:
        """Of the worst fault; 0 without any."""
        return max([one.recovery_s for one in self.faults], default=0.0)


def figures(
    course: Course, timeline: Timeline, judgement: Judgement, *, machine_load: float
) -> Figures:
    """All of them; the timeline is that of the time since everybody had started."""
    took = [one.known_ns - one.asked_ns for one in calm_publishes(course, timeline)]
    return Figures(
        start_s=(course.started_ns - course.began_ns) / NS_PER_S,
        elapsed_s=(course.ended_ns - course.started_ns) / NS_PER_S,
        claims=timeline.done.get("acquire", 0),
        publish=spread(array("q", took)),
        publishes=len(timeline.publishes),
        published_blocks=sum([one.blocks for one in timeline.publishes]),
        publish_wan_round_trips=course.crossings,
        wan_bytes=sum(
            [
                counts.sent_bytes
                for (source, target), counts in course.wan.items()
                if source != target
            ]
        ),
        faults=course.faults,
        compared=course.compared,
        judgement=judgement,
        incidents=course.incidents,
        machine_load=machine_load,
    )


def calm_publishes(course: Course, timeline: Timeline) -> list[Publish]:
    """Those that no fault fell into."""
    return [one for one in timeline.publishes if not troubled(one.asked_ns, course.faults)]


# ------------------------------------------------------------------------------- for programs


def promised(
    found: Figures,
    *,
    requests: int,
    blocks: tuple[int, int, int],
    phantoms: int,
    acquire: Spread,
    staleness: Spread,
) -> dict[str, object]:
    """The names that every run's object begins with. `blocks`: referred to, hit, and hit by an ideal cache."""
    references, hits, ideal = blocks
    return {
        "requests": requests,
        "block_references": references,
        "block_hits": hits,
        "ideal_hits": ideal,
        "phantoms": phantoms,
        "acquire_p50_ms": rounded(acquire.p50_ms),
        "publish_p50_ms": rounded(found.publish.p50_ms),
        "staleness_p99_ms": rounded(staleness.p99_ms),
        "publish_wan_round_trips": found.publish_wan_round_trips,
        "faults": len(found.faults),
        "recovery_s": rounded(found.recovery_s),
        "checker_valid": found.judgement.valid,
        "acquire_p99_ms": rounded(acquire.p99_ms),
        "publish_p99_ms": rounded(found.publish.p99_ms),
    }


def details(found: Figures) -> dict[str, object]:
    """What every run's object ends with."""
    all_compared = [found.compared, *[one.compared for one in found.faults]]
    return {
        "publishes": found.publishes,
        "wan_bytes": found.wan_bytes,
        "learner_differences": sum([len(one.differences) for one in all_compared]),
        "compared_rows": sum([one.rows for one in all_compared]),
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
        "machine_load": rounded(found.machine_load),
    }


# --------------------------------------------------------------------------------- for people


def publish_told(found: Figures, *, several: bool) -> tuple[str, str]:
    """The figures of publishes; `several`: whether there is more than one region."""
    crossing = f"; {found.publish_wan_round_trips} round trips between regions"
    blocks = f"{found.publishes:,} of {found.published_blocks:,} blocks, synced"
    return "publish", f"{times(found.publish)}; {blocks}{crossing if several else ''}"


def faults_told(found: Figures) -> Iterator[tuple[str, str]]:
    """A row a fault."""
    for fault in found.faults:
        yield (
            f"after {fault.kind}",
            f"{fault.recovery_s:.1f} s; {fault.evidence}; learners {beside(fault.compared)}",
        )


def verdicts_told(found: Figures) -> Iterator[tuple[str, str]]:
    """What the run has shown to hold of the directory, and what not."""
    yield "learners in the end", beside(found.compared)
    for difference in found.compared.differences[:FINDINGS_MAX]:
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


def beside(compared: Compared) -> str:
    """Whether learners were equal to the store, and over how much."""
    prompts = f", {compared.prompts} prompts" if compared.prompts else ""
    word = "DIFFER from" if compared.differences else "equal"
    return f"{word} the store ({compared.rows:,} rows{prompts})"


def tiles_told(found: Figures, staleness: Spread) -> list[tuple[str, str, str]]:
    """Figures to see first: name, value, mood (`bench.demo.sheet.tiles`)."""
    valid = found.judgement.valid
    return [
        ("publish p50", f"{found.publish.p50_ms:.1f} ms", ""),
        ("staleness p99", f"{staleness.p99_ms:.0f} ms", ""),
        ("worst recovery", f"{found.recovery_s:.1f} s" if found.faults else "no faults", ""),
        ("checker", "valid" if valid else "INVALID", "good" if valid else "bad"),
    ]
