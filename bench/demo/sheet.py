"""What the reports of all runs have in common: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from bench.demo.course import Fault
from bench.demo.judging import Judgement
from bench.demo.plots import COLOURS, bars

STYLE: Final = """
:root { color-scheme: light }
body { font: 15px/1.55 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 60rem;
  padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem }
.lead { color: #555; margin-top: 0 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem; margin: 1.2rem 0 }
.tile { border: 1px solid #ddd; border-radius: 6px; padding: .6rem .8rem }
.tile b { font-size: 1.35rem; display: block }
.tile span { color: #666; font-size: .85rem } .good b { color: #1f7a4d } .bad b { color: #b23a48 }
figure { margin: 1rem 0 1.4rem } figcaption { font-weight: 600; margin-bottom: .2rem }
svg { width: 100%; height: auto; max-width: 52rem } svg text { font: 11.5px system-ui, sans-serif; fill: #444 }
.end { text-anchor: end } .mid { text-anchor: middle } svg text.note { font-size: 10px; fill: #8a5a00 }
.grid { stroke: #e6e6e6 } .line { fill: none; stroke-width: 1.8 } .band { fill: #f6c667; opacity: .33 }
.key { margin-right: 1.1rem; font-size: .88rem } .key i { display: inline-block; width: .8rem; height: .8rem;
  border-radius: 2px; margin-right: .35rem; vertical-align: -1px }
table { border-collapse: collapse; margin: .6rem 0 } td, th { text-align: left; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid #e6e6e6; vertical-align: top } td.n, th.n { text-align: right }
.label { font-size: .75rem; border: 1px solid #bbb; border-radius: 3px; padding: 0 .3rem; color: #555 }
"""


def opening(title: str) -> str:
    """The beginning of a page, up to its heading."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>\n"
        f"<meta name=viewport content='width=device-width'><title>{escape(title)}</title>\n"
        f"<style>{STYLE}</style><h1>{escape(title)}</h1>"
    )


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """Figures to see first: name, value, and a mood (``good``, ``bad`` or none)."""
    cells = "".join(
        [
            f"<div class='tile {mood}'><b>{escape(value)}</b><span>{name}</span></div>"
            for name, value, mood in figures
        ]
    )
    return f"<div class=tiles>{cells}</div>"


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Rows under a head."""
    top = "".join([f"<th>{escape(cell)}</th>" for cell in head])
    lines = "".join(
        ["<tr>" + "".join([f"<td>{escape(cell)}</td>" for cell in row]) + "</tr>" for row in body]
    )
    return f"<table><tr>{top}</tr>{lines}</table>"


def recoveries(faults: Sequence[Fault]) -> str:
    """Bars of recovery, and what was seen."""
    if not faults:
        return "<p>None were asked for (<code>--faults</code>).</p>"
    drawn = bars(
        [(one.kind, one.recovery_s, f"{one.recovery_s:.1f} s") for one in faults],
        title="Seconds until all was well again",
        colour=COLOURS[2],
    )
    said = table(
        ("fault", "what was seen", "learners beside the store"),
        [
            (
                one.what,
                one.evidence,
                (
                    f"{'DIFFER' if one.compared.differences else 'equal'}: {one.compared.rows:,} rows, "
                    f"{one.compared.prompts} prompts"
                ),
            )
            for one in faults
        ],
    )
    return drawn + said


def verdict(judgement: Judgement, incidents: Sequence[str]) -> str:
    """What the checker says."""
    word = "valid" if judgement.valid else "INVALID"
    items = "".join([f"<li>{escape(one)}</li>" for one in judgement.findings])
    unplanned = "".join([f"<li>{escape(one)}</li>" for one in incidents])
    return (
        f"<p>The history of all processes, {judgement.operations:,} operations of which "
        f"{judgement.unknown} have an unknown outcome, is <b>{word}</b>: every claim was given what was "
        "there at its stamp, nothing was evicted while claimed, nothing a dead worker published "
        "counts, and in the end the store holds what was acknowledged and no more.</p>"
        f"<ul>{items}</ul>" + (f"<p>Not planned:</p><ul>{unplanned}</ul>" if incidents else "")
    )
