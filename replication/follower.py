"""Taking a leader's log: store, cut what differs, acknowledge what is durable, apply what stands.

Voters and learners do the same here; the leader counts them differently.
"""

from __future__ import annotations

from collections.abc import Sequence

from replication.entries import Entry, chained
from replication.messages import Append, Appended, CloseBeat, Differs, Install
from replication.persistence import Snapshot
from replication.state import NoteKind, State
from replication.voter import accepts


def append(state: State, message: Append) -> None:
    """Store entries behind a position both logs have; otherwise say where they may agree."""
    if not accepts(state, message.epoch, message.sender):
        return
    log = state.log
    # While a snapshot is on its way to the disk, what is durable is not what is in memory.
    if log.base.lsn <= log.durable_lsn < message.matched_lsn:
        state.lose()
        return
    previous = message.previous
    if not chained(previous, message.entries):
        state.note(NoteKind.DAMAGED, message.epoch)
        return
    if previous.lsn >= log.base.lsn and log.position(previous.lsn) != previous:
        points = log.points()
        state.send(message.sender, Differs(message.epoch, state.identity, message.round, points))
        return
    store(state, message.entries)
    verify(state, previous.lsn + len(message.entries))
    commit(state, message.commit_lsn)
    acknowledge(state)


def store(state: State, entries: Sequence[Entry]) -> None:
    """Make the log agree with entries that follow a position it has.

    Entries are cut from the first that differs, and only if one does: a message that ends early
    says nothing about what follows it.
    """
    log = state.log
    for entry in entries:
        if entry.lsn <= log.base.lsn:
            assert entry.lsn < log.base.lsn or entry.position == log.base, (entry.lsn, log.base)
            continue
        state.closed.known = max(state.closed.known, entry.closed)
        present = log.position(entry.lsn)
        if present is not None:
            if present == entry.position:
                continue
            assert entry.lsn > state.commit_lsn, (entry.lsn, state.commit_lsn)
            log.cut(entry.lsn)
        log.append(entry)


def install(state: State, message: Install) -> None:
    """Take a whole state, unless the own log already holds it."""
    if not accepts(state, message.epoch, message.sender):
        return
    take_snapshot(state, message.snapshot)
    verify(state, message.snapshot.position.lsn)
    commit(state, message.commit_lsn)
    acknowledge(state)


def take_snapshot(state: State, snapshot: Snapshot) -> None:
    """Begin the log anew from a snapshot, unless the log itself shows that it is not needed.

    The commit LSN is no evidence: it says what stands somewhere, not what this log holds.
    """
    log = state.log
    position = snapshot.position
    if position.lsn > log.base.lsn and log.position(position.lsn) != position:
        log.install(snapshot)
        state.counters.installs_taken += 1
    state.commit_lsn = max(state.commit_lsn, position.lsn)
    state.closed.known = max(state.closed.known, snapshot.closed)


def verify(state: State, lsn: int) -> None:
    """The log has been found equal to the present leader's up to ``lsn``.

    What the own snapshot covers is committed, so every leader that may be heard has it.
    """
    state.verified_lsn = max(state.verified_lsn, lsn, state.log.base.lsn)


def commit(state: State, lsn: int) -> None:
    """Entries up to ``lsn`` stand at the leader; so do those here that are known to be equal."""
    state.commit_lsn = max(state.commit_lsn, min(lsn, state.verified_lsn))


def close_beat(state: State, message: CloseBeat) -> None:
    """Keep a closed timestamp until its LSN is applied."""
    if not accepts(state, message.epoch, message.sender):
        return
    state.closed.hear(message.lsn, message.closed, state.applied_lsn)
    commit(state, message.commit_lsn)


def acknowledge(state: State) -> None:
    """Tell the leader what is durable here and equal to its log, once nothing newer is under way.

    Never for an epoch below the promise, and never before the promise itself is durable.
    """
    if state.leader is None or state.lead is not None:
        return
    if state.promise_durable < state.promise:
        return
    lsn = min(state.verified_lsn, state.log.durable_lsn)
    if lsn and (lsn > state.acknowledged_lsn or lsn == state.verified_lsn):
        state.acknowledged_lsn = max(state.acknowledged_lsn, lsn)
        state.send(state.leader, Appended(state.promise, state.identity, lsn))
