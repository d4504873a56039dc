"""Routing: each part by example, and every policy on the case it is for."""

from __future__ import annotations

import msgspec
import pytest

from kv_pool import keys
from kv_pool.keys import Worker
from kv_pool.learner import Learner
from kv_pool.records import ENCODE, Id, Run, State
from kv_pool.routing.cost import CostModel
from kv_pool.routing.facts import Facts, LearnerFacts, Load, Request
from kv_pool.routing.parts import FILTERS, PICKERS, SCORERS, Pull, Setting
from kv_pool.routing.policies import POLICIES
from kv_pool.routing.router import Router
from truetime import Interval, timestamp

A, B, C = (Worker("fra", name) for name in "abc")
COST = CostModel(
    base_s=0.0,
    linear_s=0.001,
    attention_s=0.0,
    block_tokens=100,
    block_bytes=1_000,
    pull_bytes_per_s=1e6,
    pull_latency_s=0.0,
)
NOW = Interval(timestamp.EPOCH_NS + 10**9, timestamp.EPOCH_NS + 10**9 + 1_000)
PROMPT = Request(b"n" * 16, bytes(16 * 10), 1_000, "conversation")


class Known:
    """Facts that somebody wrote down."""

    def __init__(self, depths=None, loads=None, age_s: float = 0.0) -> None:
        self._facts = Facts((A, B, C), depths or {}, loads or {}, age_s)

    def facts(self, request: Request, now: Interval) -> Facts:
        """As written."""
        return self._facts


def route(policy: str, known: Known, **setting):
    """Where one policy puts the prompt."""
    router = Router(policy, known, Setting(cost=COST, **setting))
    decision = router.route(PROMPT, NOW)
    assert decision is not None
    return decision


def test_what_work_costs() -> None:
    """Cached blocks need no computing, except that the last token always does; pairs of positions
    are counted from the first new token on."""
    assert COST.prefill_s(1_000, 0) == pytest.approx(1.0)
    assert COST.prefill_s(1_000, 4) == pytest.approx(0.6)
    assert COST.prefill_s(1_000, 10) == pytest.approx(0.001)
    assert COST.pull_s(5) == pytest.approx(0.005)
    model = CostModel(base_s=0.5, linear_s=0.0, attention_s=1.0, block_tokens=1)
    assert model.prefill_s(4, 2) == pytest.approx(0.5 + (16 - 4) / 2)


def test_in_turn() -> None:
    """Round robin goes through all workers."""
    router = Router("round-robin", Known())
    chosen = [router.route(PROMPT, NOW) for _ in range(5)]
    assert [one and one.worker for one in chosen] == [A, B, C, A, B]


def test_least_load() -> None:
    """Who has least to do gets it; among equals the first in key order."""
    busy = {A: Load(queued_s=3), B: Load(queued_s=1), C: Load(queued_s=1)}
    assert route("least-load", Known({A: 9}, busy)).worker == B


def test_sessions_stay_and_few_move() -> None:
    """A conversation goes to one worker; when one of three leaves, only its conversations move."""
    placed = {}
    for number in range(200):
        request = Request(b"n" * 16, b"", 10, f"session {number}")
        router = Router("session", Known())
        first, again = router.route(request, NOW), router.route(request, NOW)
        assert first is not None
        assert again is not None
        assert first.worker == again.worker
        placed[number] = first.worker
    assert {A, B, C} == set(placed.values())
    without = Known()
    without._facts = Facts((A, C), {}, {})
    for number, worker in placed.items():
        request = Request(b"n" * 16, b"", 10, f"session {number}")
        moved = Router("session", without).route(request, NOW)
        assert moved is not None
        assert moved.worker == worker or worker == B


def test_longest_prefix_and_its_limit() -> None:
    """The longest prefix wins whatever waits there, unless the policy looks at balance."""
    known = Known({A: 3, B: 5}, {B: Load(queued_s=2.5)})
    assert route("longest-prefix", known).worker == B
    assert route("longest-prefix", Known({B: 1}, {B: Load(queued_s=1)})).worker == A
    assert route("prefix-unless-unbalanced", known).worker == A
    assert route("prefix-unless-unbalanced", known, unbalanced_s=3.0).worker == B


def test_cost_weighs_queues_against_blocks() -> None:
    """A block saves 0.1 s here: three more of them are worth a queue of 0.2 s and not one of 0.4."""
    for queued_s, worker in ((0.2, B), (0.4, A)):
        decision = route("cost", Known({A: 3, B: 6}, {B: Load(queued_s=queued_s)}))
        assert decision.worker == worker
        assert decision.pull is None
    assert decision.totals[A] == pytest.approx(-0.7)


