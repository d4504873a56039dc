"""The attention object of exact serving: a paged pool, on any device, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from serving.attention.batch import Batch
from serving.attention.blockwise import attend
from serving.attention.page_operations import store
from serving.attention.rotary import Rotary, turn


class PagedAttention:
    """Stores rotated keys and values of a step into the pool, then attends through the tables.

    pool   ``[pages, layers, 2, page_tokens, kv_heads, head_dim]``; changed in place
    batch  the step; its tables may share pages (a common prefix), its slots may not
    """

    def __init__(self, pool: Tensor, batch: Batch, rotary: Rotary) -> None:
        self._pool = pool
        page_tokens = pool.shape[3]
        self._angles = rotary.angles(batch.positions)
        self._slots = batch.slots
        self._positions = batch.positions
        starts = batch.query_starts.tolist()
        contexts = batch.context_lengths.tolist()
        self._spans = list(zip(starts[:-1], starts[1:], contexts, strict=True))
        self._tables = [
            table[: -(-context // page_tokens)]
            for table, context in zip(batch.block_tables, contexts, strict=True)
        ]
        self._rows = torch.arange(max(contexts), device=pool.device)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `serving.attention.protocol.Attention`."""
        query = turn(query, *self._angles)
        store(self._pool, layer, self._slots, turn(key, *self._angles), value)
        stored = self._pool[:, layer]
        outcomes = []
        for (start, stop, context), table in zip(self._spans, self._tables, strict=True):
            # [pages, 2, page_tokens, kv_heads, head_dim] -> [2, rows, kv_heads, head_dim]
            rows = stored[table].transpose(0, 1).flatten(1, 2)[:, :context].to(query.dtype)
            outcomes.append(
                attend(
                    query[start:stop],
                    rows[0],
                    rows[1],
                    self._positions[start:stop],
                    self._rows[:context],
                )
            )
        return outcomes[0] if len(outcomes) == 1 else torch.cat(outcomes)


def empty_pool(
    pages: int,
    layers: int,
    kv_heads: int,
    head_dim: int,
    *,
    page_tokens: int = 16,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """A pool of pages that hold zeros.

    Zeros and not what memory held: rows behind the end of a context weigh nothing, but zero times a
    stray NaN would still be NaN.
    """
    size = (pages, layers, 2, page_tokens, kv_heads, head_dim)
    return torch.zeros(size, dtype=dtype, device=device)
