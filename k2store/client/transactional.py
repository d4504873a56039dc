"""`@transactional`: functions that open a transaction, or join the one they are given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from k2store.errors import Rejected

if TYPE_CHECKING:
    from k2store.client.database import Database
    from k2store.client.transaction import Transaction

P = ParamSpec("P")
R = TypeVar("R")


def transactional(
    function: Callable[Concatenate[Transaction, P], Awaitable[R]],
) -> Callable[Concatenate[Database | Transaction, P], Coroutine[Any, Any, R]]:
    """Make ``function(transaction, ...)`` callable with a database, too.

    Given a `Database` it runs in a transaction of its own, retried as `Database.run` does; given
    a `Transaction` it is part of that one. Generators are refused: they would run on after the
    commit.
    """
    refuse_generators(function)

    @functools.wraps(function)
    async def call(where: Database | Transaction, /, *args: P.args, **kwargs: P.kwargs) -> R:
        from k2store.client.database import Database

        if isinstance(where, Database):
            return await where.run(function, *args, **kwargs)
        return await function(where, *args, **kwargs)

    return call


def refuse_generators(function: Callable[..., object]) -> None:
    """`Rejected` for a function whose body would run only after it has returned."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise Rejected(
            f"{getattr(function, '__qualname__', function)} is a generator: its body would run "
            "after the transaction has ended; return a list instead",
            field="function",
        )
