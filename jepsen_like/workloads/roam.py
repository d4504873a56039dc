"""Roaming: views of the past over the keys of all workloads, wherever they are at home.

A view shows all or nothing of each transaction, at its stamp; the journal's replay says so. In a
cluster it is answered by replicas, each of which knows for itself how far time is closed.
"""

from __future__ import annotations

from collections.abc import Sequence

from jepsen_like.history import Recorder
from jepsen_like.sim.actor import Actor

KEYS_MAX = 12


class Roam:
    """Reads what others have written."""

    def __init__(self, recorder: Recorder, keys: Sequence[bytes]) -> None:
        self.recorder = recorder
        self.keys = tuple(keys)

    async def open(self, actor: Actor) -> None:
        """Nothing has to be there."""

    async def step(self, actor: Actor) -> None:
        """Read some keys of a view, in any order and as they come."""
        staleness_s = actor.random.choice((0.3, 1.0, 10.0))
        keys = actor.random.sample(self.keys, min(len(self.keys), KEYS_MAX))
        async with actor.past(staleness_s) as past:
            for key in keys:
                await past.get(key)

    async def close(self, actor: Actor) -> None:
        """The final scan of the run reads everything."""

    def check(self) -> list[str]:
        """Nothing of its own: the replay judges views."""
        return []
