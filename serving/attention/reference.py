"""What attention is, in float64 and without pages: the oracle of every kernel."""

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
