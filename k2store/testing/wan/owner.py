"""The engine's end of the pipe to its owner, on standard input and output."""

from __future__ import annotations

import os
import signal
from typing import Final

from k2store.testing.wan.orders import Lines, Order, Reply, Setup, decode_order, encode

INPUT: Final = 0
OUTPUT: Final = 1

LOOK_S: Final = 1.0
"""Between two looks whether the owner is still the parent, should its pipe live on in another."""

_PIECE_BYTES: Final = 1 << 16


class Owner:
    """Whoever started this engine, for as long as it is there."""

    def __init__(self) -> None:
        self._process = os.getppid()
        self._lines = Lines()
        # The owner's end decides, and not what a terminal sends to everybody.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    @property
    def present(self) -> bool:
        """Whether the owner is still this process's parent."""
        return os.getppid() == self._process

    def setup(self) -> Setup | None:
        """Wait for the first order; None when the owner is gone before."""
        while (orders := self.orders()) is not None:
            if orders:
                setup = orders[0]
                assert isinstance(setup, Setup), "the first order says what there is"
                assert len(orders) == 1, "nothing is asked before the network stands"
                return setup
        return None

    def orders(self) -> list[Order] | None:
        """The orders that came since, perhaps none yet; None when the owner has closed the pipe."""
        piece = os.read(INPUT, _PIECE_BYTES)
        if not piece:
            return None
        return [decode_order(line) for line in self._lines.feed(piece)]

    def answer(self, reply: Reply) -> None:
        """Write one line to the owner, who may be gone: then the next read says so."""
        try:
            os.write(OUTPUT, encode(reply) + b"\n")
        except BrokenPipeError:
            pass
