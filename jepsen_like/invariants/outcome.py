"""How the invariant checkers make up their verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jepsen_like.history import HistoryError, Operation
from jepsen_like.values import show
from jepsen_like.verdict import Finding, Verdict

FINDINGS_MAX = 64


def verdict_of(
    findings: Iterable[Finding], violated: Sequence[str] = (), *, vacuous: str = ""
) -> Verdict:
    """Invalid with what was found; else unknown for the reason `vacuous`, or valid if there is none."""
    found = tuple(findings)
    if found:
        names = tuple(sorted({finding.name for finding in found}))
        weakest = tuple(sorted(violated))
        return Verdict(False, names, weakest, (), found[:FINDINGS_MAX], found[0].why)
    return Verdict("unknown" if vacuous else True, reason=vacuous)


def items(operation: Operation, value: object) -> Sequence[object]:
    """The elements of a list or set that an operation gave."""
    if value is None:
        return ()
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return value
    raise HistoryError(f"event {operation.index}: {show(value)} is not a list of elements")


def integer(operation: Operation, value: object) -> int:
    """The number that an operation carries."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise HistoryError(f"event {operation.index}: {show(value)} is not an integer")
