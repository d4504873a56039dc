"""Models and a plain greedy loop for the tests of serving: no engine, no scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from serving.attention import Batch, PagedAttention, Part
from serving.attention.paged import empty_pool
from serving.model import Llama, LoadedModel, ModelConfig, load

# Several test processes share few cores; one thread each computes the same bits as many.
torch.set_num_threads(1)

TINY = ModelConfig(
    vocabulary=97,
    layers=3,
    width=48,
    query_heads=6,
    kv_heads=2,
    head_dim=8,
    feed_forward=64,
    norm_epsilon=1e-5,
    rope_theta=10_000.0,
    context_tokens=1024,
)


@cache
def tiny() -> Llama:
    """A Llama of random weights that computes in no time."""
    return Llama.random(TINY, seed=1)


@cache
def smollm2() -> LoadedModel:
    """The packaged model."""
    return load()


def pool_for(model: Llama, pages: int) -> Tensor:
    """An empty pool of 16-token pages."""
    config = model.config
    return empty_pool(pages, config.layers, config.kv_heads, config.head_dim)


@torch.inference_mode()
def step(model: Llama, pool: Tensor, parts: Sequence[Part]) -> Tensor:
    """Hidden rows of all tokens of the parts."""
    batch = Batch.of(parts, pool.shape[3])
    attention = PagedAttention(pool, batch, model.rotary)
    return model.forward(batch.token_ids, batch.positions, attention)


@torch.inference_mode()
def greedy(
    model: Llama, pool: Tensor, pages: Sequence[int], prompt: Sequence[int], end: int, count: int
) -> list[int]:
    """At most `count` tokens after a prompt, until the end token."""
    answer: list[int] = []
    todo, at = list(prompt), 0
    while len(answer) < count:
        hidden = step(model, pool, [Part.following(todo, at, pages)])
        token = int(model.logits(hidden[-1:]).argmax())
        if token == end:
            break
        answer.append(token)
        at += len(todo)
        todo = [token]
    return answer
