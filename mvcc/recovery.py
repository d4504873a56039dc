"""Checkpoint, replay and start of a partition: state is a function of the checkpoint, the later
entries and the settled store (docs/protocol.md §5.6, §5.8 case 5).

What is not in the log is made good by marks: the read cache by a low-water mark above every read
that any earlier life can have served, heartbeats by counting every transaction as just heard of.
"""

from __future__ import annotations

from mvcc.messages import Span
from mvcc.records import (
    Checkpoint,
    CommittedAlone,
    CommittedTogether,
    Decided,
    Dropped,
    Edge,
    Ended,
    Entry,
    Horizon,
    Pending,
    Planted,
    Record,
    Resolved,
    Split,
)
from mvcc.refusals import Rule
from mvcc.splitting import carve
from mvcc.state import Flight, State
from mvcc.transactions import ABORTED, ACTIVE, COMMITTED, COMMITTING, FAILED, Local
from mvcc.versions import Intent
from truetime import Interval
from truetime.timestamp import ceiling


def checkpoint(state: State) -> Checkpoint:
    """Everything that neither the settled store nor later entries hold.

    Decisions whose entry is not durable yet appear as pending: their entry comes after the
    checkpoint's position.

    The driver keeps a checkpoint before it takes the next one: a rebuild begins with one of the
    last two.
    """
    assert state.leaving is None, "a checkpoint is taken when a split is durable"
    assert not state.children, "children are taken before the next checkpoint"
    assert not state.flights(), "a checkpoint is taken when every commit is durable"
    pending: list[Pending] = []
    ended: list[Ended] = []
    for txn, local in state.transactions.items():
        if isinstance(local, int):
            ended.append(Ended(txn, local, True, b"", None, None))
        elif local.decided:
            if local.state == FAILED or (local.state == ABORTED and local.lsn == 0):
                # Remembered in memory only; the low-water mark of a restart stands in for them.
                continue
            ended.append(
                Ended(
                    local.txn,
                    local.stamp,
                    local.state == COMMITTED,
                    local.anchor,
                    local.values,
                    local.unconfirmed,
                )
            )
        elif local.keys or local.state == ACTIVE:
            assert local.state != COMMITTING, (
                "a checkpoint is taken when everything gathered is durable"
            )
            sequences = sorted(local.sequences or ())
            writes = _writes(state, local)
            pending.append(Pending(local.txn, local.stamp, local.anchor, writes, sequences))
    state.collectable, state.collectable_next = state.collectable_next, state.horizon
    return Checkpoint(
        state.partition,
        state.lsn,
        state.start,
        state.end,
        state.closed,
        state.low_water,
        state.horizon,
        state.record_edge,
        pending,
        ended,
    )


def _writes(state: State, local: Local) -> list[tuple[bytes, bytes | None, int]]:
    writes = []
    for key in local.keys:
        intent = state.chains[key].intent_of(local.txn)
        assert intent is not None
        writes.append((key, intent.value, intent.sequence))
    return writes


def restore(state: State, saved: Checkpoint) -> None:
    """Take over a checkpoint."""
    state.lsn = state.durable_lsn = saved.lsn - 1  # what the checkpoint holds is durable
    state.start = saved.start
    state.end = saved.end
    state.closed = saved.closed
    state.low_water = saved.low_water
    state.horizon = saved.horizon
    state.record_edge = saved.record_edge
    if saved.lsn > 1:
        # Else it is a child, and what its parent replays may reach further back.
        state.collectable = state.collectable_next = saved.horizon
    for pending in saved.pending:
        _planted(state, Planted(pending.txn, pending.stamp, pending.anchor, pending.writes))
        local = state.undecided[pending.txn]
        assert local.sequences is not None
        local.sequences.update(pending.sequences)
    state.lsn = saved.lsn
    for ended in saved.ended:
        local = Local(
            ended.txn,
            ended.stamp,
            COMMITTED if ended.committed else ABORTED,
            ended.anchor,
            [],
            lsn=saved.lsn - 1,
            values=ended.values,
            participants=ended.unconfirmed,
            unconfirmed=ended.unconfirmed,
        )
        state.transactions[ended.txn] = local
        if ended.unconfirmed is not None:
            state.unconfirmed[ended.txn] = local


def replay(state: State, entry: Entry) -> None:
    """Apply one durable entry."""
    if entry.lsn < state.lsn:
        return
    assert entry.lsn == state.lsn, (entry.lsn, state.lsn)
    for record in entry.records:
        _replay_record(state, record)
    state.closed = max(state.closed, entry.closed)
    state.lsn = entry.lsn + 1
    state.durable_lsn = entry.lsn


