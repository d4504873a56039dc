"""Attention of one sequence with an order of summation that depends on its own positions alone.

Keys are taken in blocks of `KEY_BLOCK` rows, whose maxima and sums are merged one after the other (the
online softmax of FlashAttention, arXiv 2205.14135). A block in which a query sees nothing changes
nothing, to the bit: its weight is exactly zero. So a query's result is the same whether it comes alone
(decode), with its neighbours (prefill), or with neighbours whose prefix was in a cache.

This holds as long as a matrix product gives a row the same bits however many rows there are. Libraries
keep that except for very few rows, where they take other paths; measured with MKL and oneDNN on
AVX2 and AVX-512, products of rows in multiples of `ROW_TILE` agree in all bits for all counts and
numbers of threads. The tests hold this machine to it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

KEY_BLOCK = 256
QUERY_TILE = 128
ROW_TILE = 4


def padding_to_tile(rows: int) -> int:
    """How many rows are missing to a number whose products have reproducible bits."""
    return -rows % ROW_TILE


def attend(
    query: Tensor, key: Tensor, value: Tensor, query_positions: Tensor, key_positions: Tensor
) -> Tensor:
    """Softmax attention: a query sees the keys whose position is at most its own.

    query      ``[queries, query_heads, head_dim]``, rotated
    key        ``[rows, kv_heads, head_dim]``, rotated; consecutive query heads share a head
    value      ``[rows, kv_heads, head_dim]``
    positions  ``[queries]`` and ``[rows]``

    Gives ``[queries, query_heads, head_dim]``; zeros for a query that sees nothing.
    """
    count, query_heads, head_dim = query.shape
    rows, kv_heads, _ = key.shape
    group = query_heads // kv_heads
    assert group * kv_heads == query_heads
    padded = rows + -rows % KEY_BLOCK
    keys = functional.pad(key.transpose(0, 1), (0, 0, 0, padded - rows))
    values = functional.pad(value.transpose(0, 1), (0, 0, 0, padded - rows))
    # [kv_heads, queries * group, head_dim]: the heads that share keys are rows of one product.
    heads = query.view(count, kv_heads, group, head_dim).transpose(0, 1) * head_dim**-0.5
    visible = functional.pad(
        key_positions[None, :] <= query_positions[:, None], (0, padded - rows), value=False
    )
    outcomes = [
        _attend_tile(heads[:, at : at + QUERY_TILE], keys, values, visible[at : at + QUERY_TILE])
        for at in range(0, count, QUERY_TILE)
    ]
    return outcomes[0] if len(outcomes) == 1 else torch.cat(outcomes)


def _attend_tile(heads: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    """Some queries over all blocks: ``[kv_heads, queries, group, head_dim]`` and a mask."""
    kv_heads, count, group, head_dim = heads.shape
    rows = count * group
    flat = functional.pad(heads.reshape(kv_heads, rows, head_dim), (0, 0, 0, padding_to_tile(rows)))
    hidden = functional.pad(
        (~visible).repeat_interleave(group, dim=0), (0, 0, 0, padding_to_tile(rows)), value=True
    )
    size = (kv_heads, flat.shape[1], 1)
    peak = flat.new_full(size, -torch.inf)
    total = flat.new_zeros(size)
    gathered = torch.zeros_like(flat)
    for block in range(0, keys.shape[1], KEY_BLOCK):
        masked = hidden[:, block : block + KEY_BLOCK]
        if bool(masked.all()):
            continue
        scores = torch.matmul(flat, keys[:, block : block + KEY_BLOCK].transpose(1, 2))
        scores.masked_fill_(masked, -torch.inf)
        raised = torch.maximum(peak, scores.amax(dim=-1, keepdim=True))
        # Until a row has seen anything its peak is -inf, and -inf - -inf would be no number.
        base = raised.masked_fill(raised == -torch.inf, 0.0)
        weights = torch.exp(scores - base)
        decay = torch.exp(peak - base)
        total = total * decay + weights.sum(dim=-1, keepdim=True)
        gathered = gathered * decay + torch.matmul(weights, values[:, block : block + KEY_BLOCK])
        peak = raised
    attended = torch.where(total > 0, gathered / total, 0.0)[:, :rows]
    return (
        attended.view(kv_heads, count, group, head_dim)
        .transpose(0, 1)
        .reshape(count, kv_heads * group, head_dim)
    )
