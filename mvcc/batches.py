"""Many operations of one session in one message: the same rules, applied to columns.

What a loaded node does is nearly always the plain case: a read of a key without intents, a commit
with one participant whose keys nobody has read later, a one-shot whose conditions hold.  The
functions here do the plain case inline, a column at a time, without a message and an answer object
for each operation; whatever is not plain goes, one by one, to the functions that know all the
rules.  They change nothing about *what* is done: a model test drives both ways compares
(tests/model/test_mvcc_batches.py).

A committed transaction is remembered by its bare stamp until somebody asks more of it
(:meth:`mvcc.state.State.known`).
"""

from __future__ import annotations

from collections.abc import Sequence

from mvcc.anchor import forget
from mvcc.conditions import Condition, Kind
from mvcc.messages import (
    OWNER_BITS,
    CommitAlone,
    Commits,
    CommitsAlone,
    Forget,
    Forgets,
    OneShot,
    OneShots,
    Read,
    Reads,
    Values,
)
from mvcc.one_shot import one_shot
from mvcc.reads import read
from mvcc.records import CommittedTogether
from mvcc.shared_conditions import SharedConditions
from mvcc.state import Flight, State
from mvcc.transactions import Local
from mvcc.versions import UNREAD, Chain, Intent
from mvcc.writes import commit_alone

_ABSENT, _PRESENT, _VERSION, _VALUE = Kind.ABSENT, Kind.PRESENT, Kind.VERSION, Kind.VALUE


def reads(state: State, message: Reads) -> None:
    """Answer the plain reads together, the others one by one."""
    chains = state.chains
    transactions = state.transactions
    closed = state.closed
    lowest = state.horizon
    highest = state.future
    if not state.serving:
        highest = -1 if any(message.txns) else state.shown
    versions: list[int] = []
    values: list[bytes] = []
    slow: list[int] = []
    index = -1
    for txn, stamp, key in zip(message.txns, message.stamps, message.keys, strict=True):
        index += 1
        chain = chains.get(key)
        if chain is None:
            chain = state.load(key)
        version = chain.stamp
        if (
            chain.intents is None
            and version <= stamp
            and lowest <= stamp <= highest
            and txn not in transactions
        ):
            if stamp > closed and stamp > chain.read:
                chain.read = stamp
                chain.reader = txn
            value = chain.value
            if value is None:
                versions.append(0)
                values.append(b"")
            else:
                versions.append(version)
                values.append(value)
        else:
            slow.append(index)
    requests, stamps = message.requests, message.stamps
    if slow:
        base = message.owner << OWNER_BITS
        for index in slow:
            read(
                state,
                Read(
                    base | requests[index],
                    message.keys[index],
                    stamps[index],
                    message.txns[index],
                    message.deadlines_ns[index],
                ),
            )
        left_out = set(slow)
        plain = [index for index in range(len(requests)) if index not in left_out]
        requests = [requests[index] for index in plain]
        stamps = [stamps[index] for index in plain]
    if requests:
        state.answers.append(Values(message.owner, requests, stamps, versions, values))


def commits_alone(state: State, message: CommitsAlone) -> None:
    """Decide the plain commits in one record, the others one by one."""
    plain = state.serving and not state.ranges
    if plain and len(message.keys) == len(message.txns) and set(message.counts) == {1}:
        _commits_of_one_write(state, message)
        return
    flight = _new_flight(state, message.owner)
    chains = state.chains
    transactions = state.transactions
    lowest = max(state.closed + 1, state.low_water)
    highest = state.future
    keys, values = message.keys, message.values
    slow: list[CommitAlone] = []
    position = 0
    for request, txn, stamp, count in zip(
        message.requests, message.txns, message.stamps, message.counts, strict=True
    ):
        end = position + count
        if plain and lowest <= stamp <= highest and txn not in transactions and count:
            found: list[Chain] = []
            for key in keys[position:end]:
                chain = chains.get(key)
                if chain is None:
                    chain = state.load(key)
                if chain.intents is not None or chain.read > stamp or chain.stamp == stamp:
                    break
                found.append(chain)
            else:
                if count == 1 or len(set(keys[position:end])) == count:
                    _take_off(state, flight, request, txn, stamp, keys, values, position, found)
                    position = end
                    continue
        writes = list(zip(keys[position:end], values[position:end], strict=True))
        token = message.owner << OWNER_BITS | request
        slow.append(CommitAlone(token, txn, stamp, writes, []))
        position = end
    _launch(state, flight)
    # After the launch: they may have to wait for somebody in the flight.
    for single in slow:
        commit_alone(state, single)


