"""A bar that says how far a long verb is, on the error stream."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from k2store.cli.verb import output


@contextmanager
def progress(text: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Gives the function that says how much more is done; draws only on a terminal.

    ``total`` None: how much there is to do is not known.
    """
    if output().quiet or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda count: bar.advance(task, count)
