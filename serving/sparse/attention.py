"""The attention object of one decode step under a retention policy."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from serving.attention.page_operations import page_scores
from serving.attention.rotary import Rotary, turn
from serving.sparse.cache import SparseCache
from serving.sparse.policies import Seen


class Watcher(Protocol):
    """Is shown what a step attended to."""

    def __call__(self, layer: int, first: Tensor, weights: Tensor) -> None:
        """See.

        first    ``[sequences, pages]``: position of each page's first row
        weights  ``[sequences, query_heads, pages, page_tokens]``
        """
        ...


class SparseAttention:
    """One token of every sequence of a cache. The caller advances the cache after the step.

    One softmax over all pages, with those that are not selected left out: what a step costs grows with what
    is resident, as it does with a paged kernel over the same table.
    """

    def __init__(self, cache: SparseCache, rotary: Rotary, watcher: Watcher | None = None) -> None:
        self._cache = cache
        self._angles = rotary.angles(cache.positions)
        self._watcher = watcher

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `serving.attention.protocol.Attention`."""
        cache = self._cache
        query = turn(query, *self._angles)
        cache.append(layer, turn(key, *self._angles), value)
        pages, filled = cache.rows(layer)
        there = filled.any(dim=2)
        scale = query.shape[2] ** -0.5
        low, high = cache.bounds(layer)
        some = there[:, :, None, None]
        bounds = page_scores(query, low.where(some, 0.0), high.where(some, 0.0)) * scale
        bounds = bounds.masked_fill(~there[:, None], -torch.inf)
        # What is being written is always looked at, whatever its bound.
        ranked = bounds.clone()
        current = cache.prompt_pages + cache.books[layer].current
        ranked[torch.arange(cache.sequences), :, current] = torch.inf
        selected = cache.policy.select(ranked, there, cache.prompt_pages, cache.page_tokens)
        weights = _weights(query, pages[:, :, 0], selected[..., None] & filled[:, None], scale)
        attended = _gather(weights, pages[:, :, 1])
        if self._watcher is not None:
            prompt = torch.arange(cache.prompt_pages) * cache.page_tokens
            first = torch.cat((prompt.expand(cache.sequences, -1), cache.books[layer].first), dim=1)
            self._watcher(layer, first, weights)
        by_page = weights.amax(dim=(1, 3)), weights.sum(dim=(1, 3))
        cache.settle(layer, Seen(cache.step, cache.prompt_pages, there, bounds, *by_page))
        return attended


def _weights(query: Tensor, keys: Tensor, visible: Tensor, scale: float) -> Tensor:
    """``[sequences, query_heads, pages, page_tokens]``, summing to 1.

    keys     ``[sequences, pages, page_tokens, kv_heads, head_dim]``
    visible  ``[sequences, kv_heads, pages, page_tokens]``
    """
    sequences, query_heads, head_dim = query.shape
    pages, page_tokens, kv_heads = keys.shape[1:4]
    grouped = query.view(sequences, kv_heads, -1, head_dim)
    flat = keys.flatten(1, 2).permute(0, 2, 3, 1)
    scores = torch.matmul(grouped, flat) * scale
    hidden = ~visible.flatten(2)[:, :, None]
    weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1)
    return weights.view(sequences, query_heads, pages, page_tokens)


def _gather(weights: Tensor, values: Tensor) -> Tensor:
    """``[sequences, query_heads, head_dim]`` from weights and ``[sequences, pages, page_tokens, ...]``."""
    sequences, query_heads = weights.shape[:2]
    kv_heads = values.shape[3]
    grouped = weights.flatten(2).view(sequences, kv_heads, query_heads // kv_heads, -1)
    gathered = torch.matmul(grouped, values.flatten(1, 2).transpose(1, 2))
    return gathered.reshape(sequences, query_heads, -1)