def _commits_of_one_write(state: State, message: CommitsAlone) -> None:
    """The commonest shape: every transaction writes one key, so the columns serve as they are."""
    chains = state.chains
    transactions = state.transactions
    lowest = max(state.closed + 1, state.low_water)
    highest = state.future
    lsn = state.lsn
    found: list[Chain] = []
    slow: list[int] = []
    for txn, stamp, key, value in zip(
        message.txns, message.stamps, message.keys, message.values, strict=True
    ):
        chain = chains.get(key)
        if chain is None:
            chain = state.load(key)
        if (
            chain.intents is None
            and chain.read <= stamp
            and lowest <= stamp <= highest
            and chain.stamp != stamp
            and txn not in transactions
        ):
            transactions[txn] = stamp
            chain.intents = (Intent(stamp, value, txn, 0, lsn),)
        else:
            slow.append(len(found))
        found.append(chain)
    _launch(state, _flight_of_one_write(state, message, message.stamps, found, slow))
    base = message.owner << OWNER_BITS
    for index in slow:
        write = (message.keys[index], message.values[index])
        token = base | message.requests[index]
        commit_alone(
            state, CommitAlone(token, message.txns[index], message.stamps[index], [write], [])
        )


def _flight_of_one_write(
    state: State,
    message: CommitsAlone | OneShots,
    stamps: list[int],
    chains: list[Chain],
    slow: list[int],
) -> Flight:
    requests, txns = message.requests, message.txns
    keys, values = message.keys, message.values
    if slow:
        left_out = set(slow)
        plain = [index for index in range(len(requests)) if index not in left_out]
        requests = [requests[index] for index in plain]
        txns = [txns[index] for index in plain]
        stamps = [stamps[index] for index in plain]
        keys = [keys[index] for index in plain]
        values = [values[index] for index in plain]
        chains = [chains[index] for index in plain]
    return Flight(
        state.lsn, message.owner, requests, txns, stamps, txns, stamps, keys, values, chains, []
    )


def one_shots(state: State, message: OneShots) -> None:
    """Run the plain one-shots together, the others one by one."""
    if message.chosen:
        _one_shots_on_shared(state, message)
        return
    if (
        state.serving
        and not state.ranges
        and set(message.write_counts) == {1}
        and (
            (message.condition_keys == message.keys and set(message.condition_counts) == {1})
            or not message.condition_keys
        )
        and min(message.deadlines_ns) >= state.now.hi_ns
    ):
        own = list(state.oracle.next_stamps(len(message.requests)))
        if len(own) == len(message.requests):
            _one_shots_of_one_key(state, message, own)
            return
    flight = _new_flight(state, message.owner)
    transactions = state.transactions
    lowest = max(state.closed + 1, state.low_water, message.floor + 1)
    hi_ns = state.now.hi_ns
    plain = state.serving and not state.ranges
    stamps = iter(state.oracle.next_stamps(len(message.requests)) if plain else ())
    keys, values = message.keys, message.values
    slow: list[OneShot] = []
    condition = position = 0
    for request, txn, deadline_ns, conditions, writes in zip(
        message.requests,
        message.txns,
        message.deadlines_ns,
        message.condition_counts,
        message.write_counts,
        strict=True,
    ):
        condition_end, end = condition + conditions, position + writes
        stamp = next(stamps, 0)
        if stamp >= lowest and hi_ns <= deadline_ns and writes and txn not in transactions:
            found = _ready_to_write(
                state, message, stamp, txn, condition, condition_end, position, end
            )
            if found is not None:
                _take_off(state, flight, request, txn, stamp, keys, values, position, found)
                condition, position = condition_end, end
                continue
        slow.append(
            OneShot(
                message.owner << OWNER_BITS | request,
                txn,
                message.floor,
                deadline_ns,
                [
                    Condition(
                        message.kinds[index],
                        message.condition_keys[index],
                        message.condition_versions[index],
                        message.condition_values[index],
                    )
                    for index in range(condition, condition_end)
                ],
                [],
                list(zip(keys[position:end], values[position:end], strict=True)),
            ),
        )
        condition, position = condition_end, end
    _launch(state, flight)
    for single in slow:
        one_shot(state, single)


