"""Load for watches: commits of one to three keys, deletions among them.

What the watchers saw is judged by `jepsen_like.sim.watching`, against the commits of all
workloads; here is only what is worth watching.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from jepsen_like.history import Recorder

if TYPE_CHECKING:
    from jepsen_like.sim.actor import Actor, Seen

KEYS = 8


class Stream:
    """A few keys that are written and deleted together."""

    def __init__(self, recorder: Recorder, rng: random.Random, prefix: bytes = b"") -> None:
        self.recorder = recorder
        self.keys = tuple(prefix + b"stream/%d" % number for number in range(KEYS))
        self._values = itertools.count(1)

    async def open(self, actor: Actor) -> None:
        """Nothing has to be there."""

    async def step(self, actor: Actor) -> None:
        """Write and delete one to three keys."""
        keys = actor.random.sample(self.keys, actor.random.randint(1, 3))
        deleted = [actor.random.random() < 0.2 for _ in keys]

        async def body(seen: Seen) -> None:
            for key, gone in zip(keys, deleted, strict=True):
                if gone:
                    seen.delete(key)
                else:
                    seen.put(key, next(self._values))

        await actor.transaction("write", [key.decode() for key in keys], body)

    async def close(self, actor: Actor) -> None:
        """Nothing is left to read: the final scan of the run does it."""

    def check(self) -> list[str]:
        """Nothing of its own."""
        return []