def test_pulls_where_that_is_quicker() -> None:
    """Blocks are fetched from who has most when travelling is quicker than computing."""
    known = Known({A: 3, B: 6, C: 1}, {B: Load(queued_s=0.4)})
    decision = route("cost-pull", known)
    assert (decision.worker, decision.pull) == (A, Pull(B, 3, 3))
    slow = CostModel(
        base_s=0,
        linear_s=0.001,
        attention_s=0,
        block_tokens=100,
        block_bytes=1_000,
        pull_bytes_per_s=5e3,
        pull_latency_s=0,
    )
    router = Router("cost-pull", known, Setting(cost=slow))
    computed = router.route(PROMPT, NOW)
    assert computed is not None
    assert computed.pull is None


def test_other_regions_are_sources_only() -> None:
    """Workers of another region are asked for blocks, over a slower way, and get no prompt; the
    quicker of two sources is taken."""
    far = Worker("sin", "z")
    known = Known({A: 3, B: 5, far: 8}, {B: Load(queued_s=9), A: Load(), C: Load(queued_s=9)})
    known._facts = msgspec.structs.replace(known._facts, sources=(far,))
    near_cost = msgspec.structs.replace(COST, far_bytes_per_s=1e6, far_latency_s=0.25)
    decision = Router("cost-pull", known, Setting(cost=near_cost)).route(PROMPT, NOW)
    assert decision is not None
    assert (decision.worker, decision.pull) == (A, Pull(far, 3, 5))
    wide_cost = msgspec.structs.replace(COST, far_bytes_per_s=1e6, far_latency_s=0.4)
    decision = Router("cost-pull", known, Setting(cost=wide_cost)).route(PROMPT, NOW)
    assert decision is not None
    assert (decision.worker, decision.pull) == (A, Pull(B, 3, 2))
    assert far not in decision.totals
    assert COST.pull_s(5, far=True) == pytest.approx(0.1 + 5_000 / 1.25e9)


def test_old_knowledge_counts_less() -> None:
    """What is believed of a worker that evicts much is discounted by the age of the belief."""
    loads = {B: Load(queued_s=0.2, churn_per_s=0.5)}
    fresh, old = Known({A: 3, B: 6}, loads, 0.0), Known({A: 3, B: 6}, loads, 2.0)
    assert route("cost-pull-stale", fresh).pull == Pull(B, 3, 3)
    assert route("cost-pull-stale", old).worker == A
    assert route("cost-pull-stale", old).pull is None
    assert route("cost-pull", old).pull == Pull(B, 3, 3)
    facts = old.facts(PROMPT, NOW)
    assert facts.phantom(A) == 0.0
    assert facts.phantom(B) == pytest.approx(1 - 2.718281828**-1.0)


def test_facts_come_from_the_learner() -> None:
    """Depths are those of the learner, over all tiers; who is fenced, draining or suspect is not
    asked; the age is that of the feed."""
    names = b"".join(bytes([one]) * 16 for one in range(1, 4))
    rows = {}
    for worker, state, suspect in (
        (A, State.LIVE, False),
        (B, State.DRAINING, False),
        (C, State.LIVE, True),
    ):
        rows[keys.identity(worker)] = ENCODE(Id(1, b"", state, suspect=suspect))
        for tier, live in ((0, 1), (1, 3)):
            run = Run(1, 0, bytes(16), 0, names, live, 1, 1)
            rows[keys.run(worker, b"n" * 16, tier, names[:16])] = ENCODE(run)
    learner = Learner()
    learner.begin("all")
    learner.load("all", rows.items())
    learner.finish("all", timestamp.pack(timestamp.EPOCH_NS + 10**9 - 2_048, 1))
    producer = LearnerFacts(learner, {A: Load(requests=2)})
    facts = producer.facts(Request(b"n" * 16, names, 48), NOW)
    assert facts.workers == (A,)
    assert facts.depth(A) == 3
    assert facts.age_s == pytest.approx(3.048e-6, abs=3e-7)
    assert facts.load(A).requests == 2
    assert Router("cost", LearnerFacts(Learner(), {})).route(PROMPT, NOW) is None
    elsewhere = LearnerFacts(learner, {}, "sin").facts(Request(b"n" * 16, names, 48), NOW)
    assert (elsewhere.workers, elsewhere.sources) == ((), (A,))


def test_policies_are_made_of_parts_that_exist() -> None:
    """Each policy has its name, says what it does, and names parts of the tables; others are refused."""
    for name, policy in POLICIES.items():
        assert policy.name == name
        assert policy.what
        assert policy.picker in PICKERS
        assert set(policy.filters) <= set(FILTERS)
        assert {scorer for scorer, _ in policy.scorers} <= set(SCORERS)
        assert route(name, Known()).worker in {A, B, C}
    with pytest.raises(ValueError, match="round-robin"):
        Router("best", Known())
