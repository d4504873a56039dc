"""What a node can be made to do, as probes: one table, so that a case that is never reached shows.

They are computed from the node's own counters when an incarnation has ended or the run has, so
nothing of it stands in the way of a request.

Some show between nodes only: the partitions of one node talk to each other within a turn, so no push
meets a transaction whose first write is still under way, and no verdict is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from mvcc.cases import Case

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
        "node.refused_future": "a stamp further ahead than any correct clock gives",
        "node.refused_horizon": "a read below the horizon of what is collected",
        "node.refused_missing_write": "a commit that counted on a write that was not there",
        "node.refused_read_by": "a write that somebody later had already read past",
        "node.segment_rotated": "the log began another segment",
        "node.case_closed_over_open": "time was closed above the stamp of an open transaction",
        "node.case_end_repeated": "a decided transaction was to be ended again",
        "node.case_one_shot_again": "a one-shot came again",
        "node.case_outcome_asked": "who had lost an answer asked, and there was an outcome",
        "node.case_own_rewritten": "a transaction replaced its own intent",
        "node.case_split_open": "a partition was split while transactions were open in it",
        "node.case_session_floor": "a session had seen a stamp at or above the next one",
        "node.case_started_with_open": "whoever began to serve found open transactions",
        "node.case_tombstone_collected": "a deletion was collected with all that it covered",
        "node.case_write_after_abort": "a write came after its transaction had been aborted",
        "node.case_write_after_commit": "a write came again after its transaction had committed",
        "node.case_write_overtaken": "a write came after a newer one of its transaction",
        "node.case_write_repeated": "a write came again while its transaction was open",
        "node.case_write_repeated_early": "a write came again before the first one was durable",
        "node.waited": "a reader waited for an older intent",
        "node.watch_cut_off": "a watch whose reader was too slow was ended",
        "node.watch_served": "a watch was told of commits",
    }
)
"""Name to meaning."""

CASE_PROBES: Final[Mapping[Case, str]] = MappingProxyType(
    {
        Case.CLOSED_OVER_OPEN: "node.case_closed_over_open",
        Case.END_REPEATED: "node.case_end_repeated",
        Case.EVICTED: "node.chains_evicted",
        Case.EXPIRED: "node.expired",
        Case.FLOOR_ABOVE_CLOCK: "node.case_session_floor",
        Case.ONE_SHOT_AGAIN: "node.case_one_shot_again",
        Case.OUTCOME_ASKED: "node.case_outcome_asked",
        Case.OWN_REWRITTEN: "node.case_own_rewritten",
        Case.PARKED: "node.one_shot_parked",
        Case.SPELLED_OUT: "node.batch_spelled_out",
        Case.SPLIT_OPEN: "node.case_split_open",
        Case.STARTED_WITH_OPEN: "node.case_started_with_open",
        Case.TOMBSTONE_COLLECTED: "node.case_tombstone_collected",
        Case.WRITE_AFTER_ABORT: "node.case_write_after_abort",
        Case.WRITE_AFTER_COMMIT: "node.case_write_after_commit",
        Case.WRITE_OVERTAKEN: "node.case_write_overtaken",
        Case.WRITE_REPEATED: "node.case_write_repeated",
        Case.WRITE_REPEATED_EARLY: "node.case_write_repeated_early",
    }
)
"""Cases that the machines count themselves, on any node."""
