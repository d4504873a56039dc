"""Plots as SVG, to stand inside a page: lines over time, distributions, bars. No script, no font, no address."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from msgspec import Struct

WIDTH: Final = 680
HEIGHT: Final = 240
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 38
POINTS_MAX: Final = 400
"""Of a line; more are thinned out."""
COLOURS: Final = (
    "#2f6db3",
    "#c8641b",
    "#2b8a5b",
    "#8d55a8",
    "#b23a48",
    "#6b6b2a",
    "#3b8ea5",
    "#7a4b2b",
    "#555555",
)
"""Told apart also by those who see colours otherwise; in this order."""

Point = tuple[float, float]


class Line(Struct, frozen=True):
    """A line with its name; `dashed` for what is there to compare with."""

    name: str
    points: Sequence[Point]
    colour: str
    dashed: bool = False


class Band(Struct, frozen=True):
    """A stretch of the horizontal axis with a name."""

    name: str
    start: float
    end: float


class _Axis:
    """Where values lie on a stretch of pixels."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool) -> None:
        self.log = log
        self._map: Callable[[float], float] = math.log10 if log else float
        self._low, self._high = self._map(low), self._map(high)
        self._start, self._end = start, end
        self.ticks = _decades(low, high) if log else _ticks(low, high)

    def at(self, value: float) -> float:
        """The pixel of a value."""
        span = self._high - self._low or 1.0
        share = (self._map(value) - self._low) / span
        return self._start + min(1.0, max(0.0, share)) * (self._end - self._start)


def chart(
    lines: Sequence[Line],
    *,
    title: str,
    across: str,
    up: str,
    bands: Sequence[Band] = (),
    log: bool = False,
    high: float | None = None,
) -> str:
    """Lines over a common axis. `log`: the horizontal one is logarithmic; `high`: top of the other."""
    lines = [line for line in lines if line.points]
    xs = [x for line in lines for x, _ in line.points] or [0.0, 1.0]
    ys = [y for line in lines for _, y in line.points] or [0.0]
    low_x = max(min(xs), 0.01) if log else min(0.0, *xs)
    across_axis = _Axis(
        low_x, max(*xs, low_x * 10 if log else low_x + 1e-9), LEFT, WIDTH - RIGHT, log=log
    )
    top = high if high is not None else (max(ys) * 1.08 or 1.0)
    up_axis = _Axis(0.0, top, HEIGHT - BOTTOM, TOP, log=False)
    parts = [_open(title, HEIGHT)]
    for band in bands:
        x, end = across_axis.at(band.start), across_axis.at(band.end)
        parts.append(
            f"<rect class=band x={x:.1f} y={TOP} width={max(1.5, end - x):.1f} "
            f"height={HEIGHT - TOP - BOTTOM}><title>{escape(band.name)}</title></rect>"
            f"<text x={x + 2:.1f} y={TOP + 10} class=note>{escape(band.name)}</text>"
        )
    for tick in up_axis.ticks:
        y = up_axis.at(tick)
        parts.append(f"<line class=grid x1={LEFT} x2={WIDTH - RIGHT} y1={y:.1f} y2={y:.1f} />")
        parts.append(f"<text x={LEFT - 6} y={y + 4:.1f} class=end>{_number(tick)}</text>")
    for tick in across_axis.ticks:
        x = across_axis.at(tick)
        parts.append(f"<text x={x:.1f} y={HEIGHT - BOTTOM + 16} class=mid>{_number(tick)}</text>")
    parts.append(
        f"<text x={(LEFT + WIDTH - RIGHT) / 2:.0f} y={HEIGHT - 5} class=mid>{escape(across)}</text>"
        f"<text transform='translate(13 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)' class=mid>"
        f"{escape(up)}</text>"
    )
    for line in lines:
        placed = " ".join(
            [f"{across_axis.at(x):.1f},{up_axis.at(y):.1f}" for x, y in thinned(line.points)]
        )
        dash = " stroke-dasharray='5 4'" if line.dashed else ""
        parts.append(
            f"<polyline class=line points='{placed}' stroke='{line.colour}'{dash}>"
            f"<title>{escape(line.name)}</title></polyline>"
        )
    parts.append("</svg>")
    return _figure(title, "".join(parts), lines)


def bars(rows: Sequence[tuple[str, float, str]], *, title: str, colour: str = COLOURS[0]) -> str:
    """A bar a row: its name, its length, and what is written behind it."""
    most = max([value for _, value, _ in rows], default=0.0) or 1.0
    height = 26 * len(rows) + 8
    parts = [_open(title, height)]
    room = WIDTH - 150
    for place, (name, value, note) in enumerate(rows):
        y = 26 * place + 2
        length = value / most * (room - 150)
        parts.append(
            f"<text x=140 y={y + 15} class=end>{escape(name)}</text>"
            f"<rect x=148 y={y + 2} width={max(1.0, length):.1f} height=18 fill='{colour}' />"
            f"<text x={154 + max(1.0, length):.1f} y={y + 15}>{escape(note)}</text>"
        )
    parts.append("</svg>")
    return _figure(title, "".join(parts), ())


def distribution(name: str, samples: Sequence[float], colour: str) -> Line:
    """A line through the shares of samples that are at most so large."""
    ordered = sorted(samples)
    count = len(ordered)
    return Line(
        name,
        [(max(0.01, value), 100 * (at + 1) / count) for at, value in enumerate(ordered)],
        colour,
    )


def thinned(points: Sequence[Point]) -> list[Point]:
    """So few points that nobody sees the difference; the first and the last are kept."""
    if len(points) <= POINTS_MAX:
        return list(points)
    step = (len(points) - 1) / (POINTS_MAX - 1)
    return [points[round(at * step)] for at in range(POINTS_MAX)]


def _open(title: str, height: int) -> str:
    return (
        f"<svg viewBox='0 0 {WIDTH} {height}' role=img aria-label='{escape(title, quote=True)}' "
        f"xmlns='http://www.w3.org/2000/svg'>"
    )


def _figure(title: str, drawn: str, lines: Sequence[Line]) -> str:
    keys = "".join(
        [
            f"<span class=key><i style='background:{line.colour}'></i>{escape(line.name)}</span>"
            for line in lines
        ]
    )
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}<div>{keys}</div></figure>"


def _ticks(low: float, high: float) -> list[float]:
    """About five round values."""
    span = high - low
    if span <= 0:
        return [low]
    rough = span / 5
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(magnitude * one for one in (1, 2, 2.5, 5, 10) if magnitude * one >= rough)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    return [
        10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        if low <= 10.0**power <= high
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
