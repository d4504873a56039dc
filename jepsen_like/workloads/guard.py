"""Guards: of each pair one must stay on, and who switches one off makes that a condition on the other.

As in `skew`, but half of the steps are one-shots whose condition is on a key that they do not write:
it is a read, and who writes under it afterwards, by a transaction with a smaller stamp, has broken it.
Some transactions look at all switches at once: all their reads are on their way together.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from jepsen_like.history import Recorder
from jepsen_like.workloads.skew import PAIRS, Skew, is_on

if TYPE_CHECKING:
    from jepsen_like.sim.actor import Actor, Seen


class Guard(Skew):
    """A few pairs of switches."""

    def __init__(self, recorder: Recorder, rng: random.Random, prefix: bytes = b"") -> None:
        super().__init__(recorder, rng, prefix)
        self.keys = tuple(prefix + b"guard/%d" % number for number in range(2 * PAIRS))

    async def step(self, actor: Actor) -> None:
        """Look at all at once, or a transaction as in `skew`, or look at one switch and turn the other one
        off if it is on."""
        choice = actor.random.random()
        if choice < 0.5:
            await (self._survey(actor) if choice < 0.15 else super().step(actor))
            return
        number = actor.random.randrange(2 * PAIRS)
        other = number ^ 1
        entry = len(actor.journal.entries)

        async def body(seen: Seen) -> list[list[object]]:
            return [await self._look(seen, number)]

        done = await actor.transaction("txn", [["r", number, None]], body)
        if done is None or not is_on(done[0][2]):
            return
        value = done[0][2]
        (seen,) = actor.journal.entries[entry].reads
        off = 2 * next(self._numbers)
        await actor.one_shot(
            "txn",
            [["r", number, None], ["w", other, off]],
            writes={self.keys[other]: off},
            expected=seen,
            result=[["r", number, value], ["w", other, off]],
            refused=None,
        )

    async def _survey(self, actor: Actor) -> None:
        numbers = list(range(2 * PAIRS))

        async def body(seen: Seen) -> list[list[object]]:
            return list(await asyncio.gather(*(self._look(seen, number) for number in numbers)))

        await self._run(actor, numbers, body)
