"""The record of a run as one HTML page: a picture over time, the faults, the verdict.

The page needs nothing but itself: no script, no font, no address. Time goes to the right. On top are
the faults, each a bar whose shade falls through all lanes below it; then what was committed and how
long it took; then a lane for each node, with the moments at which it began to lead; then a lane for
each kind of client, where grey is what went well and colour is what did not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from jepsen_like.nemesis.nemesis import Applied
from jepsen_like.report.record import Operation, Record

WIDTH: Final = 1240
LEFT: Final = 130
ROW: Final = 15
LANE: Final = 22
PLOT: Final = 70
BUCKETS: Final = 240
"""Slices of time for figures and for what went well."""
DRAWN_MAX: Final = 6_000
"""Operations that did not go well and are drawn one by one, of each lane's own share."""
BILLION: Final = 1e9
NAMES_MAX: Final = 3

_LEGEND: Final = (
    "<p>Grey-blue: operations that went well, the darker the more. Yellow: failed, certainly without "
    "effect. Red: outcome unknown. Violet: never ended. Blue strokes: a node begins to lead a "
    "partition. Black strokes: the harness itself was late.</p>"
)
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 88rem; padding: 0 1rem }
h1 { font-size: 1.3rem } h2 { font-size: 1.05rem; margin-top: 2rem }
svg { background: #fff; border: 1px solid #ddd; max-width: 100%; height: auto }
text { font: 10px ui-monospace, monospace; fill: #333 } .axis { stroke: #ddd }
.lane { stroke: #eee } .shade { fill: #b03030; opacity: .05 } .fault { fill: #e9b3a8; stroke: #b03030 }
.idle { fill: #eee; stroke: #999 } .skipped { fill: none; stroke: #bbb; stroke-dasharray: 3 2 }
.broken { fill: #b03030; stroke: #600 } .ok { fill: #6b8fb5 } .fail { fill: #c9a227 }
.unknown { fill: #d2402c } .open { fill: #7a2cd2 } .commits { fill: #5f9e6e } .lead { stroke: #2a5db0 }
.p50 { fill: none; stroke: #3b6ea5 } .p99 { fill: none; stroke: #b03030 } .stall { stroke: #000 }
table { border-collapse: collapse; font-size: 13px } td, th { padding: .15em .7em; text-align: left;
border-bottom: 1px solid #eee; vertical-align: top } .bad { color: #b03030; font-weight: 600 }
"""


def page(record: Record) -> str:
    """The page."""
    verdict = record.verdict
    valid = verdict.get("valid") is True
    title = f"{record.title}: {'valid' if valid else 'NOT VALID'}"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>",
        _problems(verdict.get("anomalies"), "What is wrong"),
        _problems(verdict.get("flaws"), "Why it proves nothing"),
        "<h2>The run</h2>",
        _Picture(record).svg(),
        _LEGEND,
        "<h2>Faults</h2>",
        _faults(record.faults),
        "<h2>Figures</h2>",
        _figures(verdict),
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _problems(found: object, title: str) -> str:
    if not isinstance(found, list) or not found:
        return ""
    items = "".join(f"<li class=bad>{escape(str(what))}</li>" for what in found)
    return f"<h2>{title}</h2><ul>{items}</ul>"


def _faults(faults: Iterable[Applied]) -> str:
    rows = "".join(
        f"<tr><td>{one.began_ns / BILLION:.1f} s<td>{one.ended_ns / BILLION:.1f} s"
        f"<td>{escape(one.fault.name)}<td>{escape(_whom(one))}"
        f"<td{' class=bad' if one.state in ('broken', 'idle') else ''}>{one.state}"
        f"<td>{escape(one.told)}"
        for one in sorted(faults, key=lambda one: one.began_ns)
    )
    head = "<tr><th>from<th>to<th>fault<th>of<th>was<th>evidence"
    return f"<table>{head}{rows}</table>"


def _whom(one: Applied) -> str:
    if one.fault.target:
        return one.fault.target
    ends = sorted({source for source, _ in one.fault.pairs})
    more = f" and {len(ends) - NAMES_MAX} more" if len(ends) > NAMES_MAX else ""
    return ", ".join(ends[:NAMES_MAX]) + more


def _figures(verdict: dict[str, object]) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}<td>{escape(_figure(value))}"
        for name, value in verdict.items()
        if name not in ("anomalies", "flaws", "skipped_faults") and value not in ({}, [], "")
    )
    return f"<table>{rows}</table>"


def _figure(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return str(value)


class _Picture:
    """Lanes from top to bottom; `y` is where the next one goes."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._from_ns = min((one.began_ns for one in record.operations), default=0)
        self._span_ns = max(1, record.duration_ns - self._from_ns)
        self._y = 18
        self._parts: list[str] = []

    def svg(self) -> str:
        """All of it."""
        rows = self._fault_rows()
        top = self._y
        self._plots()
        self._nodes()
        self._clients()
        self._stalls()
        shades = "".join(
            f'<rect class=shade x="{x:.1f}" y="{top}" width="{width:.1f}" '
            f'height="{self._y - top}"/>'
            for x, width in rows
        )
        height = self._y + 8
        return (
            f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
            f"{self._axis(height)}{shades}{''.join(self._parts)}</svg>"
        )

    def _x(self, at_ns: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * (at_ns - self._from_ns) / self._span_ns

    def _axis(self, height: int) -> str:
        step = next(
            step
            for step in (1, 2, 5, 10, 30, 60, 300, 3600, 86_400)
            if self._span_ns / BILLION / step <= 25 or step == 86_400
        )
        first = int(self._from_ns / BILLION / step)
        last = int((self._from_ns + self._span_ns) / BILLION / step)
        return "".join(
            f'<line class=axis x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{height}"/>'
            f'<text x="{x:.1f}" y="10" text-anchor="middle">{number * step} s</text>'
            for number in range(first, last + 1)
            for x in (self._x(number * step * BILLION),)
        )

    def _label(self, text: str, height: int) -> None:
        self._parts.append(
            f'<line class=lane x1="0" x2="{WIDTH}" y1="{self._y}" y2="{self._y}"/>'
            f'<text x="4" y="{self._y + height / 2 + 3:.0f}">{escape(text)}</text>'
        )

    # -- faults ------------------------------------------------------------------------------------

    def _fault_rows(self) -> list[tuple[float, float]]:
        """Draw each fault in the first row that is free; gives where the effective ones are."""
        free: list[float] = []
        shades: list[tuple[float, float]] = []
        for one in sorted(self._record.faults, key=lambda one: one.began_ns):
            x, end = self._x(one.began_ns), self._x(one.ended_ns)
            text = f"{one.fault.name} {one.fault.target}".strip()
            row = next((row for row, until in enumerate(free) if until < x), len(free))
            free[row : row + 1] = [max(end, x + 6.2 * len(text)) + 6]
            y = self._y + row * ROW
            kind = "fault" if one.state == "effective" else one.state
            self._parts.append(
                f"<g><title>{escape(f'{text} ({one.state}): {one.told}')}</title>"
                f'<rect class={kind} x="{x:.1f}" y="{y}" width="{max(1.0, end - x):.1f}" '
                f'height="{ROW - 3}"/><text x="{x + 3:.1f}" y="{y + 9}">{escape(text)}</text></g>'
            )
            if one.state != "skipped":
                shades.append((x, max(1.0, end - x)))
        self._y += len(free) * ROW + 8
        return shades

    # -- figures -----------------------------------------------------------------------------------

    def _bucket(self, at_ns: int) -> int:
        return min(BUCKETS - 1, max(0, (at_ns - self._from_ns) * BUCKETS // self._span_ns))

    def _plots(self) -> None:
        took: dict[int, list[int]] = defaultdict(list)
        commits: Counter[int] = Counter()
        for one in self._record.operations:
            if one.outcome == "ok" and one.ended_ns >= one.began_ns:
                bucket = self._bucket(one.ended_ns)
                took[bucket].append(one.ended_ns - one.began_ns)
                commits[bucket] += one.writes > 0
        width = (WIDTH - LEFT - 10) / BUCKETS
        each_s = self._span_ns / BILLION / BUCKETS
        most = max(commits.values(), default=0)
        self._label(f"commits/s ≤ {most / each_s:.0f}", PLOT)
        for bucket, count in commits.items():
            height = (PLOT - 6) * count / max(1, most)
            self._parts.append(
                f'<rect class=commits x="{LEFT + bucket * width:.1f}" '
                f'y="{self._y + PLOT - height:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
            )
        self._y += PLOT
        longest = max((max(some) for some in took.values()), default=0)
        self._label(f"latency ≤ {longest / BILLION:.2f} s", PLOT)
        for name, share in (("p50", 50), ("p99", 99)):
            points = " ".join(
                f"{LEFT + (bucket + 0.5) * width:.1f},"
                f"{self._y + PLOT - (PLOT - 6) * _rank(some, share) / max(1, longest):.1f}"
                for bucket, some in sorted(took.items())
            )
            self._parts.append(f'<polyline class={name} points="{points}"/>')
        self._y += PLOT + 4

    # -- lanes -------------------------------------------------------------------------------------

    def _nodes(self) -> None:
        led = {change.node for change in self._record.leaders}
        targets = {one.fault.target for one in self._record.faults}
        for host in self._record.hosts:
            if host not in led | targets:
                continue
            self._label(host, LANE)
            for one in self._record.faults:
                if one.fault.target == host and one.state != "skipped":
                    x, end = self._x(one.began_ns), self._x(one.ended_ns)
                    self._parts.append(
                        f"<g><title>{escape(f'{one.fault.name}: {one.told}')}</title><rect "
                        f'class=fault x="{x:.1f}" y="{self._y + 5}" '
                        f'width="{max(1.0, end - x):.1f}" height="{LANE - 10}"/></g>'
                    )
            for change in self._record.leaders:
                if change.node == host:
                    x = self._x(change.at_ns)
                    self._parts.append(
                        f"<g><title>leads partition {change.partition}</title>"
                        f'<line class=lead x1="{x:.1f}" x2="{x:.1f}" y1="{self._y + 2}" '
                        f'y2="{self._y + LANE - 2}"/>'
                        f'<text x="{x + 2:.1f}" y="{self._y + 14}">{change.partition}</text></g>'
                    )
            self._y += LANE
        self._y += 6

    def _clients(self) -> None:
        lanes: dict[str, list[Operation]] = defaultdict(list)
        for one in self._record.operations:
            lanes[one.what].append(one)
        share = DRAWN_MAX // max(1, len(lanes))
        for name, operations in sorted(lanes.items()):
            self._label(name, LANE)
            self._well(operations)
            bad = [one for one in operations if one.outcome != "ok"]
            for one in bad[:: max(1, len(bad) // max(1, share))]:
                x = self._x(one.began_ns)
                end = self._x(one.ended_ns) if one.ended_ns >= 0 else WIDTH - 10
                self._parts.append(
                    f"<g><title>client {one.client}: {escape(one.error or one.outcome)}</title>"
                    f'<rect class={one.outcome} x="{x:.1f}" y="{self._y + 4 + one.client % 7 * 2}" '
                    f'width="{max(1.0, end - x):.1f}" height="2"/></g>'
                )
            self._y += LANE

    def _well(self, operations: Sequence[Operation]) -> None:
        """What went well, as shades."""
        counts = Counter(self._bucket(one.ended_ns) for one in operations if one.outcome == "ok")
        most = max(counts.values(), default=1)
        width = (WIDTH - LEFT - 10) / BUCKETS
        for bucket, count in counts.items():
            self._parts.append(
                f'<rect class=ok x="{LEFT + bucket * width:.1f}" y="{self._y + 3}" '
                f'width="{width:.1f}" height="{LANE - 6}" opacity="{0.1 + 0.5 * count / most:.2f}"/>'
            )

    def _stalls(self) -> None:
        if not self._record.stalls:
            return
        self._label("harness late", LANE)
        for at_ns, late_ns in self._record.stalls:
            x = self._x(at_ns)
            self._parts.append(
                f"<g><title>{late_ns / 1e6:.0f} ms late</title><line class=stall x1="
                f'"{x:.1f}" x2="{x:.1f}" y1="{self._y + 4}" y2="{self._y + LANE - 4}"/></g>'
            )
        self._y += LANE


def _rank(some: Sequence[int], share: int) -> int:
    """A percentile by the nearest rank."""
    ordered = sorted(some)
    return ordered[-(-share * len(ordered) // 100) - 1]
