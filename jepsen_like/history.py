"""The one history format: what clients asked, what they were told, and in which order one observer saw it.

Owns the data model (`Event`, `Operation`, `History`) and the `Recorder` that simulations and real clusters
write through. Knows nothing of files (see `formats`) or of what a history should satisfy (see `checkers`).

The order of the events in the list *is* the real-time order: an operation precedes another when its completion
stands before the other's invocation. Times are kept for people and for merging, never for judging.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec

Process: TypeAlias = int | str | None
Kind: TypeAlias = Literal["invoke", "ok", "fail", "info"]
Outcome: TypeAlias = Literal["ok", "fail", "info"]

NEVER = sys.maxsize
"""The position of a completion that was not seen: after everything."""

UNSEEN = -1
"""The position of an invocation that was not recorded: before everything."""


class HistoryError(ValueError):
    """A history that cannot be read or makes no sense; the message says where and why."""


class Event(msgspec.Struct, frozen=True):
    """One line of a history.

    `type` is `invoke` for a question and `ok`, `fail` (certainly not applied) or `info` (nobody knows) for its
    answer. `stamp` is the commit timestamp the store reported, used by the white-box replay only.
    """

    index: int
    type: Kind
    process: Process
    f: str
    value: object = None
    time_ns: int | None = None
    key: object = None
    stamp: int | None = None
    error: object = None


class Operation(msgspec.Struct, frozen=True):
    """An invocation with its completion; `start` and `end` are positions, `end` is `NEVER` if unknown."""

    number: int
    process: Process
    f: str
    argument: object
    result: object
    outcome: Outcome
    start: int
    end: int
    start_ns: int | None = None
    end_ns: int | None = None
    key: object = None
    stamp: int | None = None
    error: object = None
    index: int = -1

    @property
    def value(self) -> object:
        """What is known of the operation: its result when it completed well, its argument otherwise."""
        return self.result if self.outcome == "ok" else self.argument


class History:
    """An immutable sequence of events, paired into operations on demand.

    `nil_is_a_value` is False for histories in which a register read as nil means that its value is not known.
    """

    def __init__(self, events: Iterable[Event], *, nil_is_a_value: bool = True) -> None:
        self.events: Sequence[Event] = list(events)
        self.nil_is_a_value = nil_is_a_value
        self._operations: list[Operation] | None = None

    def __len__(self) -> int:
        return len(self.events)

    @property
    def operations(self) -> list[Operation]:
        """Operations in order of invocation.

        A completion without invocation (histories that hold answers only) may have begun at any earlier time:
        its start is `UNSEEN`. Raises `HistoryError` when a process invokes while its last operation is still open.
        """
        if self._operations is None:
            self._operations = _pair(self.events)
        return self._operations

    @staticmethod
    def merge(histories: Iterable[History]) -> History:
        """One history out of several that share a clock, ordered by time.

        At equal times invocations go first: the operations then overlap, which can hide an error but never
        invent one. Processes must be distinct between the parts.
        """
        events = [event for history in histories for event in history.events]
        if any(event.time_ns is None for event in events):
            raise HistoryError("histories can be merged only if every event has a time")
        events.sort(key=lambda event: (event.time_ns or 0, event.type != "invoke"))
        return History(msgspec.structs.replace(event, index=i) for i, event in enumerate(events))


def _pair(events: Sequence[Event]) -> list[Operation]:
    open_invocations: dict[object, int] = {}
    pairs: list[tuple[int, int | None]] = []
    slots: dict[int, int] = {}
    for position, event in enumerate(events):
        # Where processes are not recorded the name of the operation has to do.
        process = event.process if event.process is not None else ("no process", event.f)
        if event.type == "invoke":
            if process in open_invocations:
                raise HistoryError(
                    f"event {event.index}: process {event.process!r} invokes {event.f!r} while its operation "
                    f"at event {events[open_invocations[process]].index} is still open"
                )
            open_invocations[process] = position
            slots[position] = len(pairs)
            pairs.append((position, None))
            continue
        start = open_invocations.pop(process, None)
        if start is None:
            pairs.append((UNSEEN, position))
        else:
            pairs[slots.pop(start)] = (start, position)
    return [_operation(number, start, end, events) for number, (start, end) in enumerate(pairs)]


def _operation(number: int, start: int, end: int | None, events: Sequence[Event]) -> Operation:
    assert start != UNSEEN or end is not None
    last = events[start if end is None else end]
    first = last if start == UNSEEN else events[start]
    outcome: Outcome = "info" if last.type == "invoke" else last.type
    return Operation(
        number=number,
        process=first.process,
        f=first.f or last.f,
        argument=first.value,
        result=last.value,
        outcome=outcome,
        start=start,
        end=NEVER if outcome == "info" or end is None else end,
        start_ns=first.time_ns,
        end_ns=None if end is None else last.time_ns,
        key=first.key if first.key is not None else last.key,
        stamp=last.stamp if last.stamp is not None else first.stamp,
        error=last.error,
        index=last.index,
    )


class Recorder:
    """Writes a history while it happens. Not thread-safe: one recorder belongs to one event loop.

    Call `invoke` *before* the request leaves and `ok`, `fail` or `info` *after* the answer arrived; the calling
    order is the real-time order. After `info` the process id must not be used again (`retire` gives a fresh one).

    `clock` gives nanoseconds and is used when a call brings no `time_ns`. `sink` is given every event as it
    happens: what a process has told it survives the process.
    """

    def __init__(
        self,
        clock: Callable[[], int] | None = None,
        sink: Callable[[Event], object] | None = None,
    ) -> None:
        self._clock = clock
        self._sink = sink
        self._events: list[Event] = []
        self._open: dict[Process, Event] = {}
        self._retired: set[Process] = set()

    def invoke(
        self,
        process: Process,
        f: str,
        value: object = None,
        *,
        key: object = None,
        time_ns: int | None = None,
    ) -> int:
        """Notes that `process` is about to do `f`; gives the index of the event."""
        if process in self._open:
            raise HistoryError(f"process {process!r} has an open operation already")
        if process in self._retired:
            raise HistoryError(f"process {process!r} was retired by an unknown outcome")
        event = Event(len(self._events), "invoke", process, f, value, self._now(time_ns), key)
        self._events.append(event)
        self._open[process] = event
        if self._sink is not None:
            self._sink(event)
        return event.index

    def ok(
        self,
        process: Process,
        value: object = None,
        *,
        time_ns: int | None = None,
        stamp: int | None = None,
    ) -> int:
        """The operation was done; `value` is what it gave (for a write: what was written, the default)."""
        return self._complete("ok", process, value, time_ns, stamp, None)

    def fail(self, process: Process, error: object = None, *, time_ns: int | None = None) -> int:
        """The operation was certainly not applied. When in any doubt, say `info`."""
        return self._complete("fail", process, None, time_ns, None, error)

    def info(
        self,
        process: Process,
        error: object = None,
        *,
        time_ns: int | None = None,
        stamp: int | None = None,
    ) -> int:
        """Nobody knows whether the operation was applied or will be. The process is retired."""
        self._retired.add(process)
        return self._complete("info", process, None, time_ns, stamp, error)

    def history(self) -> History:
        """The history so far; operations still open count as unknown."""
        return History(self._events)

    def _complete(
        self,
        kind: Kind,
        process: Process,
        value: object,
        time_ns: int | None,
        stamp: int | None,
        error: object,
    ) -> int:
        asked = self._open.pop(process, None)
        if asked is None:
            raise HistoryError(f"process {process!r} has no open operation to complete")
        told = asked.value if value is None else value
        event = Event(
            len(self._events),
            kind,
            process,
            asked.f,
            told,
            self._now(time_ns),
            asked.key,
            stamp,
            error,
        )
        self._events.append(event)
        if self._sink is not None:
            self._sink(event)
        return event.index

    def _now(self, time_ns: int | None) -> int | None:
        if time_ns is not None or self._clock is None:
            return time_ns
        return self._clock()
