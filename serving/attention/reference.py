"""What the kernels compute, in float64, by definition and without pages: the oracle of every backend."""

from __future__ import annotations

import torch
from torch import Tensor


def attend(
    query: Tensor, key: Tensor, value: Tensor, query_positions: Tensor, key_positions: Tensor
) -> Tensor:
    """As `serving.attention.blockwise.attend`, by the definition of softmax; gives float64."""
    group = query.shape[1] // key.shape[1]
    keys = key.to(torch.float64).repeat_interleave(group, dim=1)
    values = value.to(torch.float64).repeat_interleave(group, dim=1)
    scores = torch.einsum("qhd,khd->hqk", query.to(torch.float64), keys) * query.shape[2] ** -0.5
    hidden = key_positions[None, :] > query_positions[:, None]
    weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1)
    return torch.einsum("hqk,khd->qhd", weights.nan_to_num(0.0), values)


def paged_rows(pool: Tensor, layer: int, table: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Keys and values of a sequence, row by row from its table: ``[context, kv_heads, head_dim]`` each."""
    page_tokens = pool.shape[3]
    rows = [(int(table[at // page_tokens]), at % page_tokens) for at in range(context)]
    empty = pool.new_empty((0, *pool.shape[4:]))
    keys = [pool[page, layer, 0, offset] for page, offset in rows]
    values = [pool[page, layer, 1, offset] for page, offset in rows]
    return torch.stack(keys) if rows else empty, torch.stack(values) if rows else empty


def rotate(vectors: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotation as multiplication of complex numbers: ``[tokens, heads, head_dim]``, float64."""
    half = vectors.shape[-1] // 2
    wide = vectors.to(torch.float64)
    numbers = torch.complex(wide[..., :half], wide[..., half:])
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = positions.to(torch.float64)[:, None, None] * frequency
    turned = numbers * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((turned.real, turned.imag), dim=-1)


def best_products(query: Tensor, keys: Tensor) -> Tensor:
    """The greatest product of a query of each group with any key: ``[query_heads]`` to ``[kv_heads]``.

    query  ``[query_heads, head_dim]``
    keys   ``[rows, kv_heads, head_dim]``, at least one row
    """
    kv_heads = keys.shape[1]
    grouped = query.to(torch.float64).view(kv_heads, -1, query.shape[1])
    products = torch.einsum("hgd,rhd->hgr", grouped, keys.to(torch.float64))
    return products.flatten(1).amax(dim=1)
