"""One HTML page for one invalid history: words, and a picture of the operations in time.

The page needs nothing but itself: no script, no font, no address. Operations are bars on the line of their process;
the arrows are the edges of the smallest cycle found; an operation that cannot take effect is red.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

from jepsen_like.explain.verify import objections
from jepsen_like.history import NEVER, History, Operation
from jepsen_like.values import show
from jepsen_like.verdict import Finding, Verdict

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.3rem } h2 { font-size: 1.05rem; margin-top: 2rem }
svg { background: #fafafa; border: 1px solid #ddd; max-width: 100%; height: auto }
.bar { fill: #cfe3f7; stroke: #3b6ea5 } .bad { fill: #f7cfcf; stroke: #b03030 } .fail { fill: #eee; stroke: #999 }
.lane { stroke: #ddd } text { font: 11px ui-monospace, monospace } .edge { fill: none; stroke: #444; stroke-width: 1.4 }
.rw { stroke: #b03030 } .wr { stroke: #2a7a3b } .ww { stroke: #3b6ea5 } .realtime, .process { stroke-dasharray: 5 3 }
code { background: #f0f0f0; padding: 0 .2em } li { margin: .3em 0 }
"""
_WIDTH, _LANE, _LEFT, _TOP = 1000, 46, 90, 34


def page_of_file(path: Path, verdict: Verdict, model: str) -> str:
    """The page of a file's verdict."""
    if model == "list-append":
        from jepsen_like.formats import load_transactions

        txns = load_transactions(path)
        return page(
            path.name, verdict, txns.operation, lambda: map(txns.operation, range(txns.count))
        )
    from jepsen_like.formats import load

    return page_of_history(path.name, verdict, load(path))


def page_of_history(title: str, verdict: Verdict, history: History) -> str:
    """The page of the verdict of a history in memory."""
    operations = history.operations
    return page(title, verdict, operations.__getitem__, lambda: operations)


def page(
    title: str,
    verdict: Verdict,
    operation: Callable[[int], Operation],
    everything: Callable[[], Iterable[Operation]],
) -> str:
    """The page, from a way to look operations up."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(title)}: {'valid' if verdict.valid is True else 'not valid'}</h1>",
        f"<p>{verdict.operations} operations. Anomalies: {_codes(verdict.anomalies)}.</p>",
        f"<p>Weakest promises broken: {_codes(verdict.violated)}.</p>",
    ]
    for finding in verdict.findings:
        parts.append(f"<h2><code>{escape(finding.name)}</code></h2><p>{escape(finding.why)}</p>")
        if finding.steps:
            parts.append("<ol>")
            parts += [
                f"<li>T{s.source} → T{s.target} <code>{s.kind}</code>: {escape(s.why)}</li>"
                for s in finding.steps
            ]
            parts.append("</ol>")
            wrong = objections(finding, operation, everything)
            proved = "Every edge was proved again from the raw operations."
            parts.append(f"<p>{escape('; '.join(wrong)) if wrong else proved}</p>")
        parts.append(timeline(finding, operation))
    return "\n".join(parts) + "\n"


def _codes(names: Sequence[str]) -> str:
    return ", ".join(f"<code>{escape(name)}</code>" for name in names) or "none"


def timeline(finding: Finding, operation: Callable[[int], Operation]) -> str:
    """The operations of a finding as a picture."""
    numbers = list(dict.fromkeys([*finding.operations, *_witnesses(finding)]))
    shown = [operation(number) for number in numbers]
    if not shown:
        return ""
    lanes = list(dict.fromkeys(str(o.process) for o in sorted(shown, key=lambda o: o.start)))
    # Positions are drawn by rank: what matters is what came before what.
    points = sorted({p for o in shown for p in (o.start, o.end) if p != NEVER})
    rank = {point: i for i, point in enumerate(points)}
    gap = (_WIDTH - _LEFT - 30) / (len(points) + 1)
    height = _TOP + _LANE * len(lanes) + 10
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img">', _ARROW]
    for i, lane in enumerate(lanes):
        y = _TOP + _LANE * i + 12
        parts.append(f'<line class="lane" x1="{_LEFT}" x2="{_WIDTH}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="4" y="{y + 4}">process {escape(lane)[:8]}</text>')
    where: dict[int, tuple[float, float]] = {}
    for number, shown_operation in zip(numbers, shown, strict=True):
        left = _LEFT + gap * (rank[shown_operation.start] + 0.5)
        right = _WIDTH - 8.0
        if shown_operation.end != NEVER:
            right = max(left + 8, _LEFT + gap * (rank[shown_operation.end] + 0.5))
        top = _TOP + _LANE * lanes.index(str(shown_operation.process))
        blocked = not finding.steps and number == finding.operations[0]
        style = "bad" if blocked else ("fail" if shown_operation.outcome == "fail" else "bar")
        label = f"T{number} {shown_operation.f} {show(shown_operation.value)}"
        parts.append(
            f'<g><title>{escape(label)}</title><rect class="{style}" x="{left:.1f}" y="{top}" rx="3" '
            f'width="{right - left:.1f}" height="24"/>'
            f'<text x="{left + 4:.1f}" y="{top + 38}">{escape(label[:60])}</text></g>'
        )
        where[number] = ((left + right) / 2, top + 12.0)
    for step in finding.steps:
        (x1, y1), (x2, y2) = where[step.source], where[step.target]
        bend = -26 if y1 == y2 else 0
        middle = f"{(x1 + x2) / 2:.1f} {(y1 + y2) / 2 + bend * 1.6:.1f}"
        parts.append(
            f'<path class="edge {step.kind}" marker-end="url(#tip)" '
            f'd="M {x1:.1f} {y1} Q {middle} {x2:.1f} {y2}"/>'
        )
        parts.append(
            f'<text x="{(x1 + x2) / 2 + 4:.1f}" y="{(y1 + y2) / 2 + bend:.1f}">{step.kind}</text>'
        )
    return "\n".join([*parts, "</svg>"])


_ARROW = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M 0 0 L 8 4 L 0 8 z"/></marker></defs>'
)


def _witnesses(finding: Finding) -> list[int]:
    return [step.witness for step in finding.steps if step.witness is not None]
