"""Figures of a worker in a fleet, beside those of its engine (`serving.api.metrics`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from serving.api.metrics import Metrics, sample

if TYPE_CHECKING:
    from serving.instance.instance import Instance


async def page(instance: Instance, metrics: Metrics) -> bytes:
    """All of them, as /metrics shows them."""
    return metrics.text([*await instance.front.call(sample), *figures(instance)])


def figures(instance: Instance) -> Iterator[Metric]:
    """What the directory holds of the worker, what has moved, and what moving must cost to pay."""
    exchange, residency = instance.exchange.counts, instance.residency.counts
    yield GaugeMetricFamily(
        "k2_fleet_published_blocks", "Blocks in the directory.", instance.residency.blocks
    )
    yield GaugeMetricFamily(
        "k2_fleet_break_even_bytes_per_second",
        "A link must be faster than this for fetching keys and values to beat computing them.",
        instance.economy.break_even_bytes_per_s,
    )
    yield GaugeMetricFamily(
        "k2_fleet_prefill_tokens_per_second",
        "How fast prompts are computed here, as far as is known.",
        instance.economy.prefill_tokens_per_s,
    )
    counted = {
        "published_blocks": ("Blocks published.", residency.published),
        "retired_blocks": ("Blocks taken out of the directory to make room.", residency.retired),
        "refused_blocks": ("Blocks that the directory refused.", residency.refused),
        "pinned_blocks": ("Blocks that stayed because of a claim.", residency.pinned),
        "fetched_blocks": ("Blocks read from other workers.", exchange.fetched_blocks),
        "fetched_chunks": (
            "Compiled chunks that came whole from other workers.",
            exchange.fetched_chunks,
        ),
        "fetches_declined": (
            "Prefixes elsewhere that were cheaper to compute.",
            exchange.fetches_declined,
        ),
        "sent_blocks": ("Blocks written to other workers.", exchange.sent_blocks),
        "returned_blocks": (
            "Blocks of answers sent back to who computed the prompt.",
            exchange.returned_blocks,
        ),
        "prefills_asked": ("Prompts that others were asked to compute.", exchange.prefills_asked),
        "prefills_failed": (
            "Prompts that were computed here after all.",
            exchange.prefills_failed,
        ),
        "prefills_served": ("Prompts computed for others.", exchange.prefills_served),
    }
    for name, (what, value) in counted.items():
        yield CounterMetricFamily(f"k2_fleet_{name}", what, value)
    failed = CounterMetricFamily(
        "k2_fleet_fetches_failed", "Prefixes that could not be fetched.", labels=["error"]
    )
    for error, count in sorted(exchange.fetches_failed.items()):
        failed.add_metric([error], count)
    yield failed
    moved = CounterMetricFamily(
        "k2_fleet_moved_bytes", "Bytes of pages, by transport and direction.", labels=["by", "what"]
    )
    calls = CounterMetricFamily(
        "k2_fleet_calls", "Contiguous stretches moved.", labels=["by", "what"]
    )
    for endpoint in instance.links.endpoints:
        by = endpoint.address.partition(":")[0]
        counts = endpoint.counts
        moved.add_metric([by, "read"], counts.read_bytes)
        moved.add_metric([by, "write"], counts.write_bytes)
        calls.add_metric([by, "read"], counts.read_calls)
        calls.add_metric([by, "write"], counts.write_calls)
    yield moved
    yield calls
