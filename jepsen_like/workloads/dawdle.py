"""Transactions that take their time: they write early, write again, delete, wait, and look back.

What they meet is what quick ones seldom do: intents of others that stand for long, closed time,
own intents that are replaced, verdicts of anchors, history that has been collected. They have no
checker of their own; the serial replay of all transactions judges what they saw.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING, Final

import k2store
from jepsen_like.history import Recorder

if TYPE_CHECKING:
    from jepsen_like.sim.actor import Actor, Seen

KEYS: Final = 6
PAUSE_S: Final = 0.08
PAST_SHARE: Final = 0.15
STAMPS_KEPT: Final = 40
STALE_S: Final = 3_600.0
"""How old a view at a stamp may be: as old as the run."""


class Dawdle:
    """A few keys, a few of them written together, slowly."""

    def __init__(self, recorder: Recorder, rng: random.Random, prefix: bytes = b"") -> None:
        self.recorder = recorder
        self.keys = tuple(prefix + b"dawdle/%d" % number for number in range(KEYS))
        self._values = itertools.count(1)
        self._stamps: list[int] = []

    async def open(self, actor: Actor) -> None:
        """Nothing has to be there."""

    async def step(self, actor: Actor) -> None:
        """Mostly write, sometimes read what was."""
        if self._stamps and actor.random.random() < PAST_SHARE:
            await self._look_back(actor)
            return
        rng = actor.random
        keys = rng.sample(self.keys, rng.randint(2, 4))
        pauses_s = [rng.choice((0.0, 0.0, 1.0, 3.0)) * PAUSE_S * rng.random() for _ in keys]
        gone = [rng.random() < 0.3 for _ in keys]
        again = rng.random() < 0.6

        async def body(seen: Seen) -> int:
            for key, pause_s, deleted in zip(keys, pauses_s, gone, strict=True):
                if deleted:
                    seen.delete(key)
                else:
                    seen.put(key, next(self._values))
                await asyncio.sleep(pause_s)
            if again:
                seen.put(keys[0], next(self._values))
                await seen.get(keys[-1])
            return len(keys)

        entry = len(actor.journal.entries)
        await actor.transaction("dawdle", [key.decode() for key in keys], body)
        at = actor.journal.entries[entry].at
        if at:
            self._stamps = [*self._stamps[-STAMPS_KEPT:], at]

    async def _look_back(self, actor: Actor) -> None:
        """Read at the stamp of an earlier commit, that may have been collected."""
        at = actor.random.choice(self._stamps)
        async with actor.past(STALE_S, at=at) as past:
            await past.scan(k2store.prefix(self.keys[0][:-1]))

    async def close(self, actor: Actor) -> None:
        """Nothing is left to read: the final scan of the run does it."""

    def check(self) -> list[str]:
        """Nothing of its own."""
        return []
