"""Sets: each element a row that is written once, and scans that must show all that were added.

An addition meets nobody, so there can be many of them: what a lost tail of a log, a copy with a hole
or a restart without its last second leaves out is missing here.
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

ELEMENTS_MAX = 100
"""Of a set before the next one is begun."""


class Sets:
    """Sets that are filled one after the other."""

    def __init__(self, recorder: Recorder, rng: random.Random, prefix: bytes = b"") -> None:
        self.recorder = recorder
        self._prefix = prefix + b"set/"
        self.keys = tuple(self._prefix + name for name in (b"00000/", b"00001/00150", b"00002/"))
        self._values = itertools.count()
        self._newest = 0

    async def open(self, actor: Actor) -> None:
        """Sets begin empty."""

    async def step(self, actor: Actor) -> None:
        """Add an element, or look at the newest set or the one before."""
        choice = actor.random.random()
        if choice < 0.9:
            await self._add(actor, alone=choice < 0.6)
        else:
            await self._read(actor, max(0, self._newest - actor.random.randrange(2)))

    async def close(self, actor: Actor) -> None:
        """Look at every set."""
        for number in range(self._newest + 1):
            await self._read(actor, number)

    def check(self) -> list[str]:
        """No element that was acknowledged, or ever seen, is missing later."""
        return judged(self.recorder, "set-full")

    async def _add(self, actor: Actor, *, alone: bool) -> None:
        value = next(self._values)
        self._newest = number = value // ELEMENTS_MAX
        key = self._prefix + b"%05d/%05d" % (number, value)
        if alone:
            await actor.one_shot("add", value, key=number, writes={key: value}, result=value)
            return

        async def body(seen: Seen) -> int:
            seen.put(key, value)
            return value

        await actor.transaction("add", value, body, key=number)

    async def _read(self, actor: Actor, number: int) -> None:
        where = k2store.prefix(self._prefix + b"%05d/" % number)

        async def body(seen: Seen) -> list[object]:
            return [value for _, value in await seen.scan(where)]

        await actor.transaction("read", None, body, key=number)
