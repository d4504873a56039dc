"""The trace: what happened, as lines, folded into one hash.

Two runs of one seed must give the same hash in any process. Where they do not, writing both
traces out and comparing them shows the first event that differs. The last lines are kept in
memory, for the report of a failure.
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable
from typing import IO, Final

_BATCH_EVENTS: Final = 512
TAIL_EVENTS: Final = 200


class Trace:
    """Receives events, in the order they happen on the loop.

    Words and numbers only: an object's default `repr` holds its address, which differs from run
    to run.
    """

    def __init__(self, now: Callable[[], int], sink: IO[str] | None = None) -> None:
        """`now` gives virtual time in ns; `sink` receives every line, if there is one."""
        self.count = 0
        self._now = now
        self._sink = sink
        self._hash = hashlib.blake2b(digest_size=16)
        self._batch: list[str] = []
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_EVENTS)

    def event(self, kind: str, *words: str | int | bytes) -> None:
        """Note one event."""
        self._batch.append(f"{self._now()} {kind} {words}")
        self.count += 1
        if len(self._batch) >= _BATCH_EVENTS:
            self._fold()

    @property
    def hash(self) -> str:
        """Hash over all events so far, as 32 hexadecimal digits."""
        self._fold()
        return self._hash.hexdigest()

    def tail(self) -> list[str]:
        """The last events, oldest first, at most TAIL_EVENTS."""
        self._fold()
        return list(self._tail)

    def _fold(self) -> None:
        if not self._batch:
            return
        text = "\n".join(self._batch) + "\n"
        self._hash.update(text.encode())
        self._tail.extend(self._batch[-TAIL_EVENTS:])
        if self._sink is not None:
            self._sink.write(text)
        self._batch.clear()
