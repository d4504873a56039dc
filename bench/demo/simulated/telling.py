"""The figures of a run for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench.demo.figures import faults_told, publish_told, verdicts_told
from bench.demo.live import share, times
from bench.demo.simulated.causes import CAUSES

if TYPE_CHECKING:
    from bench.demo.simulated.findings import Findings
    from bench.demo.simulated.plan import Plan


def rows(plan: Plan, found: Findings) -> Iterator[tuple[str, str]]:
    """Names and values of the figures that matter."""
    shared = found.shared
    yield "trace", plan.trace or f"made up (seed {plan.seed})"
    yield (
        "prompts",
        (
            f"{found.served} served of {found.requests} in {shared.elapsed_s:.1f} s, they came within "
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
            f"{shared.claims:,} were given"
        ),
    )
    yield "match", f"p50 {found.match.p50_ms * 1000:.0f} µs, p99 {found.match.p99_ms * 1000:.0f} µs"
    several = len(plan.regions) > 1
    far = f"; in another region {times(found.far_acquire)}" if several else ""
    yield "acquire", f"{times(found.acquire)}{far}"
    yield publish_told(shared, several=several)
    if found.evicted_blocks or found.pinned_blocks:
        yield (
            "evicted",
            f"{found.evicted_blocks:,} blocks; {found.pinned_blocks} stayed since they were claimed",
        )
    yield (
        "staleness, as stated",
        f"{times(found.staleness)}; understated in {found.untrue} of {found.requests}",
    )
    yield "between regions", f"{shared.wan_bytes / 1e6:.1f} MB on the wire"
    yield (
        "load",
        (
            f"accelerators (simulated) {100 * found.offered_load:.0f} % of their time"
            f"{', so queues grow' if found.offered_load > 1 else ''}; "
            f"this machine {shared.machine_load:.1f} at the end"
        ),
    )
    yield "prefill, simulated", f"p50 {found.simulated_prefill_p50_s:.2f} s of the model's time"
    yield from faults_told(shared)
    if any(fault.kind == "cut" for fault in shared.faults):
        yield "published while cut off", f"{found.cut_publishes} publishes in the region that was"
    if found.rerouted or found.failed or found.broken:
        yield (
            "troubles",
            (
                f"{found.rerouted} tries moved to another worker, {found.broken} claims or fetches "
                f"failed, {found.failed} prompts unserved"
            ),
        )
    yield from verdicts_told(shared)
