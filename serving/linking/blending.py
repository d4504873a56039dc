"""CacheBlend-r, the baseline that chooses its rows by looking: arXiv 2405.16444, §4.

The first layers are computed for every row. Where the keys and values so found deviate most from those
of the chunks, rows are computed anew through all layers; the others stay as they were compiled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

from serving.attention import Batch, PagedAttention, Part
from serving.linking.chunk import Chunk
from serving.linking.lego import Linked, compute_rows, place_all, prefill_products, prompt_of
from serving.model import Llama

LOOK_LAYERS = 2
"""How many layers every row goes through: keys and values of the second one know of other chunks."""


class Blended(NamedTuple):
    """A linked prompt and the rows of its chunks that were chosen, ascending."""

    linked: Linked
    chosen: tuple[int, ...]


@torch.inference_mode()
def blend(
    model: Llama,
    pool: Tensor,
    pages: Sequence[int],
    chunks: Sequence[Chunk],
    tail: Sequence[int],
    ratio: float,
) -> Blended:
    """Complete a prompt's pages as `serving.linking.lego.link` does, with rows chosen by deviation.

    ratio  of the rows of the chunks that are computed anew, 0 to 1, rounded up
    """
    place_all(model, pool, pages, chunks)
    prompt = prompt_of(chunks, tail)
    cached = len(prompt) - len(tail)
    chosen = choose_rows(model, pool, pages, prompt, cached, ratio)
    linked = compute_rows(model, pool, pages, prompt, chosen + list(range(cached, len(prompt))))
    looked = looking_products(model, len(prompt))
    return Blended(linked._replace(products=linked.products + looked), tuple(chosen))


def looking_products(model: Llama, rows: int) -> int:
    """Multiply-adds of `choose_rows` in a prompt of so many rows."""
    return prefill_products(model, range(rows), LOOK_LAYERS)


@torch.inference_mode()
def choose_rows(
    model: Llama,
    pool: Tensor,
    pages: Sequence[int],
    prompt: Sequence[int],
    cached: int,
    ratio: float,
) -> list[int]:
    """The rows of placed chunks that deviate most, ascending; the pages then hold the first layers of all rows.

    cached  rows of the chunks, with which the prompt begins
    ratio   see `blend`
    """
    assert 0 <= ratio <= 1
    looking = _first_layers(model)
    fresh = pool.new_zeros((len(pages), LOOK_LAYERS, *pool.shape[2:]))
    batch = Batch.of([Part.following(prompt, 0, range(len(pages)))], pool.shape[3])
    looking.forward(batch.token_ids, batch.positions, PagedAttention(fresh, batch, model.rotary))
    table = torch.tensor(pages, dtype=torch.int64)
    held = pool[table][:, :LOOK_LAYERS]
    last = LOOK_LAYERS - 1
    # [pages, 2, page_tokens, kv_heads, head_dim] -> [rows]
    deviation = (fresh[:, last] - held[:, last]).square().sum(dim=(1, 3, 4)).flatten()[:cached]
    pool[table, :LOOK_LAYERS] = fresh
    chosen: list[int] = deviation.topk(math.ceil(ratio * cached)).indices.sort().values.tolist()
    return chosen


def _first_layers(model: Llama) -> Llama:
    """A model of the first layers of another, over the same weights."""
    kept = {
        name: weight
        for name, weight in model.weights.items()
        if not name.startswith("layers.") or int(name.split(".")[1]) < LOOK_LAYERS
    }
    return Llama(msgspec.structs.replace(model.config, layers=LOOK_LAYERS), kept)
