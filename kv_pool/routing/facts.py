"""What is known of the workers when a request is to be placed, and who finds it out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from kv_pool.blocks import NAME_BYTES, Names
from kv_pool.keys import Worker
from kv_pool.learner import Learner
from kv_pool.records import State
from truetime import Interval


class Request(Struct, frozen=True):
    """What is to be placed: the blocks of its prompt, its tokens, whose conversation it is."""

    namespace: bytes
    names: Names
    tokens: int
    session: str = ""

    @property
    def blocks(self) -> int:
        """Whole blocks of the prompt."""
        return len(self.names) // NAME_BYTES


class Load(Struct, frozen=True):
    """What a worker has to do: requests, and seconds of work that wait in its queue.

    churn_per_s  share of its blocks that it evicts in a second
    """

    requests: int = 0
    queued_s: float = 0.0
    churn_per_s: float = 0.0


class Facts(Struct, frozen=True):
    """Of every worker that may be asked, in key order.

    depths   blocks of the prompt's beginning that it has, in any tier
    loads    what it has to do
    age_s    how old the depths may be
    sources  others, whose blocks may be fetched and who are not asked to do anything
    """

    workers: tuple[Worker, ...]
    depths: Mapping[Worker, int]
    loads: Mapping[Worker, Load]
    age_s: float = 0.0
    sources: tuple[Worker, ...] = ()

    def depth(self, worker: Worker) -> int:
        """Blocks of the prompt that a worker has."""
        return self.depths.get(worker, 0)

    def load(self, worker: Worker) -> Load:
        """What a worker has to do; nothing, where nobody has said."""
        return self.loads.get(worker, _IDLE)

    def phantom(self, worker: Worker) -> float:
        """The probability that a block is gone that the worker is believed to have."""
        return 1.0 - math.exp(-self.load(worker).churn_per_s * self.age_s)


_IDLE = Load()


class Producer(Protocol):
    """Finds out facts for a request, at a moment inside `now`."""

    def facts(self, request: Request, now: Interval) -> Facts:
        """What is known."""
        ...


class LearnerFacts:
    """Facts from a learner and from loads that somebody keeps up to date in `loads`.

    Only workers that take requests are among them: registered, live, not suspect.

    region  only its workers are asked; those of other regions are sources of blocks
    """

    def __init__(
        self, learner: Learner, loads: Mapping[Worker, Load], region: str | None = None
    ) -> None:
        self._learner = learner
        self._loads = loads
        self._region = region

    def facts(self, request: Request, now: Interval) -> Facts:
        """What the learner knows now."""
        learner = self._learner
        workers: list[Worker] = []
        sources: list[Worker] = []
        for worker in learner.known_workers():
            identity = learner.identity(worker)
            if identity is not None and identity.state == State.LIVE and not identity.suspect:
                own = self._region is None or worker.region == self._region
                (workers if own else sources).append(worker)
        depths: dict[Worker, int] = {}
        for holder, blocks in learner.match(request.namespace, request.names).depths.items():
            depths[holder.worker] = max(blocks, depths.get(holder.worker, 0))
        age_s = learner.staleness_ns(now) / 1e9
        return Facts(tuple(workers), depths, self._loads, age_s, tuple(sources))
