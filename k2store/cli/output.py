"""What a verb prints: one document or a table, records as they come, and progress beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence

from k2store.cli.notation import show

WIDE = 10_000
"""Columns assumed where nobody reads on a terminal: nothing is cut or wrapped in a pipe."""


class Output:
    """The streams of one run of a verb, and how its user wants them."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet

    def document(self, document: Mapping[str, object], text: str | Callable[[], str]) -> None:
        """One result: the document under ``--json``, else its text."""
        if self.as_json:
            self._line(json.dumps(document, default=_plain))
        else:
            self._line(text if isinstance(text, str) else text())

    def record(self, record: Mapping[str, object], text: str) -> None:
        """One of many results that leave as they come: a line of JSON each, or a line of text."""
        self._line(json.dumps(record, default=_plain) if self.as_json else text)
        sys.stdout.flush()

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Rows under ``columns``; under ``--json`` a document ``{name: [{column: cell}...]}``."""
        if self.as_json:
            records = [dict(zip(columns, row, strict=True)) for row in rows]
            self._line(json.dumps({name: records}, default=_plain))
        elif rows:
            self._draw(columns, rows)
        else:
            self.note(f"no {name}")

    def note(self, text: str) -> None:
        """Progress, for people: the error stream, dropped by ``-q``."""
        if not self.quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def _line(self, text: str) -> None:
        sys.stdout.write(text + "\n")

    def _draw(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        width = None if sys.stdout.isatty() else WIDE
        table = Table(box=box.SIMPLE_HEAD if width is None else None, pad_edge=False)
        for column in columns:
            table.add_column(column.replace("_", " "), overflow="fold")
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        Console(width=width, highlight=False, markup=False).print(table)


def _plain(value: object) -> object:
    """JSON for what JSON does not know."""
    if isinstance(value, bytes):
        return show(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def _cell(value: object) -> str:
    """A value in a table."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return show(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