def _one_shots_of_one_key(state: State, message: OneShots, stamps: list[int]) -> None:
    """The commonest shape: each writes one key, on a condition on that key or on none."""
    chains = state.chains
    transactions = state.transactions
    lowest = max(state.closed + 1, state.low_water, message.floor + 1)
    unpassed = state.newest_commit
    lsn = state.lsn
    count = len(stamps)
    conditional = bool(message.condition_keys)
    found: list[Chain] = []
    slow: list[int] = []
    for txn, stamp, key, value, kind, version, wanted in zip(
        message.txns,
        stamps,
        message.keys,
        message.values,
        message.kinds if conditional else [0] * count,
        message.condition_versions if conditional else [0] * count,
        message.condition_values if conditional else [b""] * count,
        strict=True,
    ):
        chain = chains.get(key)
        if chain is None:
            if not kind and lowest <= stamp > unpassed and txn not in transactions:
                # Whatever the store holds is older, and nobody asks what it is: it stays there.
                transactions[txn] = stamp
                chain = Chain(0, None, 0, b"", UNREAD, None, (Intent(stamp, value, txn, 0, lsn),))
                chains[key] = chain
                found.append(chain)
                continue
            chain = state.load(key)
        current = chain.value
        if (
            chain.intents is None
            and chain.read <= stamp
            and chain.stamp < stamp
            and stamp >= lowest
            and txn not in transactions
            and (
                not kind
                or (kind == _VALUE and current is not None and current == wanted)
                or (kind == _ABSENT and current is None)
                or (kind == _VERSION and current is not None and chain.stamp == version)
                or (kind == _PRESENT and current is not None)
            )
        ):
            transactions[txn] = stamp
            chain.intents = (Intent(stamp, value, txn, 0, lsn),)
            if kind:
                chain.read = stamp
                chain.reader = txn
        else:
            slow.append(len(found))
        found.append(chain)
    _launch(state, _flight_of_one_write(state, message, stamps, found, slow))
    for index in slow:
        one_shot(state, _single(message, index, conditional=conditional))


def _one_shots_on_shared(state: State, message: OneShots) -> None:
    """Many one-shots on few conditions: of what they share each is looked up and decoded once."""
    flight = _new_flight(state, message.owner)
    shared = SharedConditions(state, message.conditions)
    transactions = state.transactions
    lowest = max(state.closed + 1, state.low_water, message.floor + 1)
    hi_ns = state.now.hi_ns
    plain = state.serving and not state.ranges
    stamps = iter(state.oracle.next_stamps(len(message.requests)) if plain else ())
    keys, values = message.keys, message.values
    slow: list[OneShot] = []
    place = position = 0
    for request, txn, deadline_ns, count, writes in zip(
        message.requests,
        message.txns,
        message.deadlines_ns,
        message.condition_counts,
        message.write_counts,
        strict=True,
    ):
        chosen = message.chosen[place : place + count]
        place += count
        end = position + writes
        stamp = next(stamps, 0)
        found = None
        if (
            stamp >= lowest
            and hi_ns <= deadline_ns
            and writes
            and txn not in transactions
            and shared.hold(chosen, stamp)
        ):
            found = _chains_to_write(state, stamp, keys[position:end])
        if found is None:
            slow.append(
                OneShot(
                    message.owner << OWNER_BITS | request,
                    txn,
                    message.floor,
                    deadline_ns,
                    [message.conditions[index] for index in chosen],
                    [],
                    list(zip(keys[position:end], values[position:end], strict=True)),
                )
            )
        else:
            shared.note(chosen, stamp, txn)
            _take_off(state, flight, request, txn, stamp, keys, values, position, found)
        position = end
    _launch(state, flight)
    for single in slow:
        one_shot(state, single)


def _single(message: OneShots, index: int, *, conditional: bool) -> OneShot:
    """One operation of a batch of single keys as a message of its own."""
    conditions = []
    if conditional:
        conditions.append(
            Condition(
                message.kinds[index],
                message.condition_keys[index],
                message.condition_versions[index],
                message.condition_values[index],
            )
        )
    return OneShot(
        message.owner << OWNER_BITS | message.requests[index],
        message.txns[index],
        message.floor,
        message.deadlines_ns[index],
        conditions,
        [],
        [(message.keys[index], message.values[index])],
    )


