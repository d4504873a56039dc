"""Retention policies in an engine: budgets hold, answers depend on nobody else, and what is kept is named so."""

from __future__ import annotations

import pytest
import torch

import k2store
from kv_pool.blocks import chain, root
from kv_pool.namespace import Kind
from serving.engine.assembly import retention_of
from serving.engine.engine import Engine
from serving.engine.request import Request
from serving.engine.settings import EngineSettings
from serving.linking import Linker
from serving.pages.mem_pool import MemPool
from serving.sparse.choice import POLICIES, policy_named
from serving.sparse.policies import Policy, RaaS
from serving.sparse.publication import residency_namespace
from serving.sparse.retention import Retention
from tests.unit.serving_chunks import CHUNKS, DOCUMENTS, EXACT, told
from tests.unit.serving_engines import (
    GEOMETRY,
    PAGE_TOKENS,
    answer_of,
    engine_of,
    lively,
    pool_of,
    prompt_of,
    run,
    tokens_of,
)
from tests.unit.serving_retained import BUDGET, plain, policy_of

LAYERS = GEOMETRY.layers
SETTINGS = EngineSettings(sequences_max=4, step_tokens_max=64)


def under(
    policy: Policy,
    pool: MemPool | None = None,
    settings: EngineSettings = SETTINGS,
    *,
    link: int | None = None,
) -> Engine:
    """An engine that decodes under a policy."""
    pool = pool or pool_of(64)
    retention = retention_of(lively(), pool, EXACT, policy, settings)
    linker = None if link is None else Linker(lively(), pool, CHUNKS, link)
    return engine_of(pool, settings, retention=retention, linker=linker)


def answered(engine: Engine, prompt: tuple[int, ...], count: int) -> list[int]:
    """The answer to one prompt, alone."""
    number = engine.submit(Request(tokens=prompt, max_tokens=count))
    return tokens_of(run(engine)[number])


@pytest.mark.parametrize("name", POLICIES)
def test_an_engine_decodes_as_the_policy_alone(name: str) -> None:
    """Four prompts at a time, two of them with one beginning, one that comes later: each answer is that of a
    plain loop under the policy, and all pages of the arena come back."""
    engine = under(policy_of(name))
    prompts = [prompt_of(40), prompt_of(70), prompt_of(33, 2), prompt_of(5, 3), prompt_of(64, 4)]
    numbers = [engine.submit(Request(tokens=prompt, max_tokens=70)) for prompt in prompts]
    found = run(engine)
    for number, prompt in zip(numbers, prompts, strict=True):
        assert tokens_of(found[number]) == plain(name, prompt, 70)
    assert engine.retained_pages == 0
    engine.check_integrity()


@pytest.mark.parametrize("name", ["raas", "h2o", "window"])
def test_a_budget_is_flat_in_the_length(name: str) -> None:
    """Four times as long an answer holds no more pages in any layer, at any time, than the budget has."""
    for count in (100, 400):
        engine = under(policy_of(name))
        engine.submit(Request(tokens=prompt_of(40), max_tokens=count))
        most = 0
        while engine.has_work:
            engine.step()
            most = max(most, engine.retained_pages)
        assert engine.retained.pages_max == BUDGET // PAGE_TOKENS
        assert most == LAYERS * BUDGET // PAGE_TOKENS
        # The pool has the prompt's pages, and those that were kept at the end.
        kept = engine.retained.kept_blocks
        assert kept <= BUDGET // PAGE_TOKENS
        assert engine.pool.census().cached == 40 // PAGE_TOKENS + kept


