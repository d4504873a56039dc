"""What the tiny model says under a retention policy, without an engine."""

from __future__ import annotations

from functools import cache

import torch

from serving.attention import Batch, PagedAttention, Part
from serving.pages.arena import Arena
from serving.sparse.attention import SparseAttention
from serving.sparse.cache import SparseCache
from serving.sparse.choice import policy_named
from serving.sparse.policies import Policy
from tests.unit.serving_engines import GEOMETRY, PAGE_TOKENS, lively
from tests.unit.serving_models import pool_for

BUDGET = 48


def policy_of(name: str, budget: int = BUDGET) -> Policy:
    """A policy with a budget, dense without."""
    return policy_named(name, 0 if name == "dense" else budget, PAGE_TOKENS)


@cache
def plain(name: str, prompt: tuple[int, ...], count: int, budget: int = BUDGET) -> list[int]:
    """What the model says under a policy in a plain loop, without an engine."""
    model = lively()
    pages = -(-len(prompt) // PAGE_TOKENS)
    pool = pool_for(model, pages)
    table = range(pages)
    with torch.inference_mode():
        batch = Batch.of([Part.following(prompt, 0, table)], PAGE_TOKENS)
        attention = PagedAttention(pool, batch, model.rotary)
        hidden = model.forward(batch.token_ids, batch.positions, attention)
        answer = [int(model.logits(hidden[-1:]).argmax())]
        arena = Arena(GEOMETRY, GEOMETRY.layers * (-(-count // PAGE_TOKENS) + 1))
        cache = SparseCache(
            policy_of(name, budget),
            arena,
            pool,
            torch.tensor([list(table)]),
            torch.tensor([len(prompt)]),
            aligned=True,
        )
        while len(answer) < count:
            sparse = SparseAttention(cache, model.rotary)
            hidden = model.forward(torch.tensor(answer[-1:]), cache.positions, sparse)
            cache.advance()
            answer.append(int(model.logits(hidden).argmax()))
    return answer
