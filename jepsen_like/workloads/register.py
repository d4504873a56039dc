"""Registers of unique values, by single reads and writes: linearizable one by one."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from jepsen_like.history import Recorder
from jepsen_like.workloads.judging import judged

if TYPE_CHECKING:
    from jepsen_like.sim.actor import Actor, Seen

REGISTERS = 4


class Register:
    """A few keys, each a register."""

    def __init__(self, recorder: Recorder, rng: random.Random, prefix: bytes = b"") -> None:
        self.recorder = recorder
        self.keys = tuple(prefix + b"register/%d" % number for number in range(REGISTERS))
        self._values = itertools.count(1)

    async def open(self, actor: Actor) -> None:
        """Registers begin without a value."""

    async def step(self, actor: Actor) -> None:
        """Read in one of three ways, or write in one of two."""
        number = actor.random.randrange(REGISTERS)
        key, choice = self.keys[number], actor.random.random()
        if choice < 0.2:
            await actor.get("read", key, name=number)
        elif choice < 0.35:
            await actor.look("read", key, name=number)
        elif choice < 0.45:

            async def reading(seen: Seen) -> object:
                return await seen.get(key)

            await actor.transaction("read", None, reading, key=number)
        elif choice < 0.8:
            value = next(self._values)
            await actor.one_shot("write", value, key=number, writes={key: value}, result=value)
        else:
            value = next(self._values)

            async def writing(seen: Seen) -> int:
                seen.put(key, value)
                return value

            await actor.transaction("write", value, writing, key=number)

    async def close(self, actor: Actor) -> None:
        """Read every register."""
        for number, key in enumerate(self.keys):
            await actor.get("read", key, name=number)

    def check(self) -> list[str]:
        """Linearizability, by zones."""
        return judged(self.recorder, "register")
