"""What a node can be made to do, as probes: one table, so that a case that is never reached shows.

They are computed from the node's own counters when an incarnation has ended or the run has, so
nothing of it stands in the way of a request.

Not here is what one node does not show while it lives: its partitions talk to each other within a
turn, so no push meets a transaction whose first write is still under way, and no verdict is lost;
its start waits until its low-water mark has passed. Golden scripts have those cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

NODE_PROBES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "node.batch_slow_path": "an operation of a batch was run one by one by the full rules",
        "node.batch_spelled_out": "a transaction of a batch was asked for by name",
        "node.chains_evicted": "keys were dropped from memory to the settled store",
        "node.checkpoint_restored": "a restart began from a checkpoint",
        "node.commit_waited": "an answer was held until true time had passed its stamp",
        "node.expired": "a transaction that had fallen silent was aborted by its anchor",
        "node.failed_stop": "a failure of the disk stopped the node",
        "node.horizon_raised": "a pass of collection raised the horizon of history",
        "node.many_partitions": "a node with several partitions committed something",
        "node.one_shot_parked": "a one-shot waited for the clock or for an older intent",
        "node.pushed": "a partition asked the anchor of a transaction for its verdict",
        "node.recovered": "a start replayed turns of the log",
        "node.refused_aborted": "an operation of a transaction that had been aborted",
        "node.refused_busy": "a reader gave up waiting for an older intent",
        "node.refused_cache": "a write below the mark that stands for evicted reads",
        "node.refused_closed": "a write at or below the closed timestamp",
        "node.refused_deadline": "a request whose deadline had passed when its turn came",
        "node.refused_horizon": "a read below the horizon of what is collected",
        "node.refused_missing_write": "a commit that counted on a write that was not there",
        "node.refused_read_by": "a write that somebody later had already read past",
        "node.segment_rotated": "the log began another segment",
        "node.waited": "a reader waited for an older intent",
        "node.watch_cut_off": "a watch whose reader was too slow was ended",
        "node.watch_served": "a watch was told of commits",
    }
)
"""Name to meaning."""
