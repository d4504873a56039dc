"""What waits to leave, and how it becomes a frame of columns.

An operation is a tuple that stays the same from the call to the answer: the outbox lists it until
it has left, the session until it is answered. `zip` turns a list of such tuples into columns in
one go, so an operation costs its own tuple and nothing else. This module knows the wire's
messages; it knows no connection and no clock.

The tuples begin alike, whatever they ask for::

    (future, deadline, kind, request, ...)
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar, cast

from k2store.client.conditions import (
    FIELD,
    NO_ROW,
    VALUE,
    VERSION,
    Condition,
    Own,
    Predicate,
    Scalar,
)
from k2store.v1 import session_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

READ: Final = 0
COMMIT: Final = 1
ONE_SHOT: Final = 2
CALL: Final = 3

FUTURE: Final = 0
DEADLINE: Final = 1
KIND: Final = 2
REQUEST: Final = 3


class Owner(Protocol):
    """What an operation belongs to: the transaction or view that may learn its stamp later."""

    @property
    def at(self) -> int:
        """The stamp, 0 while it is not known."""


Future: TypeAlias = "asyncio.Future[Any]"

Read: TypeAlias = tuple[Future, float, int, int, bytes, int, bytes, int, Owner | None]
"""..., txn, at, key, timeout_ms, owner"""

Commit: TypeAlias = tuple[
    Future, float, int, int, bytes, int, list[bytes], list[bytes | None], int, int, int
]
"""..., txn, at, keys, values, timeout_ms, how many writes have left before, bytes of the writes"""

OneShot: TypeAlias = tuple[
    Future,
    float,
    int,
    int,
    bytes,
    int,
    tuple[Condition, ...],
    tuple[bytes, ...],
    tuple[bytes, ...],
    tuple[bytes | None, ...],
    int,
]
"""..., txn, timeout_ms, conditions, reads, keys, values, bytes of them all"""

Call: TypeAlias = tuple[Future, float, int, int, str, Any, Owner | None]
"""..., field of the frame, message, owner"""

Entry: TypeAlias = Read | Commit | OneShot | Call

_CONSTANTS: Final = {
    Own: "own",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "text",
    bytes: "binary",
}
"""Field of a predicate's message, by the type of its right side."""

_OVERHEAD_BYTES: Final = 48
"""What an operation costs on the wire beside keys and values, roughly and at most."""


