"""Phantoms: whoever inserts a row looks at the whole range first, and numbers the row by it.

So the rows of a group, in order of keys, are a list that every insertion appends to, and a scan
reads that list. Two insertions that did not see each other have the same number.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import k2store
from jepsen_like.history import Recorder
from jepsen_like.workloads.judging import judged

if TYPE_CHECKING:
    from jepsen_like.sim.actor import Actor, Seen

ROWS_MAX = 12
"""Rows of a group before the next one is begun."""


class Phantom:
    """Groups of rows, two at a time."""

    def __init__(self, recorder: Recorder, rng: random.Random, prefix: bytes = b"") -> None:
        self.recorder = recorder
        self._prefix = prefix + b"row/"
        self.keys = tuple(self._prefix + key for key in (b"001/", b"002/0004", b"004/"))
        self._values = itertools.count(1)
        self._group = 0

    async def open(self, actor: Actor) -> None:
        """Groups begin empty."""

    async def step(self, actor: Actor) -> None:
        """Insert behind all rows, or behind the last one, or only look."""
        group = self._group + actor.random.randrange(2)
        choice = actor.random.random()
        if choice < 0.45:
            await self._insert(actor, group)
        elif choice < 0.65:
            await self._insert_behind(actor, group)
        elif choice < 0.9:
            await self._scan(actor, (group,))
        else:
            async with actor.past() as past:
                await past.scan(self._range(group))
                await past.scan(self._range(group), limit=2, reverse=True)

    async def close(self, actor: Actor) -> None:
        """Look at every group."""
        await self._scan(actor, tuple(range(self._group + 2)))

    def check(self) -> list[str]:
        """The groups behave like lists under strict serializability."""
        return judged(self.recorder, "list-append")

    async def _insert(self, actor: Actor, group: int) -> None:
        value = next(self._values)

        async def body(seen: Seen) -> list[list[object]]:
            rows = await seen.scan(self._range(group))
            self._put(seen, group, len(rows), value)
            return [["r", group, [row for _, row in rows]], ["append", group, value]]

        await actor.transaction("txn", [["r", group, None], ["append", group, value]], body)

    async def _insert_behind(self, actor: Actor, group: int) -> None:
        value = next(self._values)
        asked = [["append", group, value]]

        async def body(seen: Seen) -> list[list[object]]:
            rows = await seen.scan(self._range(group), limit=1, reverse=True)
            number = int(rows[0][0].rpartition(b"/")[2].split(b"-")[0]) + 1 if rows else 0
            self._put(seen, group, number, value)
            return [["append", group, value]]

        await actor.transaction("txn", asked, body)

    async def _scan(self, actor: Actor, groups: tuple[int, ...]) -> None:
        async def body(seen: Seen) -> list[list[object]]:
            return [
                ["r", group, [row for _, row in await seen.scan(self._range(group))]]
                for group in groups
            ]

        await actor.transaction("txn", [["r", group, None] for group in groups], body)

    def _put(self, seen: Seen, group: int, number: int, value: int) -> None:
        if number >= ROWS_MAX:
            self._group = max(self._group, group)
        seen.put(self._prefix + b"%03d/%04d-%05d" % (group, number, value), value)

    def _range(self, group: int) -> k2store.KeyRange:
        return k2store.prefix(self._prefix + b"%03d/" % group)
