"""Causal reverse: blind writes, one after the other, and scans that must not see them reversed.

A write that began after another was acknowledged has the larger stamp, whoever gave the stamps; so
no scan has the later one without the earlier.
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

ROWS_MAX = 10
"""Rows of a group before the next one is begun."""


class Reverse:
    """Groups of rows that are written once."""

    def __init__(self, recorder: Recorder, rng: random.Random, prefix: bytes = b"") -> None:
        self.recorder = recorder
        self.keys = tuple(prefix + b"reverse/%03d/0" % number for number in range(3))
        self._prefix = prefix + b"reverse/"
        self._values = itertools.count(1)

    async def open(self, actor: Actor) -> None:
        """Two rows are written, so that there is something to see."""
        await self._write(actor)
        await self._write(actor)

    async def step(self, actor: Actor) -> None:
        """Write a row, or look at the group that is being written."""
        if actor.random.random() < 0.5:
            await self._write(actor)
        else:
            await self._read(actor, (next(self._values) - 1) // ROWS_MAX)

    async def close(self, actor: Actor) -> None:
        """Look at every group."""
        for group in range(next(self._values) // ROWS_MAX + 1):
            await self._read(actor, group)

    def check(self) -> list[str]:
        """Nobody saw a later write without an earlier one."""
        return judged(self.recorder, "causal-reverse")

    async def _write(self, actor: Actor) -> None:
        value = next(self._values)
        group, key = value // ROWS_MAX, self._prefix + b"%03d/%d" % divmod(value, ROWS_MAX)
        if actor.random.random() < 0.5:
            await actor.one_shot("write", value, key=group, writes={key: value}, result=value)
            return

        async def body(seen: Seen) -> int:
            seen.put(key, value)
            return value

        await actor.transaction("write", value, body, key=group)

    async def _read(self, actor: Actor, group: int) -> None:
        where = k2store.prefix(self._prefix + b"%03d/" % group)

        async def body(seen: Seen) -> list[object]:
            return [value for _, value in await seen.scan(where)]

        await actor.transaction("read", None, body, key=group)
