"""Compare and set: counters that one-shots raise under a condition; failed ones are answers, too."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from jepsen_like.history import Recorder
from jepsen_like.workloads.judging import judged

if TYPE_CHECKING:
    from jepsen_like.sim.actor import Actor

COUNTERS = 3


class Compare:
    """A few counters, each beginning at 0."""

    def __init__(self, recorder: Recorder, rng: random.Random, prefix: bytes = b"") -> None:
        self.recorder = recorder
        self.keys = tuple(prefix + b"compare/%d" % number for number in range(COUNTERS))

    async def open(self, actor: Actor) -> None:
        """Write the zeros."""
        for number, key in enumerate(self.keys):
            await actor.one_shot("write", 0, key=number, writes={key: 0}, result=0)

    async def step(self, actor: Actor) -> None:
        """Look, then raise what was seen by one if it is still there."""
        from jepsen_like.sim.actor import payload
        from jepsen_like.sim.journal import ANY_VERSION, Reading

        number = actor.random.randrange(COUNTERS)
        key = self.keys[number]
        seen = await actor.look("read", key, name=number)
        if seen is None:
            return
        value = payload(seen.value)
        assert isinstance(value, int)
        if actor.random.random() < 0.5:
            seen = Reading(key, ANY_VERSION, seen.value)
        await actor.one_shot(
            "cas",
            [value, value + 1],
            key=number,
            reads=(key,) if actor.random.random() < 0.5 else (),
            writes={key: value + 1},
            expected=seen,
            result=True,
        )

    async def close(self, actor: Actor) -> None:
        """Look at every counter."""
        for number, key in enumerate(self.keys):
            await actor.look("read", key, name=number)

    def check(self) -> list[str]:
        """Linearizability."""
        return judged(self.recorder, "cas-register")
