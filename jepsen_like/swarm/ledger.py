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


class Run(msgspec.Struct, frozen=True):
    """A whole swarm in a line, short enough to be kept with the sources."""

    version: str
    """Of the store that was run."""
    first_seed: int
    next_seed: int
    """The first seed that was not begun."""
    seeds: int
    transactions: int
    virtual_hours: float
    fault_kinds: int
    probes_hit: int
    probes_declared: int
    anomalies: int
    failed: int
    stuck: int
    vacuous: int
    canaries: int
    trace_mismatches: int
    seconds: float


class Record:
    """A file with a line for each swarm; it is only ever added to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def runs(self) -> list[Run]:
        """All swarms so far; msgspec.DecodeError for a line that is none."""
        if not self._path.exists():
            return []
        lines = self._path.read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Run) for line in lines if line.strip()]

    def next_seed(self, first: int) -> int:
        """The seed after the last one that any swarm has begun, and not below `first`."""
        return max((run.next_seed for run in self.runs()), default=first)

    def add(self, run: Run) -> None:
        """Add a swarm."""
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(run) + b"\n")


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
