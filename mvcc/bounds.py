"""Whether a message belongs to a partition: whoever sent it may know an older map.

Messages are tested when they arrive and again when they have waited, since the partition may have
been split meanwhile (docs/protocol.md §5.7, invariant 24).
"""

from __future__ import annotations

from collections.abc import Iterable

from mvcc.conditions import Condition, Kind
from mvcc.messages import (
    CommitAlone,
    CommitsAlone,
    Confirm,
    End,
    Message,
    OneShot,
    OneShots,
    Push,
    Read,
    Reads,
    Resolve,
    Scan,
    Status,
    Write,
)
from mvcc.ranges import UNBOUNDED
from mvcc.state import State


def belongs(state: State, message: Message) -> bool:
    """Whether every key of the message lies in this partition.

    A scan may go on beyond the partition, in the direction in which it goes.  What names no key
    (a heartbeat, an outcome that is no longer of interest) belongs everywhere.
    """
    if state.start == b"" and state.end == UNBOUNDED:
        return True
    match message:
        case Read():
            return state.owns(message.key)
        case Scan():
            return _end_within(state, message.end) if message.reverse else state.owns(message.start)
        case Reads() | CommitsAlone():
            return _all_within(state, message.keys)
        case OneShots():
            return (
                _all_within(state, message.keys)
                and _all_within(state, message.condition_keys)
                and _conditions_within(state, message.conditions)
            )
        case Write():
            written = [key for key, _, _ in message.writes]
            return _all_within(state, written) and _conditions_within(state, message.conditions)
        case CommitAlone():
            return _all_within(state, [key for key, _ in message.writes])
        case OneShot():
            keys = [*message.reads, *(key for key, _ in message.writes)]
            return _all_within(state, keys) and _conditions_within(state, message.conditions)
        case End() | Push() | Confirm():
            return state.owns(message.anchor)
        case Status():
            return message.anchor is None or state.owns(message.anchor)
        case Resolve():
            return state.owns(message.participant)
        case _:
            return True


def _all_within(state: State, keys: list[bytes]) -> bool:
    return not keys or (
        min(keys) >= state.start and (state.end == UNBOUNDED or max(keys) < state.end)
    )


def _conditions_within(state: State, conditions: Iterable[Condition]) -> bool:
    return all(
        state.owns(one.key) and (one.kind != Kind.NO_ROW or _end_within(state, one.end))
        for one in conditions
    )


def _end_within(state: State, end: bytes) -> bool:
    return state.end == UNBOUNDED or (end != UNBOUNDED and end <= state.end)
