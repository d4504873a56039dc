"""The command line of `k2 bench serve`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final

import click

from bench.progress import progress
from bench.serve.part import Findings, Options
from k2store.cli.verb import Verb, output

PARTS: Final[Mapping[str, str]] = {
    "epic": "bench.serve.epic:measure",
    "pd": "bench.serve.pd:measure",
    "routing": "bench.serve.routing:measure",
    "raas": "bench.serve.raas:measure",
}
"""By name: a function that takes `Options` and gives `Findings`."""


def measure_of(name: str) -> Callable[[Options], Findings]:
    """The function of a part; imported when asked for, since some of them need torch."""
    module, _, attribute = PARTS[name].partition(":")
    function: Callable[[Options], Findings] = getattr(import_module(module), attribute)
    return function


@click.command(cls=Verb)
@click.option(
    "--part",
    "parts",
    type=click.Choice(list(PARTS)),
    multiple=True,
    help="Only this; may be repeated.",
)
@click.option("--quick", is_flag=True, help="A slice of seconds: counts only.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of all that is drawn.")
def serve(*, parts: tuple[str, ...], quick: bool, seed: int) -> None:
    """Measure what reuse of keys and values saves and what it costs, on a real model.

    With --json the last line is one object.
    """
    told = output()
    findings = Findings()
    with progress(quiet=told.quiet) as begin:
        for name in parts or tuple(PARTS):
            found = measure_of(name)(Options(quick, seed, begin))
            findings.add(found.document)
            findings.tables += found.tables
    if told.as_json:
        told.document(findings.document, "")
        return
    for table in findings.tables:
        click.echo(f"\n{table.title}")
        told.table(table.title, table.columns, table.rows)
