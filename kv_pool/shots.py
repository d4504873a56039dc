"""What the directory needs of a store: one-shot transactions, and interactive ones.

The directory states its transactions as values and asks for them through `Store`, which
`kv_pool.edge.store` fulfils with the store's client and tests with a dictionary.

A *shot* is a transaction in one message: conditions, reads and writes at one stamp. It is one round trip
and does nothing at all unless every condition holds. `Rules` collects conditions together with
what it means when they do not hold, so a refusal is a `Reason` and nobody reads a message.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct

from kv_pool.records import position
from truetime import timestamp

R = TypeVar("R")

Scalar = int | bytes | str | bool


class Compare(enum.IntEnum):
    """How a field is compared with the right side."""

    EQUAL = 1
    NOT_EQUAL = 2
    LESS = 3
    AT_MOST = 4
    GREATER = 5
    AT_LEAST = 6


class Own(enum.Enum):
    """The transaction's own stamp, as nanoseconds since the Unix epoch, on the right of a comparison."""

    TIME_NS = 1


class Absent(Struct, frozen=True):
    """The key has no value."""

    key: bytes


class Present(Struct, frozen=True):
    """The key has a value."""

    key: bytes


class Field(Struct, frozen=True):
    """A field of the row compares as said; a key without a value satisfies nothing."""

    key: bytes
    position: int
    compare: Compare
    right: Scalar | Own


class NoRow(Struct, frozen=True):
    """No row whose key begins with `prefix` has a field that compares as said."""

    prefix: bytes
    position: int
    compare: Compare
    right: Scalar | Own


Condition = Absent | Present | Field | NoRow


class Shot(Struct, frozen=True):
    """Conditions, keys to read and keys to write (None deletes), all at one stamp.

    shared  how many of the conditions, the first ones, are objects that other shots have as well
    """

    conditions: tuple[Condition, ...] = ()
    reads: tuple[bytes, ...] = ()
    writes: tuple[tuple[bytes, bytes | None], ...] = ()
    shared: int = 0


class Done(Struct, frozen=True):
    """The shot took effect at this stamp; values of what it read.

    waited_ns  of the time it took, what the store held the answer for the clock alone
    """

    at: int
    values: tuple[bytes | None, ...] = ()
    waited_ns: int = 0


class Failed(Struct, frozen=True):
    """The condition at this place did not hold, at this stamp; nothing was done."""

    condition: int
    at: int


class Committed(Struct, Generic[R], frozen=True):
    """What the function of an interactive transaction gave, and the stamp of its commit."""

    value: R
    at: int


class Row(Protocol):
    """A row of a scan."""

    @property
    def key(self) -> bytes: ...

    @property
    def value(self) -> bytes: ...


class Transaction(Protocol):
    """One attempt of an interactive transaction; its function may run several times."""

    @property
    def at(self) -> int:
        """The stamp; known after the first read."""
        ...

    async def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        ...

    def scan(self, start: bytes, end: bytes, limit: int) -> AsyncIterator[Row]:
        """The first `limit` rows from `start` up to `end`, in key order."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Write a value at the commit."""
        ...

    def delete(self, key: bytes) -> None:
        """Delete a key at the commit."""
        ...


class Store(Protocol):
    """A store of rows, as the directory uses it. Failures of the store itself are its own errors."""

    async def shoot(self, shot: Shot) -> Done | Failed:
        """Run a one-shot transaction."""
        ...

    async def transact(self, function: Callable[[Transaction], Awaitable[R]]) -> Committed[R]:
        """Run a function in a transaction until it commits; what it did before a failure is undone."""
        ...


class Reason(enum.Enum):
    """Why the directory refused; each is a fact about the rows at the refusal's stamp."""

    UNKNOWN = "no worker of this name has registered"
    FENCED = "the worker has another incarnation now, or none"
    NOT_LIVE = "the worker does not take new blocks"
    CLEARED = "the tier was cleared"
    SUSPECT = "the worker's events have a gap"
    EXPIRED = "the worker's lease has run out"
    ALIVE = "the worker's lease has not run out"
    PARENT = "the block before the first one is not there"
    TAKEN = "the run is there already"
    IN_FLIGHT = "somebody has announced the run and has not finished"
    REPEATED = "the event was applied before"
    QUOTA = "the tenant's bytes are used up"
    CHANGED = "the run was written anew or shortened"
    PINNED = "somebody has a claim on the run"
    LOST = "the claim has run out or was voided"
    LAST_COPY = "no other copy is there"
    TOO_SHORT = "less is held than was asked for"
    TASK = "the task is at another step"