@pytest.mark.parametrize("name", ["dense", "quest"])
def test_what_keeps_all_grows(name: str) -> None:
    """Dense and Quest hold a page in each layer for each block of the answer, one that goes on from the prompt's
    last page among them."""
    engine = under(policy_of(name))
    answered(engine, prompt_of(40), 200)
    assert engine.retained.pages_max == -(-(40 % PAGE_TOKENS + 199) // PAGE_TOKENS)


@pytest.mark.parametrize("name", ["raas", "h2o", "window", "dense"])
def test_an_unlimited_budget_is_dense(name: str) -> None:
    """Without a budget the greedy answer is that of an engine without a policy; nothing is called sparse."""
    policy = policy_named(name, 0, PAGE_TOKENS)
    engine = under(policy)
    for seed in range(2):
        prompt = prompt_of(30 + 7 * seed, seed)
        assert answered(engine, prompt, 80) == answer_of(prompt, 80)
    assert engine.retained.kept_blocks == engine.retained.gone_blocks == 0
    assert residency_namespace(EXACT, policy) is EXACT


def test_a_policy_changes_what_is_said() -> None:
    """Else the tests here prove nothing."""
    prompt = prompt_of(40)
    exact = answer_of(prompt, 70)
    said = [plain(name, prompt, 70, 16) for name in ("raas", "h2o", "window", "quest")]
    assert all(one != exact for one in said)


@pytest.mark.parametrize("name", ["raas", "quest"])
def test_who_gives_way_goes_through_what_it_has_said(name: str) -> None:
    """Pages of the pool, or of the arena, run out: a sequence begins again behind its prompt, and its answer is
    the same."""
    policy = policy_of(name)
    for pool, pages in ((pool_of(12), 3 * LAYERS * 16), (pool_of(64), LAYERS * 14)):
        retention = Retention(policy, pool, lively().rotary, pages)
        engine = engine_of(pool, SETTINGS, retention=retention)
        prompts = [prompt_of(60, seed) for seed in range(4)]
        numbers = [engine.submit(Request(tokens=prompt, max_tokens=100)) for prompt in prompts]
        found = run(engine)
        for number, prompt in zip(numbers, prompts, strict=True):
            assert tokens_of(found[number]) == plain(name, prompt, 100)
    assert name == "raas" or engine.preemptions


def test_an_answer_that_began_elsewhere_goes_on_under_the_policy() -> None:
    """What another worker has said is gone through, row by row."""
    wanted = plain("raas", prompt_of(40), 70)
    engine = under(policy_of("raas"))
    number = engine.submit(Request(tokens=prompt_of(40), max_tokens=70), wanted[:60])
    assert tokens_of(run(engine)[number]) == wanted[60:]


def test_what_was_kept_is_in_the_sparse_namespace_alone() -> None:
    """At the end of an answer its blocks that are whole are found under their sparse names, and hold what the
    arena held; under exact names there is the prompt and nothing else."""
    policy = policy_of("quest")
    engine = under(policy)
    prompt = prompt_of(40)
    said = answered(engine, prompt, 60)
    whole = (*prompt, *said)
    assert len(engine.pool.match(whole)) == 2
    sparse = residency_namespace(EXACT, policy)
    assert sparse.kind is Kind.SPARSE
    names = chain(root(sparse.digest()), whole, PAGE_TOKENS).names
    # The last token has no rows; the third block has the prompt's last rows and the first of the answer.
    blocks = (len(whole) - 1) // PAGE_TOKENS
    assert engine.retained.kept_blocks == blocks - 2
    found = engine.pool.match(whole[2 * PAGE_TOKENS :], names[2 * 16 :])
    assert len(found) == blocks - 2
    # In the first layer nothing has been attended to yet: its rows are those of the exact computation.
    exact = engine_of(pool_of(64))
    number = exact.submit(Request(tokens=whole, max_tokens=1))
    run(exact)
    assert number
    right = exact.pool.match(whole)[2:blocks]
    for mine, other in zip(found, right, strict=True):
        rows = engine.pool.stores[0].tensor[mine.number, 0]
        torch.testing.assert_close(rows, exact.pool.stores[0].tensor[other.number, 0])
    # Asked once more, the prompt is found and the answer is not.
    number = engine.submit(Request(tokens=whole, max_tokens=4))
    assert run(engine)[number][-1].usage.cached == 32


def test_what_a_layer_has_let_go_of_is_not_kept() -> None:
    """Under a window the oldest blocks are gone, and the newest stand behind the gap."""
    engine = under(policy_of("window"))
    prompt = prompt_of(32)
    said = answered(engine, prompt, 129)
    whole = (*prompt, *said)
    # 128 rows were decoded, in eight pages; three are left.
    assert (engine.retained.kept_blocks, engine.retained.gone_blocks) == (3, 5)
    sparse = residency_namespace(EXACT, policy_of("window")).digest()
    names = chain(root(sparse), whole, PAGE_TOKENS).names
    for block in range(2, 10):
        tokens, name = whole[block * PAGE_TOKENS :], names[block * 16 :]
        assert len(engine.pool.match(tokens, name)) == (10 - block if block >= 7 else 0)


def test_a_linked_prompt_decodes_under_a_policy_and_nothing_of_it_is_kept() -> None:
    """Both at once: the answer is the policy's where all rows are computed anew; no block gets a name but chunks."""
    engine = under(policy_of("raas"), link=40)
    tokens, chunks = told(*DOCUMENTS)
    number = engine.submit(Request(tokens=tokens, chunks=chunks, max_tokens=70))
    assert tokens_of(run(engine)[number]) == plain("raas", tokens, 70)
    assert engine.retained.kept_blocks == 0
    assert engine.pool.match(tokens) == ()


@pytest.mark.parametrize(
    ("name", "budget", "field"),
    [
        ("dense", 16, "budget"),
        ("quest", 0, "budget"),
        ("raas", 15, "budget"),
        ("none", 0, "retain"),
    ],
)
def test_policies_that_could_keep_nothing_are_refused(name: str, budget: int, field: str) -> None:
    """And unknown ones; the error names what is wrong."""
    with pytest.raises(k2store.Rejected) as refused:
        policy_named(name, budget, PAGE_TOKENS)
    assert refused.value.field == field


def test_raas_in_workers_needs_no_tuning() -> None:
    """It goes by the better half, and its namespace says so."""
    policy = policy_named("raas", 64, PAGE_TOKENS)
    assert policy == RaaS(64, alpha=None)
    assert policy.retention == "raas half max budget=64"
