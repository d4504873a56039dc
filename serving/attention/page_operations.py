"""What is done to pages beside attending to them, in plain torch: store, pack, unpack, bounds and scores.

`serving.attention.triton_kernels` has the same functions for a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor


def store(pool: Tensor, layer: int, slots: Tensor, key: Tensor, value: Tensor) -> None:
    """Put rows into a layer of the pool, in place.

    pool        ``[pages, layers, 2, page_tokens, kv_heads, head_dim]``
    slots       ``[tokens]``: page * page_tokens + offset; each at most once
    key, value  ``[tokens, kv_heads, head_dim]``, in the form in which they are kept
    """
    page_tokens = pool.shape[3]
    pages, offsets = slots // page_tokens, slots % page_tokens
    rows = pool[:, layer]
    rows[pages, 0, offsets] = key.to(pool.dtype)
    rows[pages, 1, offsets] = value.to(pool.dtype)


def pack(pool: Tensor, pages: Tensor) -> Tensor:
    """Copy pages ``[n]`` to one contiguous piece ``[n, ...]``, ready to be sent."""
    return pool.index_select(0, pages)


def unpack(pool: Tensor, pages: Tensor, packed: Tensor) -> None:
    """The inverse of `pack`, in place; no page may stand twice."""
    pool.index_copy_(0, pages, packed)


def key_bounds(pages: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Per page, head and channel the least and the greatest key (Quest, arXiv 2406.10774).

    pages  ``[pages, page_tokens, kv_heads, head_dim]``: keys as they are kept
    rows   ``[pages]``: how many rows of each page count; a page without any has bounds of -inf and inf
           the wrong way round, which no key lies between

    Gives two tensors ``[pages, kv_heads, head_dim]``.
    """
    counts = torch.arange(pages.shape[1], device=pages.device)[None, :] < rows[:, None]
    mask = ~counts[:, :, None, None]
    low = pages.masked_fill(mask, torch.inf).amin(dim=1)
    high = pages.masked_fill(mask, -torch.inf).amax(dim=1)
    return low, high


def page_scores(query: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """An upper bound of every product of a query with a key of a page, by KV head.

    query      ``[sequences, query_heads, head_dim]``, rotated; not scaled
    low, high  ``[sequences, pages, kv_heads, head_dim]``

    Gives ``[sequences, kv_heads, pages]``: the greatest over the query heads that share a KV head.
    """
    sequences, query_heads, head_dim = query.shape
    kv_heads = low.shape[2]
    grouped = query.view(sequences, 1, kv_heads, query_heads // kv_heads, head_dim)
    low, high = low[:, :, :, None], high[:, :, :, None]
    bound = torch.maximum(grouped * low, grouped * high).sum(dim=-1)
    return bound.amax(dim=-1).transpose(1, 2)
