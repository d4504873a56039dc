"""Progress on the error stream: a bar on a terminal, a line a step elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

REFRESH_S = 0.5
"""Rarely: drawing takes time on the core that makes the load."""


Begin = Callable[[str, float], None]
"""Told what begins, and about how many seconds it will take."""


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Begin]:
    """Progress unless nobody wants to see it."""
    if quiet:
        yield lambda _title, _seconds: None
    else:
        with bars() as begin:
            yield begin


@contextlib.contextmanager
def bars() -> Iterator[Begin]:
    """A bar on a terminal, lines elsewhere."""
    if sys.stderr.isatty():
        with _drawn() as begin:
            yield begin
    else:
        yield _written


def _written(title: str, seconds: float) -> None:
    sys.stderr.write(f"{title} (about {seconds:.0f} s)\n")
    sys.stderr.flush()


@contextlib.contextmanager
def _drawn() -> Iterator[Begin]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<36}"), BarColumn(), TimeElapsedColumn())
    ended = threading.Event()
    began_s = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as drawn:
        task = drawn.add_task("", total=1.0)

        def begin(title: str, seconds: float) -> None:
            nonlocal began_s
            began_s = time.monotonic()
            drawn.reset(task, description=title, total=seconds)
            drawn.refresh()

        def advance() -> None:
            while not ended.wait(REFRESH_S):
                drawn.update(task, completed=time.monotonic() - began_s)
                drawn.refresh()

        thread = threading.Thread(target=advance, daemon=True)
        thread.start()
        try:
            yield begin
        finally:
            ended.set()
            thread.join()
