"""Retention policies: what stays, what goes, and that nothing is lost or leaked meanwhile."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import k2store
from kv_pool import keys
from kv_pool.blocks import ROOT_NAME
from kv_pool.keys import Worker
from kv_pool.learner import Learner
from kv_pool.namespace import Kind, Namespace
from kv_pool.records import ENCODE, Id, Phase, Run, State
from serving.attention import Batch, PagedAttention, Part
from serving.attention.paged import empty_pool
from serving.model import Llama
from serving.model.probe import CONFIG
from serving.model.probe.task import PROMPT_TOKENS, draw
from serving.pages.arena import Arena
from serving.pages.geometry import Geometry
from serving.sparse.attention import SparseAttention
from serving.sparse.cache import SparseCache
from serving.sparse.experiment import PAGE_TOKENS, run_chains
from serving.sparse.milestones import MilestoneCount
from serving.sparse.policies import Dense, HeavyHitters, Policy, Quest, RaaS, Window
from serving.sparse.publication import residency_namespace
from tests.unit.serving_models import step

UNTRAINED = Llama.random(CONFIG, seed=2)
DROPPING: list[Policy] = [
    RaaS(16),
    RaaS(16, alpha=None, exact=False),
    RaaS(16, alpha=0.02, exact=False, prompt_tokens=8),
    HeavyHitters(16),
    Window(16),
]
KEEPING: list[Policy] = [Dense(), Quest(16)]


def by_name(policy: Policy) -> str:
    """What a test is called."""
    return policy.name.replace(" ", "-")


@pytest.mark.parametrize("policy", DROPPING, ids=by_name)
def test_a_budget_is_kept_however_long_it_goes_on(policy: Policy) -> None:
    """Pages that are held stay within the budget, at every step, and a longer decode holds no more."""
    short = run_chains(UNTRAINED, policy, chains=2, seed=4, blocks=1)
    long = run_chains(UNTRAINED, policy, chains=2, seed=4, blocks=4)
    assert max(short.resident_pages) == max(long.resident_pages) == 16 // PAGE_TOKENS
    assert short.resident_pages == long.resident_pages[: len(short.resident_pages)]


@pytest.mark.parametrize("policy", KEEPING, ids=by_name)
def test_what_keeps_all_grows_with_the_length(policy: Policy) -> None:
    """Dense and Quest hold every page of what was decoded."""
    outcome = run_chains(UNTRAINED, policy, chains=2, seed=4, blocks=2)
    steps = range(1, len(outcome.resident_pages) + 1)
    assert outcome.resident_pages == [-(-step // PAGE_TOKENS) for step in steps]


@pytest.mark.parametrize(
    "policy",
    [
        RaaS(None),
        RaaS(None, alpha=None, exact=False),
        Window(None),
        HeavyHitters(None),
        Quest(10_000),
    ],
    ids=by_name,
)
def test_without_a_limit_every_policy_is_dense(policy: Policy) -> None:
    """To the bit: with an unlimited budget the logits are those of dense attention."""
    wanted, found = SparseRun(Dense()), SparseRun(policy)
    for token in (3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9):
        assert torch.equal(found.push(token), wanted.push(token))
    assert (policy.retention == "") == (policy.name != "quest")


def test_dense_is_what_the_paged_pool_gives() -> None:
    """Decoding into the arena gives what decoding into a pool of all layers gives."""
    run = SparseRun(Dense())
    pool = run.pool_of_one(pages=12)
    tokens = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9]
    for at, token in enumerate(tokens, PROMPT_TOKENS):
        hidden = step(UNTRAINED, pool, [Part.following([token], at, range(12))])
        torch.testing.assert_close(run.push(token)[:1], hidden, rtol=1e-4, atol=1e-5)


class SparseRun:
    """Two prompts that decode the same tokens under a policy."""

    def __init__(self, policy: Policy, arena_pages: int = 400) -> None:
        self.model = UNTRAINED
        prompts = draw(2, 1, 1, torch.Generator().manual_seed(1)).tokens[:, :PROMPT_TOKENS]
        self._prompts = prompts.tolist()
        pages = -(-PROMPT_TOKENS // PAGE_TOKENS)
        self.pool = self._empty(2 * pages)
        tables = torch.arange(2 * pages).view(2, pages)
        step(
            self.model,
            self.pool,
            [
                Part.following(prompt, 0, table)
                for prompt, table in zip(self._prompts, tables.tolist(), strict=True)
            ],
        )
        geometry = Geometry(
            layers=CONFIG.layers,
            kv_heads=CONFIG.kv_heads,
            head_dim=CONFIG.head_dim,
            page_tokens=PAGE_TOKENS,
        )
        self.arena = Arena(geometry, arena_pages)
        lengths = torch.full((2,), PROMPT_TOKENS)
        self.cache = SparseCache(policy, self.arena, self.pool, tables, lengths)

    @torch.inference_mode()
    def push(self, token: int, watcher=None) -> torch.Tensor:
        """One token for both; gives their hidden rows."""
        attention = SparseAttention(self.cache, self.model.rotary, watcher)
        ids = torch.tensor([token, token])
        hidden = self.model.forward(ids, self.cache.positions, attention)
        self.cache.advance()
        self.arena.check_integrity()
        return hidden

    def pool_of_one(self, pages: int) -> torch.Tensor:
        """A pool that holds the first prompt, with room behind it."""
        pool = self._empty(pages)
        step(self.model, pool, [Part.following(self._prompts[0], 0, range(pages))])
        return pool

    def _empty(self, pages: int) -> torch.Tensor:
        config = self.model.config
        return empty_pool(
            pages, config.layers, config.kv_heads, config.head_dim, page_tokens=PAGE_TOKENS
        )


# --------------------------------------------------------------------------- the naive twin


class NaiveRaaS:
    """RaaS over lists, for one sequence and one layer, told the weights of every step."""

    def __init__(self, budget_pages: int, alpha: float) -> None:
        self._budget, self._alpha = budget_pages, alpha
        self.pages: list[list[int]] = []
        self._stamps: list[int] = []

    def append(self, position: int, now: int) -> None:
        """A token is written."""
        if not self.pages or len(self.pages[-1]) == PAGE_TOKENS:
            self.pages.append([])
            self._stamps.append(now)
        self.pages[-1].append(position)
        self._stamps[-1] = now

    def see(self, weights: dict[int, float], now: int) -> None:
        """What the greatest weight of each position was; then the oldest goes."""
        for at, page in enumerate(self.pages):
            if max(weights[position] for position in page) > self._alpha:
                self._stamps[at] = now
        while len(self.pages) > self._budget:
            oldest = min(range(len(self.pages) - 1), key=lambda at: (self._stamps[at], at))
            del self.pages[oldest], self._stamps[oldest]


@settings(max_examples=8)
@given(
    tokens=st.lists(st.integers(0, CONFIG.vocabulary - 1), min_size=20, max_size=36),
    budget_pages=st.integers(1, 6),
    alpha=st.sampled_from([0.005, 0.02, 0.03, 0.05]),
)
def test_raas_keeps_what_its_naive_twin_keeps(
    tokens: list[int], budget_pages: int, alpha: float
) -> None:
    """After every step, in every layer of both sequences, the same positions are there."""
    run = SparseRun(RaaS(budget_pages * PAGE_TOKENS, alpha=alpha))
    twins = [[NaiveRaaS(budget_pages, alpha) for _ in range(2)] for _ in range(CONFIG.layers)]

    def watch(layer: int, first: torch.Tensor, weights: torch.Tensor) -> None:
        heaviest, now = weights.amax(dim=1), run.cache.step
        prompt_pages = run.cache.prompt_pages
        for sequence, twin in enumerate(twins[layer]):
            twin.append(PROMPT_TOKENS + now, now)
            held = {
                int(first[sequence, column]) + offset: float(heaviest[sequence, column, offset])
                for column in range(prompt_pages, first.shape[1])
                for offset in range(
                    int(run.cache.books[layer].rows[sequence, column - prompt_pages])
                )
            }
            assert sorted(held) == sorted(each for page in twin.pages for each in page)
            twin.see(held, now)

    for token in tokens:
        run.push(token, watch)


# -------------------------------------------------------------------------------- the parts


def test_quest_attends_to_the_best_pages_only() -> None:
    """As many decode pages as the budget has get weight, for each KV head; the current one is of them."""
    run = SparseRun(Quest(8))
    counts = []

    def watch(layer: int, first: torch.Tensor, weights: torch.Tensor) -> None:
        attended = weights[:, :, run.cache.prompt_pages :].sum(dim=3) > 0
        counts.append(attended.sum(dim=2))
        current = run.cache.books[layer].current
        assert attended[torch.arange(2), :, current].all()

    for token in range(20):
        run.push(token, watch)
    assert all((count <= 2).all() for count in counts)
    assert (counts[-1] == 2).all()


def test_quest_selects_by_bound_for_each_head() -> None:
    """The greatest bounds of decode pages win, head by head; the prompt is in, an empty column is not."""
    bounds = torch.tensor([[[9.0, 1.0, 5.0, 3.0, -torch.inf], [0.0, 4.0, 2.0, 8.0, -torch.inf]]])
    there = torch.tensor([[True, True, True, True, False]])
    chosen = Quest(8).select(bounds, there, 1, PAGE_TOKENS)
    assert chosen.tolist() == [[[True, False, True, True, False], [True, True, False, True, False]]]
    everything = Quest(100).select(bounds, there, 1, PAGE_TOKENS)
    assert everything.tolist() == [[[True, True, True, True, False]] * 2]


def test_the_hybrid_attends_to_part_of_the_prompt() -> None:
    """RaaS with Quest on the prompt gives weight to so many prompt pages, and keeps all of them."""
    run = SparseRun(RaaS(8, prompt_tokens=8))
    pool = run.pool.clone()
    attended = []

    def watch(layer: int, first: torch.Tensor, weights: torch.Tensor) -> None:
        attended.append((weights[:, :, : run.cache.prompt_pages].sum(dim=3) > 0).sum(dim=2))

    for token in range(12):
        run.push(token, watch)
    assert all((count == 2).all() for count in attended)
    assert torch.equal(run.pool, pool)


def test_a_closed_cache_leaves_nothing_behind() -> None:
    """All pages are free again; a full arena refuses loudly."""
    run = SparseRun(Dense(), arena_pages=8)
    run.push(1)
    assert run.arena.free_pages == 0
    for _ in range(3):
        run.push(1)
    with pytest.raises(k2store.Overloaded):
        run.push(1)
    run.cache.close()
    assert run.arena.free_pages == 8
    with pytest.raises(ValueError, match="budget"):
        SparseRun(Window(PAGE_TOKENS - 1))


def test_milestones_are_counted_by_their_definition() -> None:
    """A token used four times from afar and then left alone counts; one that is used to the end does not."""
    length, prompt = 200, 10
    count = MilestoneCount(1, 1, 2, prompt, length)
    for at in range(prompt, length):
        weights = torch.zeros(1, 2, length, 1)
        if 40 <= at < 44:
            weights[0, 0, 20] = 0.5
        if at >= 40 and at % 10 == 0:
            weights[0, 1, 21] = 0.5
        if at in {20, 180}:
            weights[0, 0, 3] = 0.2
        weights[0, 0, max(0, at - 5)] = 0.9
        count(0, torch.arange(length)[None], weights)
    found = count.outcome()
    assert (found.heads, found.heads_with) == (2, 0)
    assert found.tokens == pytest.approx(1 / (length - prompt - 64))
    assert (found.returns, found.prompt_returns) == (1, 1.0)


# ---------------------------------------------------------------------------- the directory

EXACT = Namespace(
    tenant="", model="probe", revision="r1", dtype="float32", layout="page-major", block_tokens=4
)


def test_sparse_blocks_are_never_offered_as_exact() -> None:
    """A learner gives the prompt to who asks for exact blocks, and what follows only to who asks for it."""
    policy = RaaS(48)
    sparse = residency_namespace(EXACT, policy)
    assert (sparse.kind, sparse.retention) == (Kind.SPARSE, policy.retention)
    assert policy.retention == "raas alpha=0.1 max budget=48"
    # Without a budget, and with all attended to, blocks are what the model computes; else they are not, dropped or not.
    assert residency_namespace(EXACT, RaaS(None)) is residency_namespace(EXACT, Dense()) is EXACT
    for inexact in (Quest(48), RaaS(None, prompt_tokens=8)):
        assert residency_namespace(EXACT, inexact).kind is Kind.SPARSE
    assert residency_namespace(EXACT, RaaS(32)).digest() != sparse.digest()
    with pytest.raises(ValueError, match="sparse"):
        residency_namespace(sparse, policy)
    worker = Worker("fra", "a")
    one, two, three = (bytes([number]) * 16 for number in (1, 2, 3))

    def run(namespace: Namespace, *blocks: bytes) -> tuple[bytes, bytes]:
        row = Run(1, 0, ROOT_NAME, 0, b"".join(blocks), len(blocks), Phase.READY, 1)
        return keys.run(worker, namespace.digest(), 0, blocks[0]), ENCODE(row)

    learner = Learner()
    learner.begin("all")
    learner.load(
        "all",
        [
            (keys.namespace(EXACT.digest()), EXACT.encode()),
            (keys.namespace(sparse.digest()), sparse.encode()),
            (keys.identity(worker), ENCODE(Id(1, b"", State.LIVE))),
            run(EXACT, one, two),
            run(sparse, three),
        ],
    )
    learner.finish("all", 10)

    exact = learner.match(EXACT.digest(), one + two + three)
    assert list(exact.depths.values()) == [2]
    across = learner.match_across([(EXACT.digest(), one + two), (sparse.digest(), three)])
    assert list(across.depths.values()) == [3]
    other = residency_namespace(EXACT, RaaS(32))
    with pytest.raises(ValueError, match="goes on"):
        learner.match_across([(EXACT.digest(), one + two), (other.digest(), three)])


def test_a_batch_of_prompts_is_prefilled_as_each_alone() -> None:
    """The pool that policies read is the one that exact serving wrote, to the bit."""
    run = SparseRun(Dense())
    alone = run.pool_of_one(pages=6)
    assert torch.equal(run.pool[:6], alone)
    batch = Batch.of([Part.following([1], 0, [0])], PAGE_TOKENS)
    assert PagedAttention(alone, batch, UNTRAINED.rotary) is not None
