"""What members of a cluster can be made to do, as probes, beside those of a node by itself."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

CLUSTER_PROBES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cluster.answer_lost": "a forwarded request was given up, its node gone or deposed",
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