class Outbox:
    """Everything that has not left yet, by kind, in the order it was asked for."""

    __slots__ = (
        "calls",
        "commits",
        "finished",
        "frame_bytes",
        "one_shots",
        "progress",
        "reads",
        "shares_conditions",
        "timeout_ms",
        "twice",
    )

    def __init__(self, frame_bytes: int, timeout_ms: int) -> None:
        self.frame_bytes = frame_bytes
        self.timeout_ms = timeout_ms
        self.shares_conditions = False
        self.reads: list[Read] = []
        self.commits: list[Commit] = []
        self.one_shots: list[OneShot] = []
        self.calls: list[Call] = []
        self.progress: dict[int, wire.WatchProgress] = {}
        self.finished: list[bytes] = []
        self.twice: set[bytes] = set()
        """One-shots that two connections have carried."""

    def put(self, entry: Entry) -> None:
        """Let a read or a call leave."""
        if entry[KIND] == READ:
            self.reads.append(cast("Read", entry))
        else:
            assert entry[KIND] == CALL, "what may take twice is not simply sent"
            self.calls.append(cast("Call", entry))

    def finish(self, txn: bytes, *, doubt: bool = False) -> None:
        """Let the node forget a transaction, unless a copy of it may be alive.

        A copy that was sent before and never answered may still wait for a leader at another node,
        and would run anew if nobody knew its outcome any more. The node lets go of that when it is
        so old that no copy can be alive.
        """
        if txn in self.twice:
            self.twice.discard(txn)
        elif not doubt:
            self.finished.append(txn)

    def drop(self, requests: set[int]) -> None:
        """Take out requests that have not left."""
        self.reads = [e for e in self.reads if e[REQUEST] not in requests]
        self.commits = [e for e in self.commits if e[REQUEST] not in requests]
        self.one_shots = [e for e in self.one_shots if e[REQUEST] not in requests]
        self.calls = [e for e in self.calls if e[REQUEST] not in requests]

    def __bool__(self) -> bool:
        """Whether anything should leave; transactions that are over can wait for company."""
        return bool(self.reads or self.commits or self.one_shots or self.calls or self.progress)

    def clear(self) -> None:
        """Forget everything, and what the node of the last connection understands."""
        self.shares_conditions = False
        self.reads, self.commits, self.one_shots, self.calls = [], [], [], []
        self.progress, self.finished = {}, []

    def frame(self, hello: wire.SessionHello | None, seen: int, sent_ns: int) -> bytes:
        """Take out as much as one frame carries, encoded; call again while there is more."""
        frame = wire.SessionRequest(seen=seen, sent_ns=sent_ns)
        if hello is not None:
            frame.hello.CopyFrom(hello)
        if self.finished:
            frame.finished.extend(self.finished)
            self.finished = []
        if self.progress:
            frame.watch_progress.extend(self.progress.values())
            self.progress = {}
        room = self.frame_bytes
        if self.commits:
            taken, self.commits, room = _take(self.commits, room, _commit_bytes)
            self._add_commits(frame.commits, taken)
        if self.one_shots and room > 0:
            shots, self.one_shots, room = _take(self.one_shots, room, _one_shot_bytes)
            self._add_one_shots(frame.one_shots, shots)
        if self.calls and room > 0:
            calls, self.calls, room = _take(self.calls, room, _call_bytes)
            for call in calls:
                getattr(frame, call[4]).append(call[5])
        if self.reads and room > 0:
            reads, self.reads, room = _take(self.reads, room, _read_bytes)
            self._add_reads(frame.reads, reads)
        return frame.SerializeToString()

    def _add_reads(self, columns: wire.ReadColumns, reads: list[Read]) -> None:
        _, _, _, request, txn, at, key, timeout_ms, _ = zip(*reads, strict=True)
        columns.request.extend(request)
        columns.txn.extend(txn)
        columns.at.extend(at)
        columns.key.extend(key)
        self._add_timeouts(columns.timeout_ms, timeout_ms)

    def _add_commits(self, columns: wire.CommitColumns, commits: list[Commit]) -> None:
        _, _, _, request, txn, at, keys, values, timeout_ms, early, _ = zip(*commits, strict=True)
        columns.request.extend(request)
        columns.txn.extend(txn)
        columns.at.extend(at)
        columns.write_count.extend(map(len, keys))
        columns.key.extend([key for some in keys for key in some])
        _add_values([value for some in values for value in some], columns.value, columns.deleted)
        self._add_timeouts(columns.timeout_ms, timeout_ms)
        if any(early):
            columns.early_count.extend(early)

    def _add_one_shots(self, columns: wire.OneShotColumns, shots: list[OneShot]) -> None:
        _, _, _, request, txn, timeout_ms, conditions, reads, keys, values, _ = zip(
            *shots, strict=True
        )
        columns.request.extend(request)
        columns.txn.extend(txn)
        self._add_timeouts(columns.timeout_ms, timeout_ms)
        every_condition = [condition for some in conditions for condition in some]
        if every_condition:
            columns.condition_count.extend(map(len, conditions))
            self._add_conditions(columns, every_condition)
        every_read = [key for some in reads for key in some]
        if every_read:
            columns.read_count.extend(map(len, reads))
            columns.read_key.extend(every_read)
        every_key = [key for some in keys for key in some]
        if every_key:
            columns.write_count.extend(map(len, keys))
            columns.write_key.extend(every_key)
            _add_values(
                [value for some in values for value in some],
                columns.write_value,
                columns.write_deleted,
            )

    def _add_conditions(self, columns: wire.OneShotColumns, conditions: list[Condition]) -> None:
        kinds: list[Any] = [condition.kind for condition in conditions]
        predicates = FIELD in kinds or NO_ROW in kinds
        if predicates and self.shares_conditions:
            # One-shots of one holder rest on the same conditions, which are the same objects.
            numbers: dict[int, int] = {}
            places = [numbers.setdefault(id(condition), len(numbers)) for condition in conditions]
            columns.condition_index.extend(places)
            if len(numbers) < len(conditions):
                conditions = list({id(condition): condition for condition in conditions}.values())
                kinds = [condition.kind for condition in conditions]
        columns.condition_kind.extend(kinds)
        columns.condition_key.extend([condition.key for condition in conditions])
        if VERSION in kinds:
            columns.condition_version.extend([condition.version for condition in conditions])
        if VALUE in kinds:
            columns.condition_value.extend([condition.value for condition in conditions])
        if predicates:
            every = [one.predicate for one in conditions if one.predicate is not None]
            if self.shares_conditions:
                # With its type: 1, True and `Own.STAMP` are equal and not the same.
                places_of: dict[tuple[type, Predicate], int] = {}
                columns.predicate_index.extend(
                    [places_of.setdefault((type(one.right), one), len(places_of)) for one in every]
                )
                every = [one for _, one in places_of]
            columns.predicates.extend([predicate_message(one) for one in every])

    def _add_timeouts(self, column: Any, timeouts: Iterable[int]) -> None:
        if any(timeouts):
            default = self.timeout_ms
            column.extend([timeout or default for timeout in timeouts])


def _add_values(values: list[bytes | None], column: Any, deleted: Any) -> None:
    if None in values:
        column.extend([value or b"" for value in values])
        deleted.extend([value is None for value in values])
    else:
        column.extend(values)


def predicate_message(predicate: Predicate) -> wire.FieldPredicate:
    """A predicate as it travels."""
    right = predicate.right
    values: dict[str, Any] = {"comparison": predicate.comparison, "end": predicate.end}
    values["name" if isinstance(predicate.field, str) else "index"] = predicate.field
    if right is not None:
        name = _CONSTANTS.get(type(right))
        values[name or _constant_of(right)] = right
    return wire.FieldPredicate(**values)


def _constant_of(right: Scalar | Own) -> str:
    """The field for a right side whose type derives from one that travels."""
    return next(name for kind, name in _CONSTANTS.items() if isinstance(right, kind))


T = TypeVar("T")


def _take(
    waiting: list[T], room: int, size_of: Callable[[list[T]], int]
) -> tuple[list[T], list[T], int]:
    """As many from the front as fit, at least one; the rest; and the room left."""
    size = size_of(waiting)
    if size <= room or len(waiting) == 1:
        return waiting, [], room - size
    count = 0
    while count < len(waiting) and room > 0:
        room -= size_of(waiting[count : count + 1])
        count += 1
    return waiting[:count], waiting[count:], room


def _read_bytes(reads: list[Read]) -> int:
    return sum([len(read[6]) for read in reads]) + _OVERHEAD_BYTES * len(reads)


def _commit_bytes(commits: list[Commit]) -> int:
    return sum([commit[10] for commit in commits]) + _OVERHEAD_BYTES * len(commits)


def _one_shot_bytes(shots: list[OneShot]) -> int:
    size = sum([shot[10] for shot in shots])
    return size + _OVERHEAD_BYTES * (len(shots) + sum([len(shot[6]) for shot in shots]))


def _call_bytes(calls: list[Call]) -> int:
    return sum([call[5].ByteSize() for call in calls])
