"""What a partition does by itself as time passes: close time, ask about silent transactions,
forget, collect.

Each step does a bounded amount of work, so that no tick is long (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from mvcc.anchor import droppable, expire
from mvcc.cases import Case
from mvcc.messages import OneShot, Push, Refused
from mvcc.records import Dropped, Edge, Horizon
from mvcc.refusals import Rule
from mvcc.settled import Row
from mvcc.state import State
from mvcc.transactions import ACTIVE, FAILED, Local, Waiter
from truetime.timestamp import floor

SWEEP_MAX = 500
"""Transactions looked at in one tick."""
SWEEP_EVERY_NS = 100_000_000
"""Time between the beginnings of two passes over all transactions, at least."""
COLLECT_BATCHES_MAX = 1
"""Batches of stored versions looked at in one tick."""
DROPPED_MIN = 1_000
"""Forgotten transactions that are told to replicas at once."""
DROPPED_EVERY_NS = 1_000_000_000
"""How long fewer of them wait."""
EVICT_MAX = 2_000
"""Keys looked at in one tick when memory is over its limit."""


def close(state: State, oldest_open: int) -> None:
    """Raise the closed timestamp: close behind the clock, but below everything that is still open.

    ``oldest_open`` is the smallest stamp of an open transaction that may still write here, 0 if
    there is none.  It is advice: what makes closing safe is that a write at or below the closed
    timestamp is refused (docs/protocol.md §5.6).
    """
    settings = state.settings
    lo_ns = state.now.lo_ns
    target = floor(lo_ns - settings.slack_ns_min)
    if oldest_open:
        target = max(min(target, oldest_open - 1), floor(lo_ns - settings.lifetime_ns_max))
    if target > state.closed:
        state.closed = target
        if any(local.stamp <= target for local in state.undecided.values()):
            state.cases[Case.CLOSED_OVER_OPEN] += 1


def tick(state: State) -> None:
    """One round of upkeep."""
    _look_after_undecided(state)
    _send_again(state)
    tell_dropped(state)
    if state.ranges:
        state.ranges.forget(state.closed)


def _look_after_undecided(state: State) -> None:
    settings = state.settings
    lo_ns = state.now.lo_ns
    for local in list(state.undecided.values()):
        if local.waiters is not None:
            local.waiters = _still_in_time(state, local, local.waiters) or None
        if local.state != ACTIVE:
            continue
        if state.owns(local.anchor):
            expire(state, local)
            continue
        patience_ns = settings.push_after_ns if local.waiters else settings.janitor_idle_ns
        if lo_ns - local.seen_ns > patience_ns and lo_ns - local.pushed_ns > settings.push_again_ns:
            local.pushed_ns = lo_ns
            push = Push(local.txn, local.stamp, local.anchor, local.keys[0])
            state.sends.append((local.anchor, push))


def _still_in_time(state: State, local: Local, waiters: list[Waiter]) -> list[Waiter]:
    """Refuse the waiters whose deadline has passed; return the others."""
    left: list[Waiter] = []
    for waiter in waiters:
        if waiter.deadline_ns > state.now.lo_ns:
            left.append(waiter)
            continue
        rule = Rule.DEADLINE if isinstance(waiter, OneShot) else Rule.BUSY
        refusal = state.refuse(rule, local.keys[0], local.txn, local.stamp)
        state.answers.append(Refused(waiter.request, refusal))
    return left


def _send_again(state: State) -> None:
    for local in list(islice(state.unconfirmed.values(), SWEEP_MAX)):
        if state.now.lo_ns - local.pushed_ns > state.settings.push_again_ns:
            local.pushed_ns = state.now.lo_ns
            state.resend_verdict(local)


def tell_dropped(state: State) -> None:
    """Log what has been forgotten, so that replicas forget it as well."""
    dropped = state.dropped
    if not dropped:
        return
    lo_ns = state.now.lo_ns
    if len(dropped) < DROPPED_MIN and lo_ns - state.dropped_ns < DROPPED_EVERY_NS:
        return
    state.dropped = []
    state.dropped_ns = lo_ns
    # A late copy of a message may have begun one anew meanwhile.
    gone = [txn for txn in dropped if txn not in state.transactions]
    if gone:
        state.records.append(Dropped(gone))


class Sweep:
    """Forgets ended transactions, a slice at a time.

    A replica that does not serve forgets by itself only what the leader may have forgotten without
    telling: outcomes at or below the edge.
    """

    def __init__(self) -> None:
        self._left: Iterator[bytes] = iter(())
        self._began_ns = 0

    def step(self, state: State) -> None:
        """Look at the next slice; begin again when all have been looked at."""
        slice_ = list(islice(self._left, SWEEP_MAX))
        if not slice_:
            if state.now.lo_ns - self._began_ns >= SWEEP_EVERY_NS:
                self._began_ns = state.now.lo_ns
                self._left = iter(list(state.transactions))
            return
        horizon = state.record_edge + 1
        if state.serving:
            horizon = floor(state.now.lo_ns - state.settings.retention_ns)
        edge = 0
        for txn in slice_:
            local = state.transactions.get(txn)
            if isinstance(local, int):
                if local < horizon and not state.awaiting:  # else it may be on its way still
                    edge = max(edge, local)
                    state.drop(txn)
                continue
            if local is None:
                continue
            if state.serving and local.state != ACTIVE and not local.decided:
                expire(state, local)  # a placeholder; expire tests what it is
            if not droppable(state, local):
                continue
            past = local.stamp < horizon
            if local.state == FAILED:
                past = local.seen_ns < state.now.lo_ns  # seen_ns holds the request's deadline
            if local.acknowledged or past:
                if past and local.state != FAILED:
                    edge = max(edge, local.stamp)
                state.drop(txn)
        if edge > state.record_edge:
            state.record_edge = edge
            state.records.append(Edge(edge))


def raise_horizon(state: State, protected: int) -> None:
    """Raise and log the horizon; ``protected`` is the oldest snapshot in use (0: none)."""
    horizon = floor(state.now.lo_ns - state.settings.retention_ns)
    horizon = min(horizon, state.safe()[0])
    if protected:
        horizon = min(horizon, protected)
    if horizon > state.horizon:
        # Tested by every read from now on, and logged long before anything is deleted.
        state.horizon = horizon
        state.records.append(Horizon(horizon))


class Collection:
    """Deletes versions that nobody may read any more, a batch at a time, at leaders and followers.

    What is deleted lies below the horizon of a checkpoint that is kept.  So a rebuild, which begins
    there, knows that horizon before it answers anybody, and its replay brings nothing back that a
    deletion covered: everything at or below a horizon was final when that was logged.
    """

    def __init__(self) -> None:
        self._batches: Iterator[Sequence[Row]] | None = None
        self._horizon = 0
        self._key: bytes | None = None
        self._kept = False
        self._deletion: tuple[bytes, int] | None = None
        self._deletions = 0

    def _begin(self, state: State) -> bool:
        """Start a pass, if there can be something to delete."""
        horizon = state.collectable
        if horizon <= self._horizon or not 0 < state.superseded < horizon:
            return False
        state.superseded = horizon if state.newest_commit > horizon else 0
        state.settle()
        self._horizon = horizon
        self._key = None
        self._deletion = None
        self._batches = state.settled.all_rows(state.space, state.start, state.end or None)
        return True

    def step(self, state: State) -> int:
        """Go through one batch; returns how many versions were deleted."""
        if self._batches is None and not self._begin(state):
            return 0
        assert self._batches is not None
        batch = next(self._batches, None)
        doomed: list[tuple[bytes, int]] = []
        for key, stamp, value in batch or ():
            if key != self._key:
                self._drop_deletion(doomed)
                self._key = key
                self._kept = False
            if stamp > self._horizon:
                continue
            # Newest first: the first one at or below the horizon is what a read at the horizon
            # sees. It stays, unless it is a deletion, which reads the same as nothing at all, once
            # everything that it covers is gone.
            if self._kept:
                doomed.append((key, stamp))
            elif value is None:
                self._deletion = key, stamp
            self._kept = True
        if batch is None:
            self._batches = None
            self._drop_deletion(doomed)
        state.cases[Case.TOMBSTONE_COLLECTED] += self._deletions
        self._deletions = 0
        if doomed:
            state.settled.forget(state.space, doomed)
        return len(doomed)

    def _drop_deletion(self, doomed: list[tuple[bytes, int]]) -> None:
        if self._deletion is not None:
            doomed.append(self._deletion)
            self._deletion = None
            self._deletions += 1


def evict(state: State) -> int:
    """Drop clean keys from memory while there are too many; returns how many were dropped."""
    excess = len(state.chains) - state.settings.chains_max
    if excess <= 0:
        return 0
    state.settle()
    dropped = 0
    closed = max(state.closed, 0)
    for key in list(islice(state.chains, min(EVICT_MAX, 2 * excess))):
        chain = state.chains.pop(key)
        # Its read mark may be forgotten once nobody could write below it.
        if chain.intents is not None or chain.read > closed or dropped >= excess:
            state.chains[key] = chain
        else:
            dropped += 1
    state.cases[Case.EVICTED] += dropped
    return dropped
