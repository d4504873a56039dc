"""How far a figure of some samples may be off: drawn anew from the same samples, many times (the bootstrap).

A figure that compares two columns is drawn with both values of a sample together: what makes a prompt hard for two arms
alike does not count as a difference between them.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

RESAMPLES: Final = 1000
SEED: Final = 1


class Estimate(NamedTuple):
    """A figure, its standard error, and where 95 in 100 of the figures drawn anew lie."""

    value: float
    error: float
    low: float
    high: float


def estimate(figure: Callable[[Sequence[float]], float], *columns: Sequence[float]) -> Estimate:
    """A figure made of the means of some columns, whose values stand in rows, one a sample.

    Rows are drawn alike for every estimate over as many of them.
    """
    rows = list(zip(*columns, strict=True))
    rng = random.Random(SEED)
    drawn = sorted([figure(_means(rng.choices(rows, k=len(rows)))) for _ in range(RESAMPLES)])
    tail = RESAMPLES // 40
    return Estimate(figure(_means(rows)), statistics.stdev(drawn), drawn[tail], drawn[-tail - 1])


def _means(rows: Sequence[tuple[float, ...]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]
