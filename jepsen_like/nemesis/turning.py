"""Something that happens again and again while a fault lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Turned:
    """How often it has happened."""

    def __init__(self) -> None:
        self.count = 0


@contextmanager
def turning(every_s: float, turn: Callable[[], None]) -> Iterator[Turned]:
    """Call `turn` at once and then so often, in a thread; its end is waited for."""
    over, turned = threading.Event(), Turned()

    def run() -> None:
        while True:
            turn()
            turned.count += 1
            if over.wait(every_s):
                return

    thread = threading.Thread(target=run, name="fault", daemon=True)
    thread.start()
    try:
        yield turned
    finally:
        over.set()
        thread.join()
