"""A thread that waits for the disk while its owner goes on working.

A sync is mostly waiting, and a node under load has something to do meanwhile.  Starting a thread
is not enough: it would not get the interpreter before its owner pauses.  So the owner hands the
interpreter over, and gets it back when the thread is inside the system call::

    owner    ── run ─┐            ┌─ meanwhile() ───────┐        ┌─ goes on
                     │ go         │ begun               │ done   │
    thread           └─ fdatasync ┴──── waits for the disk ──────┘

It costs two changes of thread, some 20 µs of CPU.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable


class SyncThread:
    """One such thread, begun with the first sync; it ends when its owner lets go of this."""

    def __init__(self) -> None:
        self._exchange: _Exchange | None = None

    def run(self, descriptor: int, meanwhile: Callable[[], object]) -> None:
        """fdatasync beside ``meanwhile()``; returns when both are over.  Raises OSError of the
        sync, and whatever ``meanwhile`` raises, but not before the sync is over."""
        exchange = self._exchange
        if exchange is None:
            exchange = self._exchange = _Exchange()
            threading.Thread(target=exchange.serve, name="k2-sync", daemon=True).start()
            weakref.finalize(self, exchange.end)
        exchange.descriptor = descriptor
        exchange.go.release()
        exchange.begun.acquire()
        try:
            meanwhile()
        finally:
            exchange.done.acquire()
        error, exchange.error = exchange.error, None
        if error is not None:
            raise error


class _Exchange:
    """What the thread shares with its owner; each lock is held until its event has happened."""

    def __init__(self) -> None:
        self.go, self.begun, self.done = threading.Lock(), threading.Lock(), threading.Lock()
        for event in (self.go, self.begun, self.done):
            event.acquire()
        self.descriptor = -1
        self.error: OSError | None = None

    def serve(self) -> None:
        """The thread."""
        while True:
            self.go.acquire()
            if self.descriptor < 0:
                return
            self.begun.release()
            try:
                os.fdatasync(self.descriptor)
            except OSError as error:
                self.error = error
            self.done.release()

    def end(self) -> None:
        """Let the thread end."""
        self.descriptor = -1
        self.go.release()
