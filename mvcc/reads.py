"""Reads and scans (docs/protocol.md §5.4 read; §5.8 cases 1, 2, 10, 29).

A read notes itself before it looks, so that no older write can slip in under it.  It never returns
another transaction's intent and never passes over one that could still commit below its stamp: it
waits for the verdict and starts again from the top, so that everything tested before the wait is
tested again after it.
"""

from __future__ import annotations

from mvcc.cases import Case
from mvcc.messages import OneShot, Read, Refused, Rows, Scan, Value
from mvcc.ranges import UNBOUNDED
from mvcc.refusals import Refusal, Rule
from mvcc.state import State
from mvcc.transactions import ABORTED, Local, Waiter
from mvcc.versions import Chain


def read(state: State, message: Read) -> None:
    """Answer with the newest version at or below the stamp, or wait for an older transaction."""
    stamp = message.stamp
    txn = message.txn
    refusal = admit(state, stamp, txn)
    if refusal is not None:
        state.answers.append(Refused(message.request, refusal))
        return
    key = message.key
    chain = state.chains.get(key)
    if chain is None:
        chain = state.load(key)
    if stamp > state.closed and stamp > chain.read:
        chain.read = stamp
        chain.reader = txn
    if chain.intents is None and chain.stamp <= stamp:
        value = chain.value
        version = 0 if value is None else chain.stamp
        state.answers.append(Value(message.request, stamp, version, value))
        return
    _read_history(state, message, chain)


def _read_history(state: State, message: Read, chain: Chain) -> None:
    own = chain.intent_of(message.txn)
    if own is not None:
        version = 0 if own.value is None else own.stamp
        state.answers.append(Value(message.request, message.stamp, version, own.value))
        return
    version, value = state.version_at(message.key, chain, message.stamp)
    blocker = chain.blocker(message.stamp, version, message.txn)
    if blocker is not None:
        wait(state, state.blocking(blocker.txn), message)
        return
    version = 0 if value is None else version
    state.answers.append(Value(message.request, message.stamp, version, value))


def scan(state: State, message: Scan) -> None:
    """Answer with one page of rows as of the stamp, own intents included, or wait."""
    refusal = admit(state, message.stamp, message.txn)
    if refusal is not None:
        state.answers.append(Refused(message.request, refusal))
        return
    start = max(message.start, state.start)
    end = earlier_end(message.end, state.end)
    # Everything committed goes to the settled store first: only intents are left to be merged.
    state.settle()
    limit = min(message.limit, state.settings.scan_rows_max)
    page = state.settled.scan(
        state.space,
        start,
        end or None,
        stamp=message.stamp,
        rows_max=limit,
        reverse=message.reverse,
    )
    resume = page.resume
    low, high = (resume or start, end) if message.reverse else (start, resume or end)
    overlay: dict[bytes, tuple[int, bytes | None]] = {}
    for local in state.undecided.values():
        if local.stamp > message.stamp:
            continue
        for key in local.keys:
            if key < low or (high and key >= high):
                continue
            chain = state.chains[key]
            if local.txn == message.txn:
                intent = chain.intent_of(message.txn)
                assert intent is not None
                overlay[key] = (intent.stamp, intent.value)
            elif _blocks(state, key, chain, message):
                wait(state, local, message)
                return
    for flight in state.flights():
        for txn, stamp, key in zip(
            flight.write_txns, flight.write_stamps, flight.keys, strict=True
        ):
            if stamp <= message.stamp and low <= key and (not high or key < high):
                wait(state, state.blocking(txn), message)
                return
    if message.stamp > state.closed:
        note_range(state, low, high, message.stamp, message.txn)
    rows = [
        (key, version, value)
        for key, version, value in page.rows
        if value is not None and key not in overlay
    ]
    if overlay:
        rows += [
            (key, version, value) for key, (version, value) in overlay.items() if value is not None
        ]
        rows.sort(reverse=message.reverse)
    # Own writes, or long values, can make a page too long: what is cut off begins the next one.
    fitting = min(limit, _fitting(rows, state.settings.page_bytes_max))
    if len(rows) > fitting:
        resume = rows[fitting - 1 if message.reverse else fitting][0]
        del rows[fitting:]
    onwards = _onwards(state, message, resume)
    state.answers.append(Rows(message.request, message.stamp, rows, onwards))


def _onwards(state: State, message: Scan, resume: bytes | None) -> bytes | None:
    """Where a scan goes on: here, or where it leaves this partition; None if it is through."""
    if resume is not None:
        return resume
    if message.reverse:
        return state.start if message.start < state.start else None
    ends_here = state.end == UNBOUNDED or (message.end != UNBOUNDED and message.end <= state.end)
    return None if ends_here else state.end


def _fitting(rows: list[tuple[bytes, int, bytes]], bytes_max: int) -> int:
    """How many rows, and at least one, stay within ``bytes_max``."""
    size = 0
    for count, (key, _, value) in enumerate(rows):
        size += len(key) + len(value)
        if size > bytes_max:
            return max(count, 1)
    return max(len(rows), 1)


def _blocks(state: State, key: bytes, chain: Chain, message: Scan) -> bool:
    if chain.intent_of(message.txn) is not None:
        return False
    version, _ = state.version_at(key, chain, message.stamp)
    return chain.blocker(message.stamp, version, message.txn) is not None


def admit(state: State, stamp: int, txn: bytes) -> Refusal | None:
    """What holds for every read: a serving leader, or a stamp that is final here and a reader
    outside of transactions; a stamp that is neither forgotten nor impossible; a live reader.
    """
    if not state.serving and (txn or stamp > state.shown):
        return state.refuse(Rule.NOT_LEADER)
    if stamp < state.horizon:
        return state.refuse(Rule.HORIZON, stamp=state.horizon)
    if stamp > state.future:
        return state.refuse(Rule.FUTURE, stamp=state.future)
    if txn:
        local = state.transactions.get(txn)
        if isinstance(local, Local) and local.state == ABORTED:
            return state.refuse(Rule.ABORTED, other=txn)
    return None


def wait(state: State, blocker: Local, message: Waiter) -> None:
    """Queue a request behind an undecided older transaction."""
    state.waits += 1
    if isinstance(message, OneShot):
        state.cases[Case.PARKED] += 1
    if blocker.waiters is None:
        blocker.waiters = [message]
    else:
        blocker.waiters.append(message)


def note_range(state: State, start: bytes, end: bytes, stamp: int, txn: bytes) -> None:
    """Mark a scanned range as read; a full cache goes into the low-water mark (§5.8 case 32)."""
    if len(state.ranges) >= state.settings.range_marks_max:
        state.raise_low_water(state.ranges.evict(), Rule.CACHE)
    state.ranges.note(start, end, stamp, txn)


def earlier_end(one: bytes, other: bytes) -> bytes:
    """The lesser of two exclusive upper ends, where b"" means none."""
    if not one:
        return other
    if not other:
        return one
    return min(one, other)
