"""From anomalies found to a verdict under the consistency asked for."""

from __future__ import annotations

from collections.abc import Sequence

from jepsen_like.transactions.models import boundary, prohibited_anomalies
from jepsen_like.verdict import Finding, Verdict


def needs(consistency: str) -> tuple[bool, bool]:
    """Whether the order of sessions and the order of real time matter to a consistency model."""
    forbidden = prohibited_anomalies(consistency)
    realtime = any(name.endswith("-realtime") for name in forbidden)
    return any(name.endswith("-process") for name in forbidden), realtime


def verdict_of(
    findings: Sequence[Finding], consistency: str, *, vacuous: str = "", incomplete: str = ""
) -> Verdict:
    """Invalid if the model forbids something found; unknown if nothing was constrained or not all was searched.

    `vacuous` and `incomplete` are the reasons, empty when they do not apply. What the model allows is not
    reported, but counts among the models violated once the history is invalid.
    """
    forbidden = prohibited_anomalies(consistency)
    bad = [finding for finding in findings if finding.name in forbidden]
    if not bad:
        reason = vacuous or incomplete
        return Verdict("unknown" if reason else True, reason=reason)
    names = tuple(sorted({finding.name for finding in bad}))
    weakest, others = boundary({finding.name for finding in findings})
    reason = f"{', '.join(names)}: not {' nor '.join(weakest)}. {bad[0].why}"
    return Verdict(False, names, weakest, others, tuple(bad), reason)
