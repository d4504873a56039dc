"""The directory's transactions over the store's client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import k2store
from k2store.client.conditions import ABSENT, FIELD, NO_ROW, PRESENT, Predicate
from k2store.client.conditions import Condition as StoreCondition
from k2store.client.conditions import Own as StoreOwn
from kv_pool.shots import (
    Absent,
    Committed,
    Condition,
    Done,
    Failed,
    Field,
    NoRow,
    Own,
    Row,
    Scalar,
    Shot,
    Transaction,
)

R = TypeVar("R")

_SHARED_MAX: Final = 16_384
"""How many conditions are remembered in the client's words."""


class DirectoryStore:
    """A `kv_pool.shots.Store` over a database; errors of the store pass through as they are."""

    __slots__ = ("_db", "_shared")

    def __init__(self, db: k2store.Database) -> None:
        self._db = db
        # By identity, with the condition itself, so that its identity stays its own.
        self._shared: dict[int, tuple[Condition, StoreCondition]] = {}

    async def shoot(self, shot: Shot) -> Done | Failed:
        """One message, one stamp."""
        shared = shot.shared
        conditions = [self._remembered(one) for one in shot.conditions[:shared]]
        conditions.extend([_condition(one) for one in shot.conditions[shared:]])
        try:
            result = await self._db.transact(
                conditions=conditions, reads=shot.reads, writes=shot.writes
            )
        except k2store.ConditionFailed as failure:
            if failure.condition is None:
                raise
            return Failed(failure.condition, failure.at or 0)
        return Done(result.at, result.values, result.waited_ns)

    def _remembered(self, condition: Condition) -> StoreCondition:
        """The same condition as the same object again, so that it travels once for many shots."""
        known = self._shared.get(id(condition))
        if known is not None:
            return known[1]
        if len(self._shared) >= _SHARED_MAX:
            self._shared.clear()
        translated = _condition(condition)
        self._shared[id(condition)] = (condition, translated)
        return translated

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
    """The same in the client's words: its comparisons have the numbers that ours have."""
    if isinstance(condition, Field):
        predicate = Predicate(condition.position, condition.compare, _right(condition.right))
        return StoreCondition(FIELD, condition.key, predicate=predicate)
    if isinstance(condition, NoRow):
        rows = k2store.prefix(condition.prefix)
        predicate = Predicate(
            condition.position, condition.compare, _right(condition.right), rows.end
        )
        return StoreCondition(NO_ROW, rows.start, predicate=predicate)
    kind = ABSENT if isinstance(condition, Absent) else PRESENT
    return StoreCondition(kind, condition.key)


def _right(right: Scalar | Own) -> Scalar | StoreOwn:
    return StoreOwn.TIME_NS if right is Own.TIME_NS else right
