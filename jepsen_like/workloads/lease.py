"""Leases: at most one holder at any moment of true time, and tokens that only grow.

The resource that the leases protect is simulated beside the store: it takes a use only with a
token that is not smaller than the largest it has seen. And since one process holds all clients of
a run, it can ask all of them at one and the same moment whether they believe to be holders.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import k2store
from jepsen_like.history import Recorder
from jepsen_like.workloads.judging import judged

if TYPE_CHECKING:
    from jepsen_like.sim.actor import Actor

NAMES = 2
SURE_SHARE = 0.99
"""Of the time that a lease is left on its holder's clock: clocks drift apart."""


class Leases:
    """A few leases that all clients want."""

    def __init__(self, recorder: Recorder, rng: random.Random, prefix: bytes = b"") -> None:
        self.recorder = recorder
        self.keys = tuple(prefix + b"lease/%d" % number for number in range(NAMES))
        self._ttl_s = rng.choice((0.1, 0.3, 1.0))
        self._believers: dict[bytes, dict[int, k2store.Lease]] = {key: {} for key in self.keys}
        self._largest = dict.fromkeys(self.keys, 0)
        self._problems: list[str] = []

    async def open(self, actor: Actor) -> None:
        """Leases begin free."""

    async def step(self, actor: Actor) -> None:
        """Take a lease, use what it protects a few times, give it back."""
        key = actor.random.choice(self.keys)
        process, name = actor.process, key.decode()
        self.recorder.invoke(process, "acquire", name)
        lease = actor.database.lease(
            key, self._ttl_s, holder=b"%d" % process, wait=0.2 + actor.random.random()
        )
        believers = self._believers[key]
        acquired = False
        try:
            async with lease:
                acquired = True
                # What is renewed later is left to the moments of use.
                until_ns = actor.journal.true_ns() + int(lease.left_s * SURE_SHARE * 1e9)
                self.recorder.ok(process, {"token": lease.token, "until_ns": until_ns})
                believers[process] = lease
                for _ in range(actor.random.randint(1, 3)):
                    await asyncio.sleep(actor.random.random() * 0.4 * self._ttl_s)
                    self._use(process, key, lease)
                believers.pop(process)
                self.recorder.invoke(process, "release", name)
                self.recorder.ok(process)
        except k2store.K2Error as error:
            believers.pop(process, None)
            if not acquired:
                self.recorder.info(process, type(error).__name__)
            else:
                self.recorder.invoke(process, "release", name)
                self.recorder.info(process, type(error).__name__)
            actor.process = actor.journal.process()

    async def close(self, actor: Actor) -> None:
        """Take every lease once more: nobody may keep it for ever."""
        for key in self.keys:
            process = actor.process
            self.recorder.invoke(process, "acquire", key.decode())
            async with actor.database.lease(key, 1.0, wait=5.0) as lease:
                self.recorder.ok(process, {"token": lease.token})
                self.recorder.invoke(process, "release", key.decode())
                self.recorder.ok(process)

    def check(self) -> list[str]:
        """One holder at a time, and tokens that grow."""
        return [*self._problems, *judged(self.recorder, "lease")]

    def _use(self, process: int, key: bytes, lease: k2store.Lease) -> None:
        """Use the resource, at one moment, if the lease still says that it is held."""
        if not lease.held:
            return
        held = [other for other in self._believers[key].values() if other.held]
        if len(held) > 1:
            tokens = sorted(other.token for other in held)
            self._problems.append(
                f"lease: {len(held)} clients hold {key!r} at one moment, tokens {tokens}"
            )
        self.recorder.invoke(process, "use", {"name": key.decode(), "token": lease.token})
        if lease.token < self._largest[key]:
            self.recorder.fail(process, "stale token")
            self._problems.append(
                f"lease: a holder of {key!r} has token {lease.token}, an earlier one had "
                f"{self._largest[key]}"
            )
            return
        self._largest[key] = lease.token
        self.recorder.ok(process)
