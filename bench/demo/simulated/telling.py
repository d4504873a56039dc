"""The figures of a run for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench.demo.live import share, times
from bench.demo.simulated.causes import CAUSES

if TYPE_CHECKING:
    from bench.demo.simulated.findings import Findings
    from bench.demo.simulated.plan import Plan


def rows(plan: Plan, found: Findings) -> Iterator[tuple[str, str]]:
    """Names and values of the figures that matter."""
    yield "trace", plan.trace or f"made up (seed {plan.seed})"
    yield (
        "prompts",
        (
            f"{found.served} served of {found.requests} in {found.elapsed_s:.1f} s, they came within "
            f"{plan.replay_s:.0f} s, "
            f"{plan.speed:.0f} times as fast as recorded"
        ),
    )
    yield "block references", f"{found.references:,}"
    yield (
        "hits",
        (
            f"{found.hits:,} ({share(found.hits, found.references)}); {found.local:,} where the prompt "
            f"went, {found.fetched:,} fetched, {found.fetched_far:,} of them from another region"
        ),
    )
    yield "hits, ideal", f"{found.ideal:,} ({share(found.ideal, found.references)})"
    for cause, blocks in sorted(found.causes.items(), key=lambda one: -one[1]):
        if blocks:
            yield "  computed again", f"{blocks:,}: {CAUSES[cause]}"
    yield (
        "phantoms",
        (
            f"{found.phantoms} claims found less than was believed, by {found.phantom_blocks} blocks; "
            f"{found.claims:,} were given"
        ),
    )
    yield "match", f"p50 {found.match.p50_ms * 1000:.0f} µs, p99 {found.match.p99_ms * 1000:.0f} µs"
    several = len(plan.regions) > 1
    far = f"; in another region {times(found.far_acquire)}" if several else ""
    yield "acquire", f"{times(found.acquire)}{far}"
    quicker = f"{found.publish_wan_round_trips} round trips between regions"
    publishes = f"{found.publishes:,} of {found.published_blocks:,} blocks, synced"
    yield "publish", f"{times(found.publish)}; {publishes}{f'; {quicker}' if several else ''}"
    if found.evicted_blocks or found.pinned_blocks:
        yield (
            "evicted",
            f"{found.evicted_blocks:,} blocks; {found.pinned_blocks} stayed since they were claimed",
        )
    yield (
        "staleness, as stated",
        f"{times(found.staleness)}; understated in {found.untrue} of {found.requests}",
    )
    yield "between regions", f"{found.wan_bytes / 1e6:.1f} MB on the wire"
    yield (
        "load",
        (
            f"accelerators (simulated) {100 * found.offered_load:.0f} % of their time"
            f"{', so queues grow' if found.offered_load > 1 else ''}; "
            f"this machine {found.machine_load:.1f} at the end"
        ),
    )
    yield "prefill, simulated", f"p50 {found.simulated_prefill_p50_s:.2f} s of the model's time"
    for fault in found.faults:
        yield (
            f"after {fault.kind}",
            (
                f"{fault.recovery_s:.1f} s; {fault.evidence}; "
                f"learners {'equal' if not fault.differences else 'DIFFER from'} the store "
                f"({fault.rows:,} rows, {fault.prompts} prompts)"
            ),
        )
    if any(fault.kind == "cut" for fault in found.faults):
        yield "published while cut off", f"{found.cut_publishes} publishes in the region that was"
    if found.rerouted or found.failed or found.broken:
        yield (
            "troubles",
            (
                f"{found.rerouted} tries moved to another worker, {found.broken} claims or fetches "
                f"failed, {found.failed} prompts unserved"
            ),
        )
    yield (
        "learners in the end",
        (
            f"{'equal' if not found.differences else 'DIFFER from'} the store "
            f"({found.compared_rows:,} rows, {found.compared_prompts} prompts)"
        ),
    )
    for difference in found.differences[:5]:
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
