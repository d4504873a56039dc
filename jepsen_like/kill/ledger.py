"""What clients wrote and were told, and the judgement of what the store holds."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct


class End(enum.Enum):
    """How a write ended, as its client was told."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Row(NamedTuple):
    """What the store holds at a key: value and stamp."""

    value: bytes
    version: int


class Write(Struct):
    """One transaction that writes keys nobody else writes, or adds one to a counter.

    rows         what it wrote; the value of a counter is judged apart
    transaction  id in hex of an unknown one, to ask for its outcome
    at           stamp, once it is known to have committed; 0 if it was told without
    counter      the counter it added to, if any
    why          what its client was told instead of success
    """

    rows: dict[bytes, bytes]
    end: End = End.UNKNOWN
    transaction: str = ""
    at: int = 0
    counter: bytes = b""
    why: str = ""


class Ledger:
    """All writes of one round."""

    def __init__(self) -> None:
        self._writes: list[Write] = []
        self.resolved: Counter[str] = Counter()

    def begin(self, rows: dict[bytes, bytes], counter: bytes = b"") -> Write:
        """A write leaves now. Until its client is told otherwise, its outcome is unknown."""
        write = Write(rows, counter=counter)
        self._writes.append(write)
        return write

    def count(self, end: End) -> int:
        """How many writes ended that way."""
        return sum(write.end is end for write in self._writes)

    def unknown(self) -> Iterator[Write]:
        """The writes whose clients do not know."""
        return (write for write in self._writes if write.end is End.UNKNOWN)

    def resolve(self, write: Write, *, committed: bool, at: int) -> None:
        """The store has told what became of an unknown write."""
        self.resolved["committed" if committed else "aborted"] += 1
        write.end, write.at = (End.ACKNOWLEDGED, at) if committed else (End.REFUSED, 0)
        write.why += "; the store says that it has aborted"

    def violations(self, rows: Mapping[bytes, Row], counters: Iterable[bytes]) -> Iterator[str]:
        """How all rows of the round, the counters' included, contradict what clients were told."""
        added = dict.fromkeys(counters, 0)
        expected = set(added)
        refused: dict[bytes, str] = {}
        for write in self._writes:
            if write.end is End.REFUSED:
                refused |= dict.fromkeys(write.rows, write.why)
                continue
            expected |= write.rows.keys()
            if write.end is End.UNKNOWN:
                yield f"{write.transaction} ({sorted(write.rows)}) stays unknown"
                continue
            if write.counter:
                added[write.counter] += 1
            yield from self._missing(write, rows)
        for key in rows.keys() - expected:
            why = refused.get(key, "nobody wrote it")
            yield f"{key!r} = {rows[key].value!r} is there, but its write was refused: {why}"
        for counter, count in added.items():
            held = int(rows[counter].value) if counter in rows else 0
            if held != count:
                yield f"{counter!r} is {held}, {count} additions were acknowledged"

    @staticmethod
    def _missing(write: Write, rows: Mapping[bytes, Row]) -> Iterator[str]:
        for key, value in write.rows.items():
            row = rows.get(key)
            if row is None:
                yield f"{key!r} was acknowledged at {write.at} and is lost"
            elif row.value != value:
                yield f"{key!r} is {row.value!r}, acknowledged was {value!r}"
            elif write.at and row.version != write.at:
                yield f"{key!r} has stamp {row.version}, acknowledged was {write.at}"
