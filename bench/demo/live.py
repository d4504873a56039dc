"""What is shown of a run while it lasts: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bench.samples import Spread
    from k2store.cli.output import Output

REFRESH_PER_S: Final = 4
LINE_S: Final = 5.0
EVENTS_MAX: Final = 8


class Shown(Protocol):
    """A run that can be looked at while it lasts."""

    stage: str

    def line(self) -> str:
        """The state in a line; empty where there is nothing to tell yet."""
        ...

    def progress(self) -> tuple[int, int]:
        """How much is done, of how much."""
        ...

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        """Columns, the first of them names, and rows."""
        ...


class Live:
    """What is known to whoever draws; made by `shown`."""

    def __init__(self, told: Output, *, drawn: bool) -> None:
        self._told = told
        self._drawn = drawn
        self._began_s = time.monotonic()
        self._stage = ""
        self._run: Shown | None = None
        self.events: deque[str] = deque(maxlen=EVENTS_MAX)

    def say(self, text: str) -> None:
        """Something happened."""
        self.events.append(text)
        if not self._drawn:
            self._told.note(text)

    def stage(self, text: str) -> None:
        """What is going on now."""
        self._stage = text
        if not self._drawn:
            self._told.note(text)

    def watch(self, run: Shown | None) -> None:
        """From now on, what a run says; None for no longer."""
        self._run = run

    def line(self) -> str:
        """What the run says in a line."""
        return "" if self._run is None else self._run.line()

    def render(self) -> RenderableType:
        """The state as a table."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        run = self._run
        stage = self._stage if run is None else run.stage
        elapsed_s = time.monotonic() - self._began_s
        parts: list[RenderableType] = [Text(f"k2 demo · {stage} · {elapsed_s:.0f} s", "bold")]
        if run is not None:
            done, total = run.progress()
            parts += [ProgressBar(total=total, completed=done, width=60), _table(*run.table())]
        parts += [Text(event, "dim") for event in self.events]
        return Group(*parts)


@contextlib.contextmanager
def shown(told: Output) -> Iterator[Live]:
    """Show a run while the block runs, unless nobody wants to see it."""
    drawn = not told.quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    live = Live(told, drawn=drawn)
    if told.quiet:
        yield live
    elif drawn:
        from rich.console import Console
        from rich.live import Live as Screen

        with Screen(
            console=Console(stderr=True),
            get_renderable=live.render,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
        ):
            yield live
        for event in live.events:
            told.note(event)
    else:
        with _lines(live, told):
            yield live


@contextlib.contextmanager
def _lines(live: Live, told: Output) -> Iterator[None]:
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(LINE_S):
            line = live.line()
            if line:
                told.note(line)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def share(part: int, whole: int) -> str:
    """A part in percent."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def times(spread: Spread) -> str:
    """Median and tail."""
    return f"p50 {spread.p50_ms:.1f} ms, p99 {spread.p99_ms:.1f} ms"