def _ready_to_write(
    state: State,
    message: OneShots,
    stamp: int,
    txn: bytes,
    condition: int,
    condition_end: int,
    position: int,
    end: int,
) -> list[Chain | None] | None:
    """The chains to write when every condition holds and nothing is in the way; else None.  None in
    place of a chain that need not be looked up.
    """
    chains = state.chains
    condition_keys = message.condition_keys
    read: list[Chain] = []
    for index in range(condition, condition_end):
        key = condition_keys[index]
        chain = chains.get(key)
        if chain is None:
            chain = state.load(key)
        if chain.intents is not None or chain.stamp > stamp:
            return None
        kind = message.kinds[index]
        value = chain.value
        if kind == _VALUE:
            holds = value is not None and value == message.condition_values[index]
        elif kind == _VERSION:
            holds = value is not None and chain.stamp == message.condition_versions[index]
        else:
            holds = (value is None) == (kind == _ABSENT)
        if not holds:
            return None
        read.append(chain)
    found = _chains_to_write(state, stamp, message.keys[position:end])
    if found is None:
        return None
    for chain in read:
        if stamp > chain.read:
            chain.read = stamp
            chain.reader = txn
    return found


def _chains_to_write(state: State, stamp: int, keys: list[bytes]) -> list[Chain | None] | None:
    """The chains of what is written when nothing is in the way; else None.  None in place of a
    chain that need not be looked up.
    """
    chains = state.chains
    blind = stamp > state.newest_commit
    found: list[Chain | None] = []
    for key in keys:
        chain = chains.get(key)
        if chain is None and not blind:
            chain = state.load(key)
        if chain is not None and (chain.intents is not None or chain.read > stamp):
            return None
        found.append(chain)
    if len(keys) > 1 and len(set(keys)) != len(keys):
        return None
    return found


def forgets(state: State, message: Forgets) -> None:
    """Forget the outcomes of batches at once, others by the rules."""
    transactions = state.transactions
    if state.awaiting:
        for txn in message.txns:
            forget(state, Forget(txn))
        return
    for txn in message.txns:
        known = transactions.pop(txn, None)
        if isinstance(known, Local):
            transactions[txn] = known
            forget(state, Forget(txn))
        elif known is not None and state.settings.replicated:
            state.dropped.append(txn)


def _new_flight(state: State, owner: int) -> Flight:
    return Flight(state.lsn, owner, [], [], [], [], [], [], [], [], [])


def _take_off(
    state: State,
    flight: Flight,
    request: int,
    txn: bytes,
    stamp: int,
    keys: list[bytes],
    values: list[bytes | None],
    position: int,
    chains: Sequence[Chain | None],
) -> None:
    """Plant a plain transaction's intents and note it in the flight."""
    state.transactions[txn] = stamp
    flight.requests.append(request)
    flight.txns.append(txn)
    flight.stamps.append(stamp)
    lsn = flight.lsn
    for chain in chains:
        value = values[position]
        if chain is None:
            chain = Chain(0, None, 0, b"", UNREAD)
            state.chains[keys[position]] = chain
        chain.intents = (Intent(stamp, value, txn, 0, lsn),)
        flight.write_txns.append(txn)
        flight.write_stamps.append(stamp)
        flight.keys.append(keys[position])
        flight.values.append(value)
        flight.chains.append(chain)
        position += 1


def _launch(state: State, flight: Flight) -> None:
    """Put the flight into the present log entry."""
    if flight.txns:
        state.records.append(
            CommittedTogether(flight.write_txns, flight.write_stamps, flight.keys, flight.values)
        )
        state.when_durable(flight.lsn, flight)


def land(state: State, flight: Flight) -> None:
    """The flight's log entry is durable: turn its intents into versions and answer."""
    round_ = state.round
    with_old = state.with_old
    for txn, stamp, key, value, chain in zip(
        flight.write_txns,
        flight.write_stamps,
        flight.keys,
        flight.values,
        flight.chains,
        strict=True,
    ):
        intents = chain.intents
        assert intents is not None, key
        if len(intents) == 1:
            assert intents[0].txn == txn, key
            chain.intents = None
        else:
            chain.lift(txn)
        if stamp > chain.stamp and chain.round != round_:
            chain.stamp = stamp
            chain.value = value
            chain.round = round_
        elif chain.commit(stamp, value, round_):
            with_old.append(chain)
    if state.watched:
        state.feed.extend(zip(flight.write_stamps, flight.keys, flight.values, strict=True))
    state.landed.append(flight)
    state.note_commits(min(flight.stamps), max(flight.stamps))
    state.commits += len(flight.txns)
    state.answers.append(Commits(flight.owner, flight.requests, flight.stamps))
    for local in flight.spelled_out:
        state.finish_spelled_out(local)
