"""The figures of a run for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench.demo.figures import FINDINGS_MAX, faults_told, publish_told, verdicts_told
from bench.demo.live import share, times

if TYPE_CHECKING:
    from bench.demo.real.findings import Findings
    from bench.demo.real.plan import Plan


def rows(plan: Plan, found: Findings) -> Iterator[tuple[str, str]]:
    """Names and values of the figures that matter."""
    shared, blocks, fleet = found.shared, found.blocks, found.fleet
    elsewhere = blocks.elsewhere
    yield (
        "prompts",
        (
            f"{found.prompts - found.failed} answered of {found.prompts} in {shared.elapsed_s:.0f} s, by "
            f"{len(plan.workers)} workers, {plan.people} people a region asking at a time; all had "
            f"started after {shared.start_s:.0f} s"
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
    yield "phantoms", f"{found.phantoms} claims were refused; {shared.claims:,} were given"
    yield "acquire", times(found.acquire)
    yield publish_told(shared, several=True)
    yield "staleness, as stated", times(found.staleness)
    yield (
        "between regions",
        f"{shared.wan_bytes / 1e6:,.1f} MB on the wire, keys and values among it",
    )
    yield "load", f"this machine {shared.machine_load:.1f} at the end"
    yield from faults_told(shared)
    if shared.faults or found.failed or fleet.resumed or fleet.retried:
        yield (
            "troubles",
            (
                f"{fleet.resumed} answers went on at another worker in the middle, {fleet.retried} requests "
                f"began anew there, {fleet.spilled} went to another region; {found.failed} unanswered"
            ),
        )
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
    yield from verdicts_told(shared)
