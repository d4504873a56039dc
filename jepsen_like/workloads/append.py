"""Append: transactions that append to lists and read them; list order shows every dependency."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from jepsen_like.history import Recorder
from jepsen_like.workloads.judging import judged

if TYPE_CHECKING:
    from jepsen_like.sim.actor import Actor, Seen

LISTS = 5


class Append:
    """A few lists, each in one value."""

    def __init__(self, recorder: Recorder, rng: random.Random, prefix: bytes = b"") -> None:
        self.recorder = recorder
        self.keys = tuple(prefix + b"append/%d" % number for number in range(LISTS))
        self._values = itertools.count(1)

    async def open(self, actor: Actor) -> None:
        """Lists begin empty."""

    async def step(self, actor: Actor) -> None:
        """One to four reads and appends; a list is read once more after it was appended to."""
        asked: list[list[object]] = []
        for _ in range(actor.random.randint(1, 4)):
            name = actor.random.randrange(LISTS)
            if actor.random.random() < 0.5:
                asked.append(["r", name, None])
            else:
                asked.append(["append", name, next(self._values)])
        await self._run(actor, asked)

    async def close(self, actor: Actor) -> None:
        """Read every list."""
        await self._run(actor, [["r", name, None] for name in range(LISTS)])

    def check(self) -> list[str]:
        """Strict serializability, from the order of the elements."""
        return judged(self.recorder, "list-append")

    async def _run(self, actor: Actor, asked: list[list[object]]) -> None:
        async def body(seen: Seen) -> list[list[object]]:
            done: list[list[object]] = []
            for f, name, value in asked:
                assert isinstance(name, int)
                now = await seen.get(self.keys[name])
                values = list(now) if isinstance(now, list) else []
                if f == "append":
                    seen.put(self.keys[name], [*values, value])
                    done.append([f, name, value])
                else:
                    done.append([f, name, values])
            return done

        await actor.transaction("txn", asked, body)