def _replay_record(state: State, record: Record) -> None:
    if isinstance(record, CommittedTogether):
        _committed_together(state, record)
    elif isinstance(record, CommittedAlone):
        _committed_alone(state, record)
    elif isinstance(record, Planted):
        _planted(state, record)
    elif isinstance(record, Decided):
        _ended(state, record, record.participants)
    elif isinstance(record, Resolved):
        _ended(state, record, None)
    elif isinstance(record, Horizon):
        state.horizon = max(state.horizon, record.stamp)
    elif isinstance(record, Edge):
        state.record_edge = max(state.record_edge, record.stamp)
    elif isinstance(record, Dropped):
        _dropped(state, record)
    else:
        assert isinstance(record, Split), record
        state.children.append(carve(state, record))


def _local(state: State, txn: bytes, stamp: int, anchor: bytes) -> Local:
    local = state.known(txn)
    if local is None:
        local = Local(txn, stamp, ACTIVE, anchor, [])
        state.transactions[txn] = local
    return local


def _planted(state: State, record: Planted) -> None:
    local = _local(state, record.txn, record.stamp, record.anchor)
    if local.sequences is None:
        local.sequences = set()
    for key, value, sequence in record.writes:
        chain = state.chains.get(key) or state.load(key)
        own = chain.intent_of(record.txn)
        if own is None:
            chain.plant(Intent(record.stamp, value, record.txn, sequence, state.lsn))
            local.keys.append(key)
        elif own.sequence < sequence:
            own.value, own.sequence = value, sequence
        local.sequences.add(sequence)
    local.lsn = state.lsn
    state.undecided[record.txn] = local


def _committed_alone(state: State, record: CommittedAlone) -> None:
    local = _local(state, record.txn, record.stamp, b"")
    local.values = record.values
    for key, value in dict(record.writes).items():
        chain = state.chains.get(key)
        if chain is None:
            # Nothing in memory knows the key: the version can go straight to the settled store.
            state.unsettled.append((key, record.stamp, value))
            state.note_commits(record.stamp, record.stamp)
            if state.watched:
                state.feed.append((record.stamp, key, value))
            continue
        own = chain.intent_of(record.txn)
        if own is not None:
            own.value = value
        else:
            chain.plant(Intent(record.stamp, value, record.txn, 0, state.lsn))
            local.keys.append(key)
    local.state = COMMITTED
    local.lsn = state.lsn
    state.apply(local, committed=True)
    local.keys = []


def _committed_together(state: State, record: CommittedTogether) -> None:
    txns, stamps, keys, values = record.txns, record.stamps, record.keys, record.values
    state.transactions.update(zip(txns, stamps, strict=True))
    if state.chains:
        for key, stamp, value in zip(keys, stamps, values, strict=True):
            chain = state.chains.get(key)
            if chain is not None and chain.commit(stamp, value, state.round):
                state.with_old.append(chain)
    if state.watched:
        state.feed.extend(zip(stamps, keys, values, strict=True))
    state.note_commits(min(stamps), max(stamps))
    # Where nothing in memory knows a key, its version goes straight to the settled store.
    state.landed.append(Flight(state.lsn, 0, [], txns, stamps, txns, stamps, keys, values, [], []))


def _ended(state: State, record: Decided | Resolved, participants: list[Span] | None) -> None:
    local = _local(state, record.txn, record.stamp, b"")
    local.state = COMMITTED if record.committed else ABORTED
    local.lsn = state.lsn
    state.apply(local, committed=record.committed)
    local.keys = []
    others = state.beyond(participants or [])
    if others:
        local.participants = local.unconfirmed = others
        state.unconfirmed[record.txn] = local


def _dropped(state: State, record: Dropped) -> None:
    for txn in record.txns:
        local = state.transactions.get(txn)
        # A copy of one of its messages may have come to the leader meanwhile, and begun it anew.
        if isinstance(local, int) or (local is not None and local.decided):
            del state.transactions[txn]
            state.unconfirmed.pop(txn, None)


def start(state: State, now: Interval) -> None:
    """Begin to serve after recovery, or for the first time.

    Reads of an earlier life may carry stamps up to H ahead of its clock, so the low-water mark is
    ``hi + H``.
    """
    state.see(now)
    state.raise_low_water(ceiling(now.hi_ns + state.settings.ahead_ns_max), Rule.LOW_WATER)
    for local in state.transactions.values():
        if isinstance(local, Local):
            local.seen_ns = now.lo_ns
    state.settle()
    # What an earlier life has left is not known; its clock may have read ahead of this one's by as
    # much as two bounds are wide.
    hi_ns = now.hi_ns + 2 * state.oracle.settings.uncertainty_max_ns
    state.note_commits(1, ceiling(hi_ns + state.settings.ahead_ns_max))
    state.serving = True
