"""From a verdict to sentences."""

from __future__ import annotations

from jepsen_like.checking import check
from jepsen_like.history import Recorder

FINDINGS_MAX = 5


def judged(recorder: Recorder, model: str, **options: object) -> list[str]:
    """What a checker finds in the history; an undecided history counts as a finding."""
    verdict = check(recorder.history(), model=model, **options)  # type: ignore[arg-type]
    if verdict.valid is True:
        return []
    if verdict.valid == "unknown":
        return [f"{model}: undecided: {verdict.reason}"]
    return [f"{model}: {one.name}: {one.why}" for one in verdict.findings[:FINDINGS_MAX]] or [
        f"{model}: {verdict.reason}"
    ]
