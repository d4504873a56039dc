"""The figures of a run for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench.demo.live import share, times

if TYPE_CHECKING:
    from bench.demo.real.findings import Findings
    from bench.demo.real.plan import Plan

FINDINGS_MAX = 5


def rows(plan: Plan, found: Findings) -> Iterator[tuple[str, str]]:
    """Names and values of the figures that matter."""
    blocks, fleet = found.blocks, found.fleet
    elsewhere = blocks.elsewhere
    yield (
        "prompts",
        (
            f"{found.prompts - found.failed} answered of {found.prompts} in {found.elapsed_s:.0f} s, by "
            f"{len(plan.workers)} workers, {plan.people} people a region asking at a time; all had "
            f"started after {found.start_s:.0f} s"
        ),
    )
    if found.left:
        yield "not asked", f"{found.left} prompts, for want of time: this machine is slow or busy"
    yield (
        "tokens",
        (
            f"{found.tokens:,} of prompts, of which {found.cached:,} ({share(found.cached, found.tokens)}) "
            f"were found computed; {found.generated:,} generated"
        ),
    )
    yield (
        "second turns elsewhere",
        (
            f"{len(elsewhere)} conversations went on in another region; of the "
            f"{sum([one.prefix for one in elsewhere]):,} tokens they had left, "
            f"{found.recomputed_elsewhere:,} were computed again"
        ),
    )
    yield (
        "blocks",
        (
            f"{blocks.references:,} in prompts; found {blocks.hits:,}, ideal {blocks.ideal:,} "
            f"({share(blocks.ideal, blocks.references)})"
        ),
    )
    failures = ", ".join(
        [f"{count} {kind}" for kind, count in sorted(fleet.fetch_failures.items())]
    )
    yield (
        "fetched",
        (
            f"{fleet.fetched:,} blocks from another region, {fleet.moved_bytes / 1e6:,.0f} MB of keys and "
            f"values; {fleet.declined} prefixes were cheaper to compute"
            f"{f'; failed: {failures}' if failures else ''}"
        ),
    )
    yield "first token", times(found.first)
    yield "phantoms", f"{found.phantoms} claims were refused; {found.claims:,} were given"
    yield "acquire", times(found.acquire)
    yield (
        "publish",
        (
            f"{times(found.publish)}; {found.publishes:,} of {found.published_blocks:,} blocks, synced; "
            f"{found.publish_wan_round_trips} round trips between regions"
        ),
    )
    yield "staleness, as stated", times(found.staleness)
    yield (
        "between regions",
        f"{found.wan_bytes / 1e6:,.1f} MB on the wire, keys and values among it",
    )
    yield "load", f"this machine {found.machine_load:.1f} at the end"
    for fault in found.faults:
        yield (
            f"after {fault.kind}",
            (
                f"{fault.recovery_s:.1f} s; {fault.evidence}; "
                f"learners {'equal' if not fault.differences else 'DIFFER from'} the store "
                f"({fault.rows:,} rows)"
            ),
        )
    if found.faults or found.failed or fleet.resumed or fleet.retried:
        yield (
            "troubles",
            (
                f"{fleet.resumed} answers went on at another worker in the middle, {fleet.retried} requests "
                f"began anew there, {fleet.spilled} went to another region; {found.failed} unanswered"
            ),
        )
    yield from _verdicts(found)


def _verdicts(found: Findings) -> Iterator[tuple[str, str]]:
    """What the run has shown to hold, and what not."""
    yield (
        "learners in the end",
        f"{'equal' if not found.differences else 'DIFFER from'} the store ({found.compared_rows:,} rows)",
    )
    for difference in found.differences[:FINDINGS_MAX]:
        yield "  difference", difference
    sameness = found.sameness
    yield (
        "greedy answers",
        (
            f"{sameness.compared - len(sameness.different)} of {sameness.compared} compared are those of a "
            "worker that keeps nothing"
        ),
    )
    for asked, ours, theirs in sameness.different[:FINDINGS_MAX]:
        yield "  DIFFERENT", f"{asked!r}: {ours!r}, alone {theirs!r}"
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
