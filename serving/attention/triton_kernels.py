"""The operations of `paged`, `page_operations` and `Rotary.shift` as Triton kernels, for a GPU.

Each function does what its twin in plain torch does; tensors are contiguous unless said otherwise. The
number of splits of a context depends on its own length alone, never on the batch, so that a sequence's bits do
not depend on its neighbours here either.

Triton's interpreter runs the same kernels on a CPU where ``TRITON_INTERPRET=1`` was set before this module
was imported; that is how they are tested.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from serving.attention.batch import Batch
from serving.attention.rotary import Rotary, turn

SPLIT_ROWS: Final = 256
"""Rows of a context that one program of the decode kernel walks through."""

KEY_ROWS: Final = 32
"""Rows that are loaded at once."""

QUERY_ROWS: Final = 16
"""Queries of a tile of the prefill kernel; the least that a matrix unit takes."""


# --------------------------------------------------------------------------------- storing


@triton.jit
def _store(
    pool,
    key,
    value,
    slots,
    layer,
    layers,
    PAGE: tl.constexpr,
    HEAD: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One token and KV head."""
    token, head, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    lane = tl.arange(0, WIDE)
    live = lane < HEAD
    slot = tl.load(slots + token)
    source = (token * heads + head) * HEAD + lane
    page = (slot // PAGE) * layers + layer
    target = ((page * 2 * PAGE + slot % PAGE) * heads + head) * HEAD + lane
    tl.store(pool + target, tl.load(key + source, mask=live), mask=live)
    tl.store(pool + target + PAGE * heads * HEAD, tl.load(value + source, mask=live), mask=live)


def store(pool: Tensor, layer: int, slots: Tensor, key: Tensor, value: Tensor) -> None:
    """See `serving.attention.page_operations.store`."""
    tokens, heads, width = key.shape
    if tokens:
        _store[tokens, heads](
            pool,
            key.contiguous(),
            value.contiguous(),
            slots,
            layer,
            pool.shape[1],
            PAGE=pool.shape[3],
            HEAD=width,
            WIDE=triton.next_power_of_2(width),
        )


# ---------------------------------------------------------------------------------- decode


@triton.jit
def _decode_split(
    query,
    pool,
    tables,
    contexts,
    partial,
    summary,
    layer,
    layers,
    table_width,
    scale,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    PAGE: tl.constexpr,
    HEAD: tl.constexpr,
    WIDE: tl.constexpr,
    SPLIT: tl.constexpr,
    STEP: tl.constexpr,
):
    """One sequence, KV head and split: attended values, and the logarithm of the weights' sum."""
    sequence, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    heads, splits = tl.num_programs(1), tl.num_programs(2)
    row, lane = tl.arange(0, ROWS), tl.arange(0, WIDE)
    live = (row[:, None] < GROUP) & (lane[None, :] < HEAD)
    at = (sequence * heads + head) * GROUP + row
    q = tl.load(query + at[:, None] * HEAD + lane[None, :], mask=live, other=0.0).to(tl.float32)
    context = tl.load(contexts + sequence)
    peak = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    gathered = tl.zeros([ROWS, WIDE], tl.float32)
    for begin in range(split * SPLIT, tl.minimum((split + 1) * SPLIT, context), STEP):
        place = begin + tl.arange(0, STEP)
        seen = place < context
        page = tl.load(tables + sequence * table_width + place // PAGE, mask=seen, other=0)
        base = (((page * layers + layer) * 2 * PAGE + place % PAGE) * heads + head) * HEAD
        inside = seen[:, None] & (lane[None, :] < HEAD)
        where = base[:, None] + lane[None, :]
        k = tl.load(pool + where, mask=inside, other=0.0).to(tl.float32)
        v = tl.load(pool + where + PAGE * heads * HEAD, mask=inside, other=0.0).to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(seen[None, :], scores, -float("inf"))
        raised = tl.maximum(peak, tl.max(scores, axis=1))
        weights = tl.exp(scores - raised[:, None])
        decay = tl.exp(peak - raised)
        total = total * decay + tl.sum(weights, axis=1)
        gathered = gathered * decay[:, None] + tl.dot(weights, v, input_precision="ieee")
        peak = raised
    some = total > 0
    divisor = tl.where(some, total, 1.0)
    spot = at * splits + split
    tl.store(partial + spot[:, None] * HEAD + lane[None, :], gathered / divisor[:, None], mask=live)
    tl.store(
        summary + spot, tl.where(some, peak + tl.log(divisor), -float("inf")), mask=row < GROUP
    )


@triton.jit
def _decode_merge(partial, summary, attended, splits, HEAD: tl.constexpr, WIDE: tl.constexpr):
    """One sequence and query head: its splits in ascending order, weighed by their sums."""
    at = tl.program_id(0)
    lane = tl.arange(0, WIDE)
    live = lane < HEAD
    peak = -float("inf")
    for split in range(splits):
        peak = tl.maximum(peak, tl.load(summary + at * splits + split))
    # A sequence without rows has no peak; it must not become -inf - -inf.
    peak = tl.where(peak == -float("inf"), 0.0, peak)
    total = 0.0
    merged = tl.zeros([WIDE], tl.float32)
    for split in range(splits):
        spot = at * splits + split
        weight = tl.exp(tl.load(summary + spot) - peak)
        total += weight
        merged += weight * tl.load(partial + spot * HEAD + lane, mask=live, other=0.0)
    merged = merged / tl.where(total > 0, total, 1.0)
    tl.store(attended + at * HEAD + lane, merged.to(attended.dtype.element_ty), mask=live)


def decode(
    pool: Tensor,
    layer: int,
    query: Tensor,
    tables: Tensor,
    contexts: Tensor,
    *,
    split_rows: int = SPLIT_ROWS,
) -> Tensor:
    """One query a sequence over all rows of its context.

    query     ``[sequences, query_heads, head_dim]``, rotated
    tables    ``[sequences, pages_max]``
    contexts  ``[sequences]``: rows of each, 0 gives zeros

    Gives ``[sequences, query_heads, head_dim]``.
    """
    sequences, query_heads, width = query.shape
    _, layers, _, page_tokens, kv_heads, _ = pool.shape
    group = query_heads // kv_heads
    splits = max(1, triton.cdiv(tables.shape[1] * page_tokens, split_rows))
    partial = query.new_empty((sequences, query_heads, splits, width), dtype=torch.float32)
    summary = query.new_empty((sequences, query_heads, splits), dtype=torch.float32)
    attended = torch.empty_like(query, memory_format=torch.contiguous_format)
    wide = triton.next_power_of_2(width)
    _decode_split[sequences, kv_heads, splits](
        query.contiguous(),
        pool,
        tables.contiguous(),
        contexts,
        partial,
        summary,
        layer,
        layers,
        tables.shape[1],
        width**-0.5,
        GROUP=group,
        ROWS=max(16, triton.next_power_of_2(group)),
        PAGE=page_tokens,
        HEAD=width,
        WIDE=max(16, wide),
        SPLIT=split_rows,
        STEP=KEY_ROWS,
    )
    _decode_merge[(sequences * query_heads,)](
        partial, summary, attended, splits, HEAD=width, WIDE=wide
    )
    return attended


# --------------------------------------------------------------------------------- prefill


@triton.jit
def _prefill(
    query,
    pool,
    positions,
    starts,
    tables,
    contexts,
    attended,
    layer,
    layers,
    table_width,
    scale,
    GROUP: tl.constexpr,
    PAGE: tl.constexpr,
    HEAD: tl.constexpr,
    WIDE: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
):
    """A tile of one sequence's queries, one query head; keys up to the tile's last position."""
    sequence, tile, query_head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    query_heads = tl.num_programs(2)
    heads, head = query_heads // GROUP, query_head // GROUP
    first, last = tl.load(starts + sequence), tl.load(starts + sequence + 1)
    token = first + tile * TILE + tl.arange(0, TILE)
    mine = token < last
    lane = tl.arange(0, WIDE)
    live = mine[:, None] & (lane[None, :] < HEAD)
    where = (token[:, None] * query_heads + query_head) * HEAD + lane[None, :]
    q = tl.load(query + where, mask=live, other=0.0).to(tl.float32)
    position = tl.load(positions + token, mask=mine, other=-1)
    end = tl.minimum(tl.load(contexts + sequence), tl.max(position, axis=0) + 1)
    peak = tl.full([TILE], -float("inf"), tl.float32)
    total = tl.zeros([TILE], tl.float32)
    gathered = tl.zeros([TILE, WIDE], tl.float32)
    for begin in range(0, end, STEP):
        place = begin + tl.arange(0, STEP)
        there = place < end
        page = tl.load(tables + sequence * table_width + place // PAGE, mask=there, other=0)
        base = (((page * layers + layer) * 2 * PAGE + place % PAGE) * heads + head) * HEAD
        inside = there[:, None] & (lane[None, :] < HEAD)
        spot = base[:, None] + lane[None, :]
        k = tl.load(pool + spot, mask=inside, other=0.0).to(tl.float32)
        v = tl.load(pool + spot + PAGE * heads * HEAD, mask=inside, other=0.0).to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = there[None, :] & (place[None, :] <= position[:, None])
        scores = tl.where(seen, scores, -float("inf"))
        raised = tl.maximum(peak, tl.max(scores, axis=1))
        base_score = tl.where(raised == -float("inf"), 0.0, raised)
        weights = tl.exp(scores - base_score[:, None])
        decay = tl.exp(peak - base_score)
        total = total * decay + tl.sum(weights, axis=1)
        gathered = gathered * decay[:, None] + tl.dot(weights, v, input_precision="ieee")
        peak = raised
    outcome = gathered / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(attended + where, outcome.to(attended.dtype.element_ty), mask=live)


def prefill(pool: Tensor, layer: int, query: Tensor, batch: Batch) -> Tensor:
    """Some queries a sequence, at any ascending positions, over rows at or before each.

    One kernel for prefill behind a cached prefix, for chunks of a prompt, and for the scattered tokens
    that linking recomputes. Gives ``[tokens, query_heads, head_dim]``.
    """
    _, query_heads, width = query.shape
    _, layers, _, page_tokens, kv_heads, _ = pool.shape
    counts = batch.query_starts.diff()
    tiles = triton.cdiv(int(counts.max()), QUERY_ROWS)
    attended = torch.empty_like(query, memory_format=torch.contiguous_format)
    _prefill[len(counts), tiles, query_heads](
        query.contiguous(),
        pool,
        batch.positions,
        batch.query_starts,
        batch.block_tables,
        batch.context_lengths,
        attended,
        layer,
        layers,
        batch.block_tables.shape[1],
        width**-0.5,
        GROUP=query_heads // kv_heads,
        PAGE=page_tokens,
        HEAD=width,
        WIDE=max(16, triton.next_power_of_2(width)),
        TILE=QUERY_ROWS,
        STEP=KEY_ROWS,
    )
    return attended


class TritonAttention:
    """`serving.attention.paged.PagedAttention` over these kernels."""

    def __init__(self, pool: Tensor, batch: Batch, rotary: Rotary) -> None:
        """The pool is contiguous; the batch's tensors are on its device."""
        assert pool.is_contiguous()
        self._pool = pool
        self._batch = batch
        self._angles = rotary.angles(batch.positions)
        self._decodes = bool((batch.query_starts.diff() == 1).all())

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `serving.attention.protocol.Attention`."""
        query = turn(query, *self._angles)
        store(self._pool, layer, self._batch.slots, turn(key, *self._angles), value)
        if self._decodes:
            batch = self._batch
            return decode(self._pool, layer, query, batch.block_tables, batch.context_lengths)
        return prefill(self._pool, layer, query, self._batch)


# ----------------------------------------------------------------------- rotation and pages


@triton.jit
def _shift(
    rotated, moved, cosine, sine, rows, HALF: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr
):
    """Some rows of one head each, all turned by the same angles."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, WIDE)
    live = (row[:, None] < rows) & (lane[None, :] < HALF)
    c = tl.load(cosine + lane, mask=lane < HALF, other=0.0)[None, :]
    s = tl.load(sine + lane, mask=lane < HALF, other=0.0)[None, :]
    where = row[:, None] * (2 * HALF) + lane[None, :]
    left = tl.load(rotated + where, mask=live, other=0.0).to(tl.float32)
    right = tl.load(rotated + where + HALF, mask=live, other=0.0).to(tl.float32)
    kind = moved.dtype.element_ty
    tl.store(moved + where, (left * c - right * s).to(kind), mask=live)
    tl.store(moved + where + HALF, (right * c + left * s).to(kind), mask=live)


def shift(rotary: Rotary, rotated: Tensor, distance: int) -> Tensor:
    """See `serving.attention.rotary.Rotary.shift`."""
    offset = torch.tensor([distance], dtype=torch.int64, device=rotated.device)
    cosine, sine = rotary.angles(offset)
    rotated = rotated.contiguous()
    moved = torch.empty_like(rotated)
    half = rotary.head_dim // 2
    rows = rotated.numel() // rotary.head_dim
    if rows:
        _shift[(triton.cdiv(rows, 16),)](
            rotated,
            moved,
            cosine,
            sine,
            rows,
            HALF=half,
            WIDE=triton.next_power_of_2(half),
            ROWS=16,
        )
    return moved


@triton.jit
def _copy_pages(source, target, sources, targets, size, STEP: tl.constexpr):
    """A piece of one page, from its place in one tensor to its place in another."""
    number = tl.program_id(0)
    lane = tl.program_id(1) * STEP + tl.arange(0, STEP)
    live = lane < size
    origin = tl.load(sources + number) * size
    goal = tl.load(targets + number) * size
    tl.store(target + goal + lane, tl.load(source + origin + lane, mask=live), mask=live)


def _copy(source: Tensor, target: Tensor, sources: Tensor, targets: Tensor) -> None:
    if len(sources):
        size = source[0].numel()
        _copy_pages[len(sources), triton.cdiv(size, 1024)](
            source, target, sources, targets, size, STEP=1024
        )


def pack(pool: Tensor, pages: Tensor) -> Tensor:
    """See `serving.attention.page_operations.pack`."""
    packed = pool.new_empty((len(pages), *pool.shape[1:]))
    _copy(pool, packed, pages, torch.arange(len(pages), device=pool.device))
    return packed


def unpack(pool: Tensor, pages: Tensor, packed: Tensor) -> None:
    """See `serving.attention.page_operations.unpack`."""
    _copy(packed, pool, torch.arange(len(pages), device=pool.device), pages)


@triton.jit
def _key_bounds(
    pages,
    rows,
    low,
    high,
    PAGE: tl.constexpr,
    PAGE_WIDE: tl.constexpr,
    HEAD: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One page and KV head."""
    page, head, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    row, lane = tl.arange(0, PAGE_WIDE), tl.arange(0, WIDE)
    live = lane < HEAD
    counts = (row < tl.load(rows + page))[:, None] & live[None, :]
    where = ((page * PAGE + row[:, None]) * heads + head) * HEAD + lane[None, :]
    keys = tl.load(pages + where, mask=counts, other=0.0)
    least = tl.min(tl.where(counts, keys, float("inf")), axis=0)
    greatest = tl.max(tl.where(counts, keys, -float("inf")), axis=0)
    spot = (page * heads + head) * HEAD + lane
    tl.store(low + spot, least, mask=live)
    tl.store(high + spot, greatest, mask=live)


def key_bounds(pages: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """See `serving.attention.page_operations.key_bounds`."""
    count, page_tokens, heads, width = pages.shape
    low = pages.new_empty((count, heads, width))
    high = torch.empty_like(low)
    if count:
        _key_bounds[count, heads](
            pages.contiguous(),
            rows,
            low,
            high,
            PAGE=page_tokens,
            PAGE_WIDE=triton.next_power_of_2(page_tokens),
            HEAD=width,
            WIDE=triton.next_power_of_2(width),
        )
    return low, high


@triton.jit
def _page_scores(
    query, low, high, scores, pages, GROUP: tl.constexpr, HEAD: tl.constexpr, WIDE: tl.constexpr
):
    """One sequence, KV head and page."""
    sequence, head, page = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    heads = tl.num_programs(1)
    lane = tl.arange(0, WIDE)
    live = lane < HEAD
    spot = ((sequence * pages + page) * heads + head) * HEAD + lane
    least = tl.load(low + spot, mask=live, other=0.0)
    greatest = tl.load(high + spot, mask=live, other=0.0)
    best = -float("inf")
    for member in range(GROUP):
        at = (sequence * heads + head) * GROUP + member
        q = tl.load(query + at * HEAD + lane, mask=live, other=0.0)
        best = tl.maximum(best, tl.sum(tl.maximum(q * least, q * greatest), axis=0))
    tl.store(scores + (sequence * heads + head) * pages + page, best)


def page_scores(query: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """See `serving.attention.page_operations.page_scores`."""
    sequences, query_heads, width = query.shape
    pages, kv_heads = low.shape[1:3]
    scores = query.new_empty((sequences, kv_heads, pages))
    if pages:
        _page_scores[sequences, kv_heads, pages](
            query.contiguous(),
            low.contiguous(),
            high.contiguous(),
            scores,
            pages,
            GROUP=query_heads // kv_heads,
            HEAD=width,
            WIDE=triton.next_power_of_2(width),
        )
    return scores
