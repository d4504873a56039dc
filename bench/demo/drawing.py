"""The plots that every run has, over seconds since its first prompt, with its faults as bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.demo.course import Course
from bench.demo.plots import COLOURS, Band, Line, chart, distribution

ACROSS: Final = "seconds since the first prompt"


class Drawing:
    """Of one run. `zero_ns`: when its first prompt came."""

    def __init__(self, regions: Sequence[str], course: Course, zero_ns: int) -> None:
        self._course = course
        self._zero_ns = zero_ns
        self._bands = [
            Band(fault.kind, self.at(fault.began_ns), self.at(fault.ended_ns or course.ended_ns))
            for fault in course.faults
        ]
        self.colours = dict(zip(regions, COLOURS, strict=False))

    def at(self, at_ns: int) -> float:
        """A moment, in seconds since the first prompt."""
        return (at_ns - self._zero_ns) / 1e9

    def chart(self, lines: Sequence[Line], *, title: str, up: str) -> str:
        """Lines over time."""
        return chart(lines, title=title, across=ACROSS, up=up, bands=self._bands)

    def staleness(self) -> str:
        """What learners said."""
        lines = [
            Line(
                region,
                [
                    (self.at(at_ns), stale_s * 1000)
                    for at_ns, where, stale_s in self._course.staleness
                    if where == region and at_ns >= self._zero_ns
                ],
                colour,
            )
            for region, colour in self.colours.items()
        ]
        return self.chart(lines, title="Stated staleness", up="ms")


def latencies(samples: Sequence[tuple[str, Sequence[float], str]], *, title: str) -> str:
    """Distributions of times: a name, milliseconds and a colour each; those without a sample are left out."""
    lines = [distribution(*one) for one in samples if one[1]]
    return chart(lines, title=title, across="ms", up="%", log=True, high=100.0)
