"""The state of a replica as it was at one stamp: what a promotion begins with when a region is lost
(docs/protocol.md §5.6).

Every partition of the lost home is cut at the same stamp, which is safe at each of them: so every
transaction is there as a whole, or not at all.  What lay above is gone, and whether it had been
acknowledged nobody here can know.  So it counts as an outcome that was dropped: the record edge is
raised above every stamp that the lost home can have given.
"""

from __future__ import annotations

from collections.abc import Iterator

from mvcc.records import Checkpoint, Ended
from mvcc.state import State
from mvcc.transactions import Local
from truetime import Interval


def cut(state: State, stamp: int, now: Interval) -> Checkpoint:
    """The checkpoint of everything at or below ``stamp``; the state itself is not changed."""
    assert not state.serving
    assert state.horizon <= stamp <= state.safe()[0], (state.horizon, stamp, state.safe())
    state.see(now)
    ended: list[Ended] = []
    for txn, local in state.transactions.items():
        if isinstance(local, int):
            if local <= stamp:
                ended.append(Ended(txn, local, True, b"", None, None))
        elif local.decided and local.stamp <= stamp:
            ended.append(_outcome(local))
    return Checkpoint(
        state.partition,
        1,
        state.start,
        state.end,
        stamp,
        state.low_water,
        state.horizon,
        max(state.record_edge, state.future),
        [],
        ended,
    )


def _outcome(local: Local) -> Ended:
    return Ended(
        local.txn, local.stamp, local.committing, local.anchor, local.values, local.unconfirmed
    )


def rows_above(state: State, stamp: int) -> Iterator[list[tuple[bytes, int]]]:
    """The settled versions that a cut leaves behind, as (key, stamp), in bounded batches."""
    state.settle()
    for batch in state.settled.all_rows(state.space, state.start, state.end or None):
        above = [(key, version) for key, version, _ in batch if version > stamp]
        if above:
            yield above
