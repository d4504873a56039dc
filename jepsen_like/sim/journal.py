"""What every transaction of a run did, key by key: the white box beside the histories.

A history says what a workload's clients asked and heard, in the workload's own terms. The journal
says the same of all workloads at once in terms of keys, versions and commit stamps, so that one
serial replay (`replay`) can check all of it together. Its positions count the events of the whole
run, so they order events of different workloads as the one observer saw them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import msgspec

Outcome: TypeAlias = Literal["open", "ok", "fail", "unknown"]


ANY_VERSION: Final = -1
"""The version of a reading that only the value is known of."""


class Reading(msgspec.Struct, frozen=True):
    """One key as a transaction saw it: version 0 and None where it has no value."""

    key: bytes
    version: int
    value: bytes | None


class Scanned(msgspec.Struct, frozen=True):
    """One range as a transaction saw it, in order of keys, without the keys it had written itself.

    `complete` is False when the scan stopped at a limit.
    """

    start: bytes
    end: bytes
    rows: tuple[Reading, ...]
    hidden: frozenset[bytes]
    complete: bool
    reverse: bool


class Entry(msgspec.Struct):
    """One transaction: its latest attempt, or the one-shot or view that it was.

    `at` is the stamp it reported, 0 if none; `began` and `ended` are positions in the run, with
    `ended` 0 while it is open; `began_ns` and `ended_ns` are true time. `refuted` are conditions on
    a value that did not hold at `at`.
    """

    number: int
    process: int
    what: str
    began: int
    began_ns: int
    ended: int = 0
    ended_ns: int = 0
    outcome: Outcome = "open"
    txn: bytes = b""
    at: int = 0
    stale: bool = False
    """A view of the past: it has a place in the order of stamps, but not in real time."""
    staleness_ns: int = 0
    """How old a view of the past may be, as it was asked for."""
    reads: list[Reading] = []
    scans: list[Scanned] = []
    writes: dict[bytes, bytes | None] = {}
    refuted: list[Reading] = []
    error: str = ""

    @property
    def anchor(self) -> bytes:
        """The first key it wrote."""
        return next(iter(self.writes), b"")

    def covers(self, key: bytes) -> bool:
        """Whether it wrote the key."""
        return key in self.writes


class Journal:
    """All entries of a run, in order of their beginnings."""

    def __init__(self, true_ns: Callable[[], int], stamp_ns: Callable[[int], int]) -> None:
        """`true_ns` is true time, `stamp_ns` the time a stamp stands for; both in ns."""
        self.entries: list[Entry] = []
        self.broken_time: list[str] = []
        """Acknowledgements that true time does not allow (rules T1 and T3), and views staler than was asked."""
        self.true_ns = true_ns
        self._stamp_ns = stamp_ns
        self._position = 0
        self._processes = 0
        self.commits_so_far = 0
        """Acknowledged transactions that wrote something."""
        self.busy_s: set[int] = set()
        """Seconds of true time within which such a one was acknowledged."""

    def process(self) -> int:
        """A process number that nobody has had."""
        self._processes += 1
        return self._processes

    def begin(self, process: int, what: str) -> Entry:
        """Note that a transaction begins."""
        self._position += 1
        entry = Entry(
            len(self.entries), process, what, self._position, self.true_ns(), reads=[], scans=[]
        )
        self.entries.append(entry)
        return entry

    def end(self, entry: Entry, outcome: Outcome, at: int = 0, error: str = "") -> None:
        """Note how it ended."""
        assert entry.outcome == "open", entry
        self._position += 1
        entry.ended = self._position
        entry.ended_ns = self.true_ns()
        entry.outcome = outcome
        entry.error = error
        if at:
            entry.at = at
        if outcome == "ok" and entry.writes:
            self.commits_so_far += 1
            self.busy_s.add(self.true_ns() // 1_000_000_000)
        if outcome == "ok" and entry.at:
            self._check_time(entry)

    def _check_time(self, entry: Entry) -> None:
        stamp_ns, now_ns = self._stamp_ns(entry.at), self.true_ns()
        if stamp_ns < entry.began_ns - entry.staleness_ns:
            self.broken_time.append(
                f"{entry.what} {entry.number} has a stamp {entry.began_ns - stamp_ns} ns before "
                f"it began, where {entry.staleness_ns} ns are allowed"
            )
        if now_ns <= stamp_ns:
            self.broken_time.append(
                f"{entry.what} {entry.number} was acknowledged {stamp_ns - now_ns} ns before its "
                "stamp"
            )
