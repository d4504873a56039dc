"""The router: a policy at work."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from kv_pool.keys import Worker
from kv_pool.routing.facts import Producer, Request
from kv_pool.routing.parts import FILTERS, PICKERS, SCORERS, Case, Pull, Setting, plan, sources_of
from kv_pool.routing.policies import POLICIES, Policy
from truetime import Interval


class Decision(Struct, frozen=True):
    """Where a request goes.

    depth   blocks of the prompt that the worker is believed to have
    pull    blocks to fetch before; None for none
    totals  the score of each worker that was considered, to explain the choice
    age_s   how old what is believed may be
    """

    worker: Worker
    depth: int
    pull: Pull | None
    totals: dict[Worker, float]
    age_s: float


class Router:
    """Places requests by one policy. It counts them, and remembers nothing else."""

    def __init__(
        self, policy: Policy | str, producer: Producer, setting: Setting | None = None
    ) -> None:
        if isinstance(policy, str):
            if policy not in POLICIES:
                raise ValueError(f"no policy {policy!r}; there are {', '.join(POLICIES)}")
            policy = POLICIES[policy]
        self.policy = policy
        self._filters = [FILTERS[name] for name in policy.filters]
        self._scorers = [(SCORERS[name], weight) for name, weight in policy.scorers]
        self._pick = PICKERS[policy.picker]
        self._producer = producer
        self._setting = msgspec.structs.replace(
            setting or Setting(), pulls=policy.pulls, counts_phantoms=policy.counts_phantoms
        )
        self._turn = 0

    def route(self, request: Request, now: Interval) -> Decision | None:
        """Where a request should go; None when nobody takes any."""
        facts = self._producer.facts(request, now)
        if not facts.workers:
            return None
        setting = msgspec.structs.replace(self._setting, turn=self._turn)
        self._turn += 1
        case = Case(request, facts, setting, sources_of(facts))
        workers = list(facts.workers)
        for keep in self._filters:
            workers = keep(case, workers) or workers
        totals = {
            worker: sum([weight * score(case, worker) for score, weight in self._scorers])
            for worker in workers
        }
        worker = self._pick(case, totals)
        pull = plan(case, worker)[1]
        return Decision(worker, facts.depth(worker), pull, totals, facts.age_s)
