"""The directory's transactions over the store's client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import k2store
from k2store.client.conditions import Condition as StoreCondition
from k2store.client.conditions import FieldOf
from kv_pool.shots import (
    Absent,
    Committed,
    Compare,
    Condition,
    Done,
    Failed,
    Field,
    NoRow,
    Own,
    Present,
    Row,
    Scalar,
    Shot,
    Transaction,
)

R = TypeVar("R")


class DirectoryStore:
    """A `kv_pool.shots.Store` over a database; errors of the store pass through as they are."""

    __slots__ = ("_db",)

    def __init__(self, db: k2store.Database) -> None:
        self._db = db

    async def shoot(self, shot: Shot) -> Done | Failed:
        """One message, one stamp."""
        try:
            result = await self._db.transact(
                conditions=[_condition(one) for one in shot.conditions],
                reads=shot.reads,
                writes=shot.writes,
            )
        except k2store.ConditionFailed as failure:
            if failure.condition is None:
                raise
            return Failed(failure.condition, failure.at or 0)
        return Done(result.at, result.values)

    async def transact(self, function: Callable[[Transaction], Awaitable[R]]) -> Committed[R]:
        """Until it commits."""
        async for txn in self._db.transactions():
            async with txn:
                value = await function(_Transaction(txn))
        return Committed(value, txn.committed_at or txn.at)


class _Transaction:
    """A transaction of the client, as the directory wants it."""

    __slots__ = ("_txn",)

    def __init__(self, txn: k2store.Transaction) -> None:
        self._txn = txn

    @property
    def at(self) -> int:
        return self._txn.at

    async def get(self, key: bytes) -> bytes | None:
        return await self._txn.get(key)

    def scan(self, start: bytes, end: bytes, limit: int) -> AsyncIterator[Row]:
        return self._txn.scan(k2store.KeyRange(start, end), limit=limit)

    def put(self, key: bytes, value: bytes) -> None:
        self._txn.put(key, value)

    def delete(self, key: bytes) -> None:
        self._txn.delete(key)


def _condition(condition: Condition) -> StoreCondition:
    match condition:
        case Absent(key):
            return k2store.absent(key)
        case Present(key):
            return k2store.present(key)
        case Field(key, position, compare, right):
            return _compared(k2store.field(key, position), compare, right)
        case NoRow(prefix, position, compare, right):
            return _compared(k2store.no_row(prefix, position), compare, right)


def _compared(field: FieldOf, compare: Compare, right: Scalar | Own) -> StoreCondition:
    other = k2store.own_time() if isinstance(right, Own) else right
    match compare:
        case Compare.EQUAL:
            return field.equals(other)
        case Compare.NOT_EQUAL:
            return field.differs(other)
        case Compare.LESS:
            return field.less_than(other)
        case Compare.AT_MOST:
            return field.at_most(other)
        case Compare.GREATER:
            return field.greater_than(other)
        case Compare.AT_LEAST:
            return field.at_least(other)
