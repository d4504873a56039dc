"""Workloads: what clients do to a store under test, and how it is judged.

Each is an object that makes one operation at a time through an `Actor` and in the end checks the
history it has recorded, with the checker made for it. What it needs of a store is the public API.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from jepsen_like.workloads.append import Append
from jepsen_like.workloads.bank import Bank
from jepsen_like.workloads.compare import Compare
from jepsen_like.workloads.dawdle import Dawdle
from jepsen_like.workloads.fork import Fork
from jepsen_like.workloads.guard import Guard
from jepsen_like.workloads.lease import Leases
from jepsen_like.workloads.phantom import Phantom
from jepsen_like.workloads.register import Register
from jepsen_like.workloads.reverse import Reverse
from jepsen_like.workloads.skew import Skew
from jepsen_like.workloads.stream import Stream

if TYPE_CHECKING:
    from jepsen_like.history import Recorder
    from jepsen_like.sim.actor import Actor

__all__ = ["WORKLOADS", "Workload"]


class Workload(Protocol):
    """One kind of load."""

    recorder: Recorder
    """The history of this run."""

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Some keys it uses: good places to split the key space."""

    async def open(self, actor: Actor) -> None:
        """Write what must be there before the first step."""

    async def step(self, actor: Actor) -> None:
        """Do one operation."""

    async def close(self, actor: Actor) -> None:
        """Read everything once more, when all others have finished."""

    def check(self) -> list[str]:
        """What is wrong with the history, in sentences."""


class Maker(Protocol):
    """Makes a workload; its keys begin with the prefix."""

    def __call__(
        self, recorder: Recorder, rng: random.Random, prefix: bytes = b"", /
    ) -> Workload: ...


WORKLOADS: Final[Mapping[str, Maker]] = MappingProxyType(
    {
        "append": Append,
        "bank": Bank,
        "compare": Compare,
        "dawdle": Dawdle,
        "fork": Fork,
        "guard": Guard,
        "lease": Leases,
        "phantom": Phantom,
        "register": Register,
        "reverse": Reverse,
        "skew": Skew,
        "watch": Stream,
    }
)
"""Name to maker."""