class Refused(Struct, frozen=True):
    """Nothing was done.

    blocks  how much would be there, for a claim that asked for more
    """

    reason: Reason
    at: int
    blocks: int = 0


class Rules:
    """Conditions with their meanings, and the writes that depend on them.

    shared  how many of the conditions, the first ones, come from rules that others rest on as well
    """

    __slots__ = ("conditions", "reasons", "shared", "writes")

    def __init__(self) -> None:
        self.conditions: list[Condition] = []
        self.reasons: list[Reason] = []
        self.writes: list[tuple[bytes, bytes | None]] = []
        self.shared = 0

    def rest_on(self, other: Rules) -> None:
        """Require all that other rules require, which do not change any more."""
        assert self.shared == len(self.conditions), "what is shared comes first"
        self.conditions.extend(other.conditions)
        self.reasons.extend(other.reasons)
        self.shared = len(self.conditions)

    def require(self, reason: Reason, condition: Condition) -> None:
        """Unless the condition holds, refuse for this reason."""
        self.conditions.append(condition)
        self.reasons.append(reason)

    def field(
        self,
        reason: Reason,
        key: bytes,
        record: type[Struct],
        name: str,
        right: Scalar | Own,
        compare: Compare = Compare.EQUAL,
    ) -> None:
        """Unless a field of a row compares as said, refuse for this reason."""
        self.require(reason, Field(key, position(record, name), compare, right))

    def write(self, key: bytes, value: bytes | None) -> None:
        """Write, None deletes, if every condition holds."""
        self.writes.append((key, value))

    def shot(self) -> Shot:
        """All of it in one message."""
        return Shot(tuple(self.conditions), (), tuple(self.writes), self.shared)

    async def shoot(self, store: Store) -> Done | Refused:
        """Run it."""
        outcome = await store.shoot(self.shot())
        if isinstance(outcome, Failed):
            return Refused(self.reasons[outcome.condition], outcome.at)
        return outcome

    async def apply(self, txn: Transaction) -> Reason | None:
        """The same inside an interactive transaction: check by reading, then write."""
        for condition, reason in zip(self.conditions, self.reasons, strict=True):
            if not await holds(txn, condition):
                return reason
        for key, value in self.writes:
            if value is None:
                txn.delete(key)
            else:
                txn.put(key, value)
        return None


SCAN_ROWS_MAX: Final = 4_096
"""How many rows one condition or one step of a transaction looks at, at most."""


async def holds(txn: Transaction, condition: Condition) -> bool:
    """Whether a condition holds at the transaction's stamp."""
    match condition:
        case Absent(key):
            return await txn.get(key) is None
        case Present(key):
            return await txn.get(key) is not None
        case Field(key, place, compare, right):
            value = await txn.get(key)
            return value is not None and compares(value, place, compare, right, txn.at)
        case NoRow(prefix, place, compare, right):
            rows = txn.scan(prefix, prefix_end(prefix), SCAN_ROWS_MAX)
            async for row in rows:
                if compares(row.value, place, compare, right, txn.at):
                    return False
            return True


def compares(value: bytes, place: int, compare: Compare, right: Scalar | Own, at: int) -> bool:
    """Whether a field of a row compares as said, for a transaction with stamp `at`.

    What is no row, or has no such field, or one of another type, satisfies nothing.
    """
    try:
        fields = msgspec.msgpack.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    if not isinstance(fields, list) or place >= len(fields):
        return False
    left = fields[place]
    if isinstance(right, Own):
        right = timestamp.time_ns(at)
    if type(left) is not type(right):
        return False
    return bool(_COMPARISONS[compare](left, right))


# Both sides have one type here, which the type checker cannot know.
_COMPARISONS: Final[dict[Compare, Callable[[Any, Any], Any]]] = {
    Compare.EQUAL: operator.eq,
    Compare.NOT_EQUAL: operator.ne,
    Compare.LESS: operator.lt,
    Compare.AT_MOST: operator.le,
    Compare.GREATER: operator.gt,
    Compare.AT_LEAST: operator.ge,
}


def prefix_end(prefix: bytes) -> bytes:
    """The first key behind all that begin with a prefix; empty for none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else b""
