"""Filters, scorers and pickers: small functions under names.

A *filter* says which of some workers may have a request; if it would leave none, all stay. A *scorer* gives a
worker a number, the higher the better; scorers are weighted and added. A *picker* chooses from
the totals. To add one is to write a function and put it into its table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from kv_pool.keys import Worker
from kv_pool.routing.cost import CostModel
from kv_pool.routing.facts import Facts, Request


class Pull(Struct, frozen=True):
    """Blocks to fetch from another worker before the prefill: from its `start` on, so many."""

    source: Worker
    start: int
    blocks: int


class Setting(Struct, frozen=True):
    """What parts are told beside the request and the facts.

    cost            the model of what work costs
    pulls           whether blocks may be fetched from other workers
    counts_phantoms whether the age of the facts counts
    phantom_s       what it costs to find out that a block is gone
    turn            how many requests were placed before this one
    unbalanced_s    more work than the least loaded worker's by so much is too much
    prefix_min      a shorter match, in blocks, is none: what all prompts begin with would else
                    draw all of them to the first worker that has it
    """

    cost: CostModel = CostModel()
    pulls: bool = False
    counts_phantoms: bool = False
    phantom_s: float = 0.05
    turn: int = 0
    unbalanced_s: float = 2.0
    prefix_min: int = 2


class Case(Struct, frozen=True):
    """One request to be placed, with everything that parts may look at.

    sources  from whom blocks would be fetched: in each region who has most of the prompt
    """

    request: Request
    facts: Facts
    setting: Setting
    sources: tuple[Worker, ...] = ()


Filter = Callable[[Case, Sequence[Worker]], list[Worker]]
Scorer = Callable[[Case, Worker], float]
Picker = Callable[[Case, Mapping[Worker, float]], Worker]


def not_overloaded(case: Case, workers: Sequence[Worker]) -> list[Worker]:
    """Workers whose queue is not much longer than the shortest one."""
    least = min([case.facts.load(worker).queued_s for worker in workers])
    return [
        worker
        for worker in workers
        if case.facts.load(worker).queued_s <= least + case.setting.unbalanced_s
    ]


def with_longest_prefix(case: Case, workers: Sequence[Worker]) -> list[Worker]:
    """Workers that have as much of the prompt as any of them; all, where that is too little."""
    longest = max([case.facts.depth(worker) for worker in workers])
    if longest < case.setting.prefix_min:
        return list(workers)
    return [worker for worker in workers if case.facts.depth(worker) == longest]


def by_turn(case: Case, worker: Worker) -> float:
    """Everybody in turn."""
    place = case.facts.workers.index(worker)
    return -float((place - case.setting.turn) % len(case.facts.workers))


def by_idleness(case: Case, worker: Worker) -> float:
    """Who has least to do."""
    return -case.facts.load(worker).queued_s


def by_session(case: Case, worker: Worker) -> float:
    """The same worker for the same conversation; when workers come or go few conversations move.

    Each pair of session and worker has a number, and the highest wins (rendezvous hashing, Thaler
    and Ravishankar, 1998).
    """
    digest = hashlib.sha256(f"{case.request.session}\x00{worker}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def by_cost(case: Case, worker: Worker) -> float:
    """Where the prefill would be done first: what waits there, and the rest of the prompt."""
    return -(case.facts.load(worker).queued_s + plan(case, worker)[0])


def plan(case: Case, worker: Worker) -> tuple[float, Pull | None]:
    """How long a prefill takes on a worker, and what to fetch for it if that makes it shorter."""
    depth = case.facts.depth(worker)
    best_s = _expected_s(case, worker, depth)
    best: Pull | None = None
    for source in case.sources if case.setting.pulls else ():
        blocks = case.facts.depth(source) - depth
        if blocks <= 0:
            continue
        travel_s = case.setting.cost.pull_s(blocks, far=source.region != worker.region)
        pulled_s = travel_s + _expected_s(case, source, depth + blocks)
        if pulled_s < best_s:
            best_s, best = pulled_s, Pull(source, depth, blocks)
    return best_s, best


def sources_of(facts: Facts) -> tuple[Worker, ...]:
    """In each region who has most of the prompt, and of those evicts least."""
    best: dict[str, tuple[int, float, Worker]] = {}
    for worker in (*facts.workers, *facts.sources):
        depth = facts.depth(worker)
        if depth:
            rank = (-depth, facts.load(worker).churn_per_s, worker)
            best[worker.region] = min(rank, best.get(worker.region, rank))
    return tuple([worker for _, _, worker in best.values()])


def _expected_s(case: Case, holder: Worker, blocks: int) -> float:
    """The time of a prefill with so many blocks of a holder; they may be gone."""
    with_blocks_s = case.setting.cost.prefill_s(case.request.tokens, blocks)
    if not blocks or not case.setting.counts_phantoms:
        return with_blocks_s
    gone = case.facts.phantom(holder)
    without_s = case.setting.cost.prefill_s(case.request.tokens, 0) + case.setting.phantom_s
    return (1.0 - gone) * with_blocks_s + gone * without_s


def highest(case: Case, totals: Mapping[Worker, float]) -> Worker:
    """The highest total; among equals who has least to do, then the first in key order."""
    return min(
        totals, key=lambda worker: (-totals[worker], case.facts.load(worker).queued_s, worker)
    )


FILTERS: Final[Mapping[str, Filter]] = {
    "not-overloaded": not_overloaded,
    "longest-prefix": with_longest_prefix,
}
SCORERS: Final[Mapping[str, Scorer]] = {
    "turn": by_turn,
    "idleness": by_idleness,
    "session": by_session,
    "cost": by_cost,
}
PICKERS: Final[Mapping[str, Picker]] = {"highest": highest}
