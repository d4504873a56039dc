"""The ledger: which seeds were ever run, and what came of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec


class Line(msgspec.Struct, frozen=True):
    """One seed. `kind`: node or cluster; `verdict`: holds, failed, vacuous, stuck or trace."""

    kind: str
    seed: int
    verdict: str
    trace: str
    transactions: int
    commits: int
    load_ns: int
    """Virtual time during which clients were at work."""


class Ledger:
    """A file of lines; it is only ever added to."""

    def __init__(self, path: Path | None) -> None:
        """`path` None: nothing is kept."""
        self._path = path

    def lines(self) -> Iterator[Line]:
        """All lines so far; msgspec.DecodeError for what is none."""
        if self._path is None or not self._path.exists():
            return
        with self._path.open("rb") as file:
            for line in file:
                yield msgspec.json.decode(line, type=Line)

    def next_seed(self, first: int) -> int:
        """The seed after the largest that was run, and not below `first`."""
        return max((line.seed + 1 for line in self.lines()), default=first)

    def add(self, line: Line) -> None:
        """Add a line."""
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")
