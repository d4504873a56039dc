"""Distributions: what is left of a list of samples, and of several runs."""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Sequence

from msgspec import Struct

_NS_PER_MS = 1e6


class Spread(Struct, frozen=True):
    """Quantiles of one measurement, milliseconds."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


def spread(samples_ns: array[int]) -> Spread:
    """Quantiles of durations in ns, by the nearest rank; all 0 without samples."""
    ordered = sorted(samples_ns)
    if not ordered:
        return Spread(0.0, 0.0, 0.0, 0.0)
    return Spread(
        quantile(ordered, 0.5) / _NS_PER_MS,
        quantile(ordered, 0.9) / _NS_PER_MS,
        quantile(ordered, 0.99) / _NS_PER_MS,
        ordered[-1] / _NS_PER_MS,
    )


def quantile(ordered: Sequence[int], share: float) -> int:
    """The sample below which lies that share of an ascending, non-empty sequence."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """The median of several runs."""
    return float(statistics.median(values))


def rounded(value: float) -> float:
    """Four figures: no measurement here means more."""
    return float(f"{value:.4g}") if abs(value) < 1000 else float(round(value))
