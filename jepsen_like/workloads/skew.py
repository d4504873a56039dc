"""Write skew: of each pair one must stay on, and each client switches off only one of them.

Two that both see both on and switch off one each would leave none: that is what snapshot
isolation allows and serializability does not (Berenson et al., SIGMOD 1995). A value's lowest bit
says on or off; the rest makes it unique, so that the reads say whose write they saw.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from jepsen_like.history import Recorder
from jepsen_like.workloads.judging import judged

if TYPE_CHECKING:
    from jepsen_like.sim.actor import Actor, Seen

PAIRS = 3


class Skew:
    """A few pairs of switches."""

    def __init__(self, recorder: Recorder, rng: random.Random, prefix: bytes = b"") -> None:
        self.recorder = recorder
        self.keys = tuple(prefix + b"skew/%d" % number for number in range(2 * PAIRS))
        self._numbers = itertools.count(1)
        self._both_off: list[str] = []

    async def open(self, actor: Actor) -> None:
        """All switches are on."""

        async def body(seen: Seen) -> list[list[object]]:
            return [self._switch(seen, number, on=True) for number in range(2 * PAIRS)]

        await actor.transaction("txn", [], body)

    async def step(self, actor: Actor) -> None:
        """Look at a pair; switch one off if both are on, else one on."""
        pair = actor.random.randrange(PAIRS)
        order = [2 * pair, 2 * pair + 1]
        actor.random.shuffle(order)

        async def body(seen: Seen) -> list[list[object]]:
            reads = [await self._look(seen, number) for number in order]
            on = [
                number for number, (_, _, value) in zip(order, reads, strict=True) if is_on(value)
            ]
            if len(on) == 2:
                return [*reads, self._switch(seen, order[0], on=False)]
            off = next(number for number in order if number not in on)
            return [*reads, self._switch(seen, off, on=True)]

        await self._run(actor, order, body)

    async def close(self, actor: Actor) -> None:
        """Look at all pairs."""
        numbers = list(range(2 * PAIRS))

        async def body(seen: Seen) -> list[list[object]]:
            return [await self._look(seen, number) for number in numbers]

        await self._run(actor, numbers, body)

    def check(self) -> list[str]:
        """No pair was ever seen off, and the dependencies have no cycle."""
        return [*self._both_off, *judged(self.recorder, "rw-register")]

    async def _run(
        self,
        actor: Actor,
        numbers: list[int],
        body: Callable[[Seen], Awaitable[list[list[object]]]],
    ) -> None:
        asked: list[list[object]] = [["r", number, None] for number in numbers]
        done = await actor.transaction("txn", asked, body)
        seen = {number: value for f, number, value in done or () if f == "r"}
        for pair in range(PAIRS):
            both = [seen.get(2 * pair), seen.get(2 * pair + 1)]
            if None not in both and not any(map(is_on, both)):
                self._both_off.append(f"write skew: both switches of pair {pair} are off: {both}")

    def _switch(self, seen: Seen, number: int, *, on: bool) -> list[object]:
        value = 2 * next(self._numbers) + on
        seen.put(self.keys[number], value)
        return ["w", number, value]

    async def _look(self, seen: Seen, number: int) -> list[object]:
        return ["r", number, await seen.get(self.keys[number])]


def is_on(value: object) -> bool:
    """Whether a switch of this value is on."""
    return isinstance(value, int) and value % 2 == 1
