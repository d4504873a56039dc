"""The command line of `k2 bench serve`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final

import click

from bench.processes import BenchError
from bench.progress import progress
from bench.serve.part import Findings, Options
from k2store.cli.exits import Exit
from k2store.cli.verb import Verb, output

PARTS: Final[Mapping[str, str]] = {
    "epic": "bench.serve.epic:measure",
    "pd": "bench.serve.pd:measure",
    "routing": "bench.serve.routing:measure",
    "raas": "bench.serve.raas:measure",
    "memory": "bench.serve.memory:measure",
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
@click.option(
    "--records",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep what is found in this folder as it comes, and go on from what is there (epic).",
)
def serve(*, parts: tuple[str, ...], quick: bool, seed: int, records: Path | None) -> None:
    """Measure what reuse of keys and values saves and what it costs, on a real model.

    With --json the last line is one object. Interrupted, it tells what it has.
    """
    told = output()
    findings = Findings()
    with progress(quiet=told.quiet) as begin:
        for name in parts or tuple(PARTS):
            try:
                found = measure_of(name)(Options(quick, seed, begin, records))
            except BenchError as error:
                raise click.ClickException(str(error)) from None
            findings.add(found.document)
            findings.tables += found.tables
            findings.interrupted = found.interrupted
            if found.interrupted:
                break
    if told.as_json:
        told.document(findings.document, "")
    else:
        for table in findings.tables:
            click.echo(f"\n{table.title}")
            told.table(table.title, table.columns, table.rows)
    if findings.interrupted:
        click.get_current_context().exit(Exit.INTERRUPTED)
