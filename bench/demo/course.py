"""What every run leaves: moments, counts of the network, faults, comparisons, journals. Times are of the machine's
monotonic clock, ns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from k2store.testing.wan.link import LinkCounts
from kv_pool.edge.journal import Note

Links = dict[tuple[str, str], LinkCounts]
"""What the network has counted, by source and target."""


class Compared(NamedTuple):
    """Learners beside the store: rows and prompts that were looked at, and every difference."""

    rows: int
    prompts: int
    differences: list[str]


class Fault(Struct, kw_only=True):
    """One fault: from when to when on the machine's monotonic clock (ns), and what was seen.

    recovery_s  until all was well
    compared    every learner, afterwards
    """

    kind: str
    what: str
    began_ns: int
    ended_ns: int = 0
    recovery_s: float = 0.0
    evidence: str = ""
    compared: Compared = Compared(0, 0, [])


class Course(Struct, kw_only=True):
    """See the module.

    started_ns  when everybody answered, and all was ready for the first prompt
    crossings   round trips between regions that a publish at home takes, counted before prompts come
    staleness   (moment, region, by how much its router's learner said to lag, s)
    wan         what went over each link while prompts came
    compared    every learner, in the end
    incidents   what happened that nobody had planned
    """

    began_ns: int
    started_ns: int = 0
    ended_ns: int = 0
    crossings: int = 0
    wan_kind: str = ""
    staleness: list[tuple[int, str, float]] = []
    faults: list[Fault] = []
    wan: Links = {}
    compared: Compared = Compared(0, 0, [])
    incidents: list[str] = []
    notes: list[Note] = []


def troubled(at_ns: int, faults: Sequence[Fault]) -> bool:
    """Whether a fault was going on."""
    return any(one.began_ns <= at_ns <= (one.ended_ns or at_ns) for one in faults)
