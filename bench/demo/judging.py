"""The verdict: the journals of all processes as one history, for a checker that shares no code with the pool."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from jepsen_like import History, HistoryError, check
from jepsen_like.formats.write import write
from jepsen_like.history import Event
from kv_pool.edge.journal import INVOKE, Note

MODEL = "kv-directory"
FINDINGS_MAX = 5


class Judgement(Struct, frozen=True, kw_only=True):
    """What the checker says: whether the history is valid, of how many operations, and what is wrong.

    unknown  operations of which nobody learned what came of them
    """

    valid: bool
    operations: int
    unknown: int
    seconds: float
    findings: tuple[str, ...]


def judge(notes: Iterable[Note], file: Path | None = None) -> Judgement:
    """Merge and check; `file`: where the history is kept, for `k2 check history`."""
    history = merged(notes)
    if file is not None:
        write(file, history, "native")
    try:
        verdict = check(history, model=MODEL)
    except HistoryError as error:
        return Judgement(valid=False, operations=0, unknown=0, seconds=0, findings=(str(error),))
    findings = [one.why for one in verdict.findings[:FINDINGS_MAX]]
    if verdict.valid is not True and not findings:
        findings = [verdict.reason]
    return Judgement(
        valid=verdict.valid is True,
        operations=verdict.operations,
        unknown=sum(one.outcome == "info" for one in history.operations),
        seconds=verdict.seconds,
        findings=tuple(findings),
    )


def merged(notes: Iterable[Note]) -> History:
    """One history in order of time: all processes share one clock."""
    events = [
        Event(
            0, note.kind, note.process, note.f, note.value, note.time_ns, stamp=note.stamp or None
        )
        for note in notes
    ]
    return History.merge([History(events)])


def last_stamp(notes: Sequence[Note]) -> int:
    """The newest stamp that anybody was told."""
    return max([note.stamp for note in notes if note.kind != INVOKE], default=0)
