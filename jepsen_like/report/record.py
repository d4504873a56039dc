"""The record of a run: JSON, everything that a person who was not there wants to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from jepsen_like.nemesis.nemesis import Applied
from jepsen_like.sim.journal import Journal

FORMAT: Final = 1
NAME: Final = "run.json"
"""Of the record in the folder of a run."""


class BadRecord(ValueError):
    """A file that is no record of a run."""


class Operation(msgspec.Struct, frozen=True, array_like=True):
    """One transaction as its client saw it; times in ns since the beginning of the run.

    `ended_ns` is -1 for one that never ended, `error` the name of what it failed with.
    """

    client: int
    what: str
    began_ns: int
    ended_ns: int
    outcome: str
    writes: int
    error: str = ""


class Change(msgspec.Struct, frozen=True, array_like=True):
    """From then on a node leads a partition."""

    at_ns: int
    partition: int
    node: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A run. All times in ns since its beginning, by the clock that true time is in it."""

    format: int = FORMAT
    title: str
    duration_ns: int
    hosts: dict[str, str]
    faults: list[Applied]
    operations: list[Operation]
    leaders: list[Change] = []
    stalls: list[tuple[int, int]] = []
    """When the harness itself was late, and by how much."""
    verdict: dict[str, Any]


def record_of(
    journal: Journal,
    *,
    applied: Sequence[Applied],
    began_ns: int,
    hosts: Mapping[str, str],
    verdict: Mapping[str, Any],
    leaders: Sequence[Change] = (),
    stalls: Sequence[tuple[int, int]] = (),
    title: str = "run of real processes",
) -> Record:
    """The record of a run that is over; all times given are on the clock of the journal."""
    operations = [
        Operation(
            entry.process,
            entry.what,
            entry.began_ns - began_ns,
            entry.ended_ns - began_ns if entry.ended_ns else -1,
            entry.outcome,
            len(entry.writes),
            entry.error,
        )
        for entry in journal.entries
    ]
    last_ns = max((max(one.began_ns, one.ended_ns) for one in operations), default=0)
    faults = [
        msgspec.structs.replace(
            one, began_ns=one.began_ns - began_ns, ended_ns=one.ended_ns - began_ns
        )
        for one in applied
    ]
    return Record(
        title=title,
        duration_ns=max([last_ns, *(one.ended_ns for one in faults)]),
        hosts=dict(hosts),
        faults=faults,
        operations=operations,
        leaders=[Change(one.at_ns - began_ns, one.partition, one.node) for one in leaders],
        stalls=[(at_ns - began_ns, late_ns) for at_ns, late_ns in stalls],
        verdict=dict(verdict),
    )


def write(record: Record, path: Path) -> None:
    """Write it to a file."""
    path.write_bytes(msgspec.json.encode(record))


def read(path: Path) -> Record:
    """Read a file, or the record in a folder; BadRecord, OSError."""
    place = path / NAME if path.is_dir() else path
    try:
        record = msgspec.json.decode(place.read_bytes(), type=Record)
    except msgspec.MsgspecError as error:
        raise BadRecord(f"{place} is no record of a run: {error}") from error
    if record.format != FORMAT:
        raise BadRecord(f"{place} has format {record.format}; this reads {FORMAT}")
    return record
