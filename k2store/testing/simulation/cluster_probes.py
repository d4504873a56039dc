"""What members of a cluster can be made to do, as probes, beside those of a node by itself."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from mvcc.cases import Case

CLUSTER_PROBES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cluster.answer_lost": "a forwarded request was given up, its node gone or deposed",
        "cluster.case_confirmed_late": "a record was kept until the last participant had the verdict",
        "cluster.case_push_on_dropped": "a push about a transaction whose record may be gone",
        "cluster.case_push_on_unknown": "a push about a transaction that its anchor had not heard of",
        "cluster.case_push_under_way": "a push met a verdict that was not durable yet",
        "cluster.case_safe_below_closed": "a copy shows less than time is closed over",
        "cluster.case_stopped_with_waiters": "a leader ended while somebody waited for an intent",
        "cluster.case_verdict_before_write": "a verdict on a transaction nobody there had heard of",
        "cluster.case_write_after_push": "the first write of a transaction came after a push",
        "cluster.clock_fenced": "a node found its clock to contradict most others",
        "cluster.copied": "a partition was copied to a replica whose log was too far behind",
        "cluster.deposed": "a leader's machine made way for one built from what stands",
        "cluster.epoch_refused": "the control plane was away when an epoch was wanted",
        "cluster.forwarded": "a request was answered by another node",
        "cluster.held": "requests waited for a checkpoint of what was proposed",
        "cluster.joined_again": "a node that had lost its disk came back under another number",
        "cluster.refused_low_water": "a write below the mark that stands for a former leader's reads",
        "cluster.served_by_replica": "a read was answered from a copy that does not lead",
        "cluster.stopped_in_order": "a node was asked to end, and gave its leads away",
        "cluster.took_over": "a replica became leader of a log that had entries",
        "cluster.waited_for_leader": "a request waited until somebody led its partition",
    }
)
"""Name to meaning."""

CLUSTER_CASE_PROBES: Final[Mapping[Case, str]] = MappingProxyType(
    {
        Case.CONFIRMED_LATE: "cluster.case_confirmed_late",
        Case.PUSH_ON_DROPPED: "cluster.case_push_on_dropped",
        Case.PUSH_ON_UNKNOWN: "cluster.case_push_on_unknown",
        Case.PUSH_UNDER_WAY: "cluster.case_push_under_way",
        Case.SAFE_BELOW_CLOSED: "cluster.case_safe_below_closed",
        Case.STOPPED_WITH_WAITERS: "cluster.case_stopped_with_waiters",
        Case.VERDICT_BEFORE_WRITE: "cluster.case_verdict_before_write",
        Case.WRITE_AFTER_PUSH: "cluster.case_write_after_push",
    }
)
"""Cases that show between nodes only; the machines count them."""
