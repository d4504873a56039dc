"""Policies on the probe: does it still reach the end of its chains, and how many pages does it hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from serving.attention import Batch, PagedAttention, Part
from serving.attention.paged import empty_pool
from serving.model.llama import Llama
from serving.model.probe.task import COUNTERS, PROMPT_TOKENS, draw
from serving.pages.arena import Arena
from serving.pages.geometry import Geometry
from serving.sparse.attention import SparseAttention
from serving.sparse.cache import SparseCache
from serving.sparse.milestones import MilestoneCount, Milestones
from serving.sparse.policies import Policy

PAGE_TOKENS: Final = 4
"""Smaller than in serving: a chain's blocks have 50 tokens, and a budget should have several pages."""


@dataclass(frozen=True)
class Outcome:
    """What came of some chains, free-running: every token that the model gives is the next one it gets.

    chains           how many
    exact            share of them without a single wrong token
    first_error      mean step of the first wrong token; the chain's length where there is none
    resident_pages   decode pages held after each step: the most of any layer and sequence
    tokens           ``[chains, steps]``: what the model said
    """

    policy: str
    budget_tokens: int | None
    chains: int
    exact: float
    first_error: float
    resident_pages: list[int]
    tokens: Tensor
    milestones: Milestones | None


@contextmanager
def _one_thread() -> Iterator[None]:
    """The tensors here are tiny: more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
@torch.inference_mode()
def run_chains(
    model: Llama,
    policy: Policy,
    *,
    chains: int,
    seed: int,
    blocks: int = 8,
    count_milestones: bool = False,
    tell: Callable[[int, int], None] = lambda _step, _steps: None,
) -> Outcome:
    """Let the probe run through chains drawn from a seed, under one policy.

    The arena is checked after every step, and is empty in the end.
    """
    drawn = draw(chains, blocks, COUNTERS, torch.Generator().manual_seed(seed))
    steps = drawn.length - PROMPT_TOKENS
    config = model.config
    geometry = Geometry(
        layers=config.layers,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        page_tokens=PAGE_TOKENS,
    )
    kept = steps if policy.budget_tokens is None else policy.budget_tokens
    arena = Arena(geometry, chains * config.layers * (-(-kept // PAGE_TOKENS) + 1))
    pool, tables, token = _prefill(model, drawn.tokens[:, :PROMPT_TOKENS])
    cache = SparseCache(policy, arena, pool, tables, torch.full((chains,), PROMPT_TOKENS))
    watcher = None
    if count_milestones:
        watcher = MilestoneCount(
            config.layers, chains, config.query_heads, PROMPT_TOKENS, drawn.length
        )
    said, resident = [token], []
    for step in range(1, steps):
        attention = SparseAttention(cache, model.rotary, watcher)
        hidden = model.forward(token, cache.positions, attention)
        cache.advance()
        token = model.logits(hidden).argmax(dim=1)
        said.append(token)
        held = cache.resident_pages()
        resident.append(int(held.max()))
        assert int(held.sum()) == arena.pages - arena.free_pages
        tell(step, steps)
    arena.check_integrity()
    cache.close()
    assert arena.free_pages == arena.pages
    tokens = torch.stack(said, dim=1)
    wrong = tokens != drawn.tokens[:, PROMPT_TOKENS:]
    first = torch.where(wrong.any(dim=1), wrong.to(torch.int64).argmax(dim=1), steps)
    return Outcome(
        policy=policy.name,
        budget_tokens=getattr(policy, "attended_tokens", policy.budget_tokens),
        chains=chains,
        exact=(first == steps).double().mean().item(),
        first_error=first.double().mean().item(),
        resident_pages=resident,
        tokens=tokens,
        milestones=watcher.outcome() if watcher else None,
    )


def _prefill(model: Llama, prompts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute prompts into a pool; gives it, the tables, and the first token of each answer."""
    count, length = prompts.shape
    pages = -(-length // PAGE_TOKENS)
    config = model.config
    pool = empty_pool(
        count * pages, config.layers, config.kv_heads, config.head_dim, page_tokens=PAGE_TOKENS
    )
    tables = torch.arange(count * pages).view(count, pages)
    parts = [
        Part.following(prompt.tolist(), 0, table.tolist())
        for prompt, table in zip(prompts, tables, strict=True)
    ]
    batch = Batch.of(parts, PAGE_TOKENS)
    attention = PagedAttention(pool, batch, model.rotary)
    hidden = model.forward(batch.token_ids, batch.positions, attention)
    return pool, tables, model.logits(hidden[batch.last_rows]).argmax(dim=1)
