"""LegoLink: chunks put one behind the other, a few rows computed anew (EPIC, arXiv 2410.15332, §4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from serving.attention import Batch, PagedAttention, Part
from serving.linking.chunk import Chunk
from serving.model import Llama


class Linked(NamedTuple):
    """A prompt whose pages are complete.

    hidden      ``[width]``: the last row after the last norm, whose logits name the first token
    computed    ``[recomputed, width]``: all rows that were computed for it, the last one among them
    rows        of the prompt
    recomputed  rows that were computed for it, the last segment's among them
    products    multiply-adds of these rows: in the matrices, and of queries with visible keys
    """

    hidden: Tensor
    computed: Tensor
    rows: int
    recomputed: int
    products: int


def recomputed_rows(lengths: Sequence[int], tail: int, k: int) -> list[int]:
    """Positions that LegoLink-k computes anew, ascending.

    lengths  rows of each chunk, in the order of the prompt
    tail     rows of the last segment, which no chunk has; at least one

    The first k rows of every chunk but the first, and all of the tail:
    ``sum(min(k, n) for n in lengths[1:]) + tail`` rows. The first chunk stands where it was compiled,
    so its rows are exact as they are; with k at least as long as every chunk all rows are.
    """
    assert tail > 0
    assert k >= 0
    total = sum(lengths)
    rows: list[int] = []
    start = 0
    for number, length in enumerate(lengths):
        if number:
            rows += range(start, start + min(k, length))
        start += length
    return rows + list(range(total, total + tail))


@torch.inference_mode()
def link(
    model: Llama,
    pool: Tensor,
    pages: Sequence[int],
    chunks: Sequence[Chunk],
    tail: Sequence[int],
    k: int,
) -> Linked:
    """Complete the pages of a prompt made of chunks and a last segment.

    pool   ``[pages, layers, 2, page_tokens, kv_heads, head_dim]``; changed in place
    pages  enough for the whole prompt; nobody else may write to them or take them for exact blocks
    """
    place_all(model, pool, pages, chunks)
    rows = recomputed_rows([len(chunk) for chunk in chunks], len(tail), k)
    return compute_rows(model, pool, pages, prompt_of(chunks, tail), rows)


def prompt_of(chunks: Sequence[Chunk], tail: Sequence[int]) -> list[int]:
    """All tokens of the prompt."""
    return [token for chunk in chunks for token in chunk.token_ids] + list(tail)


def place_all(model: Llama, pool: Tensor, pages: Sequence[int], chunks: Sequence[Chunk]) -> None:
    """Write every chunk to its place."""
    start = 0
    for chunk in chunks:
        chunk.place(pool, pages, start, model.rotary)
        start += len(chunk)


def compute_rows(
    model: Llama, pool: Tensor, pages: Sequence[int], prompt: Sequence[int], rows: Sequence[int]
) -> Linked:
    """Compute these rows of a prompt over all its rows, each layer over what the one before left."""
    part = Part([prompt[row] for row in rows], rows, pages, len(prompt))
    batch = Batch.of([part], pool.shape[3])
    hidden = model.forward(
        batch.token_ids, batch.positions, PagedAttention(pool, batch, model.rotary)
    )
    return Linked(hidden[-1], hidden, len(prompt), len(rows), prefill_products(model, rows))


def prefill_products(model: Llama, rows: Sequence[int], layers: int | None = None) -> int:
    """Multiply-adds of computing these rows: counted from the shapes, not measured.

    A row meets every matrix once, and the keys at and before its own position twice: scores and
    weighted values.
    """
    config = model.config
    heads = config.query_heads + 2 * config.kv_heads
    matrices = config.width * (
        heads * config.head_dim + config.query_heads * config.head_dim + 3 * config.feed_forward
    )
    visible = sum(row + 1 for row in rows)
    attention = 2 * visible * config.query_heads * config.head_dim
    return (config.layers if layers is None else layers) * (len(rows) * matrices + attention)
