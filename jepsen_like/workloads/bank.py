"""Bank: transfers between accounts, and reads of all accounts that must add up."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from jepsen_like.history import Recorder
from jepsen_like.workloads.judging import judged

if TYPE_CHECKING:
    from jepsen_like.sim.actor import Actor, Seen

ACCOUNTS = 6
BALANCE = 20


class Bank:
    """Six accounts."""

    def __init__(self, recorder: Recorder, rng: random.Random, prefix: bytes = b"") -> None:
        self.recorder = recorder
        self.keys = tuple(prefix + b"bank/%d" % number for number in range(ACCOUNTS))

    async def open(self, actor: Actor) -> None:
        """Give every account its balance, in one transaction."""

        async def body(seen: Seen) -> None:
            for key in self.keys:
                seen.put(key, BALANCE)

        await actor.transaction("transfer", None, body)

    async def step(self, actor: Actor) -> None:
        """Transfer, or read all: in a transaction, or in a view of the past."""
        choice = actor.random.random()
        if choice < 0.65:
            await self._transfer(actor)
        elif choice < 0.9:
            await self._read(actor)
        else:
            async with actor.past() as past:
                for key in self.keys:
                    await past.get(key)

    async def close(self, actor: Actor) -> None:
        """Read all."""
        await self._read(actor)

    def check(self) -> list[str]:
        """Nothing is made and nothing is lost."""
        return judged(self.recorder, "bank", initial=ACCOUNTS * BALANCE)

    async def _transfer(self, actor: Actor) -> None:
        source, target = actor.random.sample(self.keys, 2)
        amount = actor.random.randint(1, 5)

        async def body(seen: Seen) -> None:
            left, there = await seen.get(source), await seen.get(target)
            assert isinstance(left, int)
            assert isinstance(there, int)
            if left >= amount:
                seen.put(source, left - amount)
                seen.put(target, there + amount)

        what = {"from": source.decode(), "to": target.decode(), "amount": amount}
        await actor.transaction("transfer", what, body, result=lambda _: what)

    async def _read(self, actor: Actor) -> None:
        async def body(seen: Seen) -> dict[str, object]:
            return {key.decode(): await seen.get(key) for key in self.keys}

        await actor.transaction("read", None, body)
