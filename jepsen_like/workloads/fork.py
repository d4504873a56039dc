"""Long forks: inserts of single keys, each by itself, and reads of a whole group at once.

Two replicas that apply two inserts in different orders show it here: one reader sees the first
without the second, another one the second without the first.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from jepsen_like.history import Recorder
from jepsen_like.workloads.judging import judged

if TYPE_CHECKING:
    from jepsen_like.sim.actor import Actor, Seen

GROUP_KEYS = 3
GROUPS = 400
"""More than a run needs; when all keys are written there is only reading left."""


class Fork:
    """Groups of keys that are written once."""

    def __init__(self, recorder: Recorder, rng: random.Random, prefix: bytes = b"") -> None:
        self.recorder = recorder
        self.keys = tuple(prefix + b"fork/%03d" % number for number in range(GROUP_KEYS * GROUPS))
        self._left = list(range(GROUP_KEYS, len(self.keys)))
        self._group = 0

    async def open(self, actor: Actor) -> None:
        """The first group is written, so that there is something to see."""
        for number in range(GROUP_KEYS):
            await self._insert(actor, number)

    async def step(self, actor: Actor) -> None:
        """Insert one of the next keys, or read the group that is being written."""
        choice = actor.random.random()
        if choice < 0.4 and self._left:
            number = self._left.pop(actor.random.randrange(min(GROUP_KEYS, len(self._left))))
            self._group = number // GROUP_KEYS
            await self._insert(actor, number)
        elif choice < 0.85:
            await self._read(actor, self._group)
        else:
            async with actor.past() as past:
                for key in self._keys(self._group):
                    await past.get(key)

    async def close(self, actor: Actor) -> None:
        """Read every group that was begun."""
        for group in range(self._group + 1):
            await self._read(actor, group)

    def check(self) -> list[str]:
        """All inserts have one order."""
        return judged(self.recorder, "long-fork")

    async def _insert(self, actor: Actor, number: int) -> None:
        what = [["w", number, number]]
        if actor.random.random() < 0.5:
            await actor.one_shot("txn", what, writes={self.keys[number]: number}, result=what)
            return

        async def body(seen: Seen) -> list[list[object]]:
            seen.put(self.keys[number], number)
            return [["w", number, number]]

        await actor.transaction("txn", what, body)

    async def _read(self, actor: Actor, group: int) -> None:
        numbers = list(range(group * GROUP_KEYS, (group + 1) * GROUP_KEYS))
        actor.random.shuffle(numbers)

        async def body(seen: Seen) -> list[list[object]]:
            return [["r", number, await seen.get(self.keys[number])] for number in numbers]

        await actor.transaction("txn", [["r", number, None] for number in numbers], body)

    def _keys(self, group: int) -> tuple[bytes, ...]:
        return self.keys[group * GROUP_KEYS : (group + 1) * GROUP_KEYS]
