"""Figures of a worker, in the text format of Prometheus.

The engine and its pool count in plain integers; a scrape reads them in the engine's thread, between two
steps. Times are measured here, where requests come and answers go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from serving.engine.engine import Engine
from serving.engine.sequence import Phase

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST.encode()
TIERS: Final = ("device", "host", "disk")

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

Samples = list[tuple[tuple[str, ...], float]]


class Row(Struct, frozen=True):
    """One metric; `read` gives its samples, each with one value per label."""

    name: str
    help: str
    read: Callable[[Engine], Samples]
    labels: tuple[str, ...] = ()

    @property
    def is_counter(self) -> bool:
        """Counters end in ``_total``; all others go up and down."""
        return self.name.endswith("_total")


def _one(read: Callable[[Engine], float]) -> Callable[[Engine], Samples]:
    return lambda engine: [((), read(engine))]


def _pages(engine: Engine) -> Samples:
    samples: Samples = []
    for tier in range(len(engine.pool.stores)):
        census = engine.pool.census(tier)
        for state in ("free", "cached", "held", "taken"):
            samples.append(((TIERS[tier], state), getattr(census, state)))
    return samples


ROWS: Final = (
    Row("k2_worker_requests_total", "Requests taken on.", _one(lambda one: one.counts.requests)),
    Row(
        "k2_worker_finished_total",
        "Sequences that ended, by why.",
        lambda one: [((finish.value,), count) for finish, count in one.counts.finished.items()],
        ("reason",),
    ),
    Row(
        "k2_worker_sequences",
        "Sequences now, by where they are.",
        lambda one: [
            ((phase.value,), count)
            for phase, count in one.sequences().items()
            if phase is not Phase.FINISHED
        ],
        ("phase",),
    ),
    Row(
        "k2_worker_sequences_max",
        "Sequences that may run at a time.",
        _one(lambda one: one.settings.sequences_max),
    ),
    Row(
        "k2_worker_waiting_max",
        "Sequences that may wait.",
        _one(lambda one: one.settings.waiting_max),
    ),
    Row(
        "k2_worker_prompt_tokens_total",
        "Tokens of prompts.",
        _one(lambda one: one.counts.prompt_tokens),
    ),
    Row(
        "k2_worker_cached_tokens_total",
        "Tokens of prompts whose keys and values were there already.",
        _one(lambda one: one.counts.cached_tokens),
    ),
    Row(
        "k2_worker_computed_tokens_total",
        "Tokens that went through the model.",
        _one(lambda one: one.counts.computed_tokens),
    ),
    Row(
        "k2_worker_generated_tokens_total",
        "Tokens generated.",
        _one(lambda one: one.counts.generated_tokens),
    ),
    Row("k2_worker_steps_total", "Steps of the engine.", _one(lambda one: one.counts.steps)),
    Row(
        "k2_worker_preemptions_total",
        "Running sequences that had to give way for want of pages.",
        _one(lambda one: one.preemptions),
    ),
    Row(
        "k2_worker_linked_prompts_total",
        "Prompts that were put together of compiled chunks.",
        _one(lambda one: one.links.prompts),
    ),
    Row(
        "k2_worker_linked_chunks_total",
        "Chunks of linked prompts: found in the pool, or compiled.",
        lambda one: [(("found",), one.links.found), (("compiled",), one.links.compiled)],
        ("how",),
    ),
    Row(
        "k2_worker_linked_tokens_total",
        "Tokens of the chunks of linked prompts.",
        _one(lambda one: one.links.chunk_tokens),
    ),
    Row(
        "k2_worker_compiled_tokens_total",
        "Tokens that went through the model to compile chunks.",
        _one(lambda one: one.links.compiled_tokens),
    ),
    Row(
        "k2_worker_recomputed_tokens_total",
        "Tokens of linked prompts that were computed for their place.",
        _one(lambda one: one.links.recomputed_tokens),
    ),
    Row(
        "k2_worker_retained_pages",
        "Pages of a single layer that answers under a retention policy hold.",
        _one(lambda one: one.retained_pages),
    ),
    Row(
        "k2_worker_retained_pages_max",
        "Pages that any answer has held in any layer, so far.",
        _one(lambda one: one.retained.pages_max),
    ),
    Row(
        "k2_worker_retained_blocks_total",
        "Blocks of answers under a retention policy at their end: kept whole, or gone.",
        lambda one: [
            (("kept",), one.retained.kept_blocks),
            (("gone",), one.retained.gone_blocks),
        ],
        ("how",),
    ),
    Row("k2_worker_pages", "Pages by tier and use.", _pages, ("tier", "use")),
    Row(
        "k2_worker_pages_swapped_out_total",
        "Pages moved down a tier.",
        _one(lambda one: one.pool.counts.swapped_out),
    ),
    Row(
        "k2_worker_pages_swapped_in_total",
        "Pages brought back to the device.",
        _one(lambda one: one.pool.counts.swapped_in),
    ),
    Row(
        "k2_worker_pages_evicted_total",
        "Pages forgotten for want of room.",
        _one(lambda one: one.pool.counts.evicted),
    ),
    Row(
        "k2_worker_pages_damaged_total",
        "Pages whose bytes were not those that were sealed; none was used.",
        _one(lambda one: one.pool.counts.damaged),
    ),
)


class Timings:
    """Histograms of what callers wait for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.first_token = Histogram(
            "k2_worker_first_token_seconds",
            "From the request to its first token.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.next_token = Histogram(
            "k2_worker_next_token_seconds",
            "From one token to the next.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.request = Histogram(
            "k2_worker_request_seconds",
            "From the request to the end of its answer.",
            buckets=_SECONDS,
            registry=registry,
        )


class _Sampled:
    """Samples that were read from an engine, for a registry that asks for them."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        """As `prometheus_client` asks."""
        yield from self.metrics


class Metrics:
    """The figures of one worker."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._sampled = _Sampled()
        self._registry.register(self._sampled)
        self.timings = Timings(self._registry)
        ProcessCollector(registry=self._registry)

    def text(self, metrics: list[Metric]) -> bytes:
        """The page, with what `sample` gave."""
        self._sampled.metrics = metrics
        return generate_latest(self._registry)


def sample(engine: Engine) -> list[Metric]:
    """Read an engine, in its thread."""
    metrics: list[Metric] = []
    for row in ROWS:
        family = CounterMetricFamily if row.is_counter else GaugeMetricFamily
        metric = family(row.name, row.help, labels=row.labels)
        for labels, value in row.read(engine):
            metric.add_metric(labels, value)
        metrics.append(metric)
    return metrics
