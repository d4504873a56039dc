"""What the asking verbs share: a pool over the store that the options name, and words for rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import click

from k2store.cli.reach import database, reach
from k2store.errors import Rejected
from kv_pool.keys import Worker
from kv_pool.namespace import DIGEST_BYTES
from kv_pool.records import Phase, State, Tier

if TYPE_CHECKING:
    from kv_pool.edge.following import Tree
    from kv_pool.edge.pool import Pool
    from kv_pool.edge.thin import ThinMatcher

ASKER: Final = "k2-pool"
"""Stands for the region of a process that only asks."""


@asynccontextmanager
async def learner() -> AsyncIterator[tuple[Pool, Tree]]:
    """A pool, and a learner that shows everything that was committed before."""
    from kv_pool.edge.pool import Pool

    async with database() as db, Pool(db, ASKER) as pool, pool.learner() as tree:
        async with db.snapshot(strong=True) as view:
            await view.get(b"d/")
        await tree.caught_up(view.at)
        yield pool, tree


def matcher() -> ThinMatcher:
    """What asks the nodes that the options name."""
    from kv_pool.edge.thin import ThinMatcher

    found = reach()
    return ThinMatcher(found.address, tls=found.tls, token=found.token, timeout=found.timeout_s)


def worker_of(text: str) -> Worker:
    """``region/name``; `Rejected` for anything else."""
    region, slash, name = text.partition("/")
    try:
        if not slash:
            raise ValueError(f"{text!r} is not REGION/NAME")
        return Worker(region, name)
    except ValueError as error:
        raise Rejected(str(error), field="worker") from None


class Digest(click.ParamType):  # type: ignore[type-arg] # generic in newer click only
    """A namespace, by its digest in hexadecimal."""

    name = "digest"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """The digest."""
        if isinstance(value, bytes):
            return value
        try:
            digest = bytes.fromhex(str(value))
        except ValueError:
            digest = b""
        if len(digest) != DIGEST_BYTES:
            self.fail(f"a namespace is {2 * DIGEST_BYTES} hexadecimal digits", param, ctx)
        return digest


def tier_word(tier: int) -> str:
    """A tier, as shown."""
    return Tier(tier).name.lower()


def state_word(state: int) -> str:
    """A worker's state, as shown."""
    return State(state).name.lower()


def phase_word(phase: int) -> str:
    """A run's phase, as shown."""
    return Phase(phase).name.lower()
