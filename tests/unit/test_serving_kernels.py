"""Every kernel against one definition in float64: plain torch, and Triton in its interpreter."""

from __future__ import annotations

import os
from types import ModuleType

# Triton reads it when a kernel is declared, that is, when the module below is imported.
os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.attention import (
    Batch,
    PagedAttention,
    Part,
    Rotary,
    page_operations,
    reference,
    triton_kernels,
)
from tests.unit.serving_models import TINY, pool_for, tiny

BACKENDS = pytest.mark.parametrize(
    "backend", [page_operations, triton_kernels], ids=["torch", "triton"]
)
HEADS = st.sampled_from([(1, 1, 8), (3, 1, 6), (6, 2, 8), (4, 4, 16), (9, 3, 64)])
"""Query heads, KV heads and their width; also widths that are no power of two."""

PAGE = 4
FEW = settings(max_examples=12)


def generator(seed: int) -> torch.Generator:
    """Chance of one example."""
    return torch.Generator().manual_seed(seed)


def filled_pool(pages: int, layers: int, kv_heads: int, width: int, seed: int) -> torch.Tensor:
    """A pool of random rows; page 0 holds NaN, which must never be looked at."""
    shape = (pages, layers, 2, PAGE, kv_heads, width)
    pool = torch.randn(shape, generator=generator(seed))
    pool[0] = torch.nan
    return pool


def shuffled_tables(contexts: list[int], pages: int, seed: int) -> list[list[int]]:
    """A table for each context, over random pages from 1 on; no page stands twice."""
    order = (torch.randperm(pages - 1, generator=generator(seed)) + 1).tolist()
    tables = []
    for context in contexts:
        count = -(-context // PAGE)
        tables.append(order[:count])
        order = order[count:]
    return tables


RAGGED = st.lists(
    st.sampled_from([1, PAGE - 1, PAGE, PAGE + 1, 31, 33, 70]), min_size=1, max_size=3
)


@FEW
@given(heads=HEADS, contexts=RAGGED, empty=st.booleans(), seed=st.integers(0, 999))
def test_decode_is_attention(
    heads: tuple[int, int, int], contexts: list[int], empty: bool, seed: int
) -> None:
    """Split decode over shuffled pages is softmax attention; a sequence without rows gets zeros."""
    query_heads, kv_heads, width = heads
    pages = sum(-(-context // PAGE) for context in contexts) + 1
    pool = filled_pool(pages, 2, kv_heads, width, seed)
    tables = shuffled_tables(contexts, pages, seed)
    if empty:
        contexts, tables = [*contexts, 0], [*tables, []]
    query = torch.randn((len(contexts), query_heads, width), generator=generator(seed + 1))
    table_width = max(map(len, tables))
    padded = torch.tensor([[*table, *[0] * (table_width - len(table))] for table in tables])
    lengths = torch.tensor(contexts)
    found = triton_kernels.decode(pool, 1, query, padded, lengths, split_rows=32)
    for number, context in enumerate(contexts):
        keys, values = reference.paged_rows(pool, 1, padded[number], context)
        at = torch.arange(context)
        wanted = reference.attend(
            query[number : number + 1], keys, values, torch.tensor([context]), at
        )
        torch.testing.assert_close(found[number], wanted[0].to(torch.float32), rtol=1e-5, atol=1e-5)


def test_decode_does_not_depend_on_the_batch() -> None:
    """To the bit: a sequence alone, and beside a longer one whose table is wider."""
    pool = filled_pool(60, 1, 2, 8, seed=5)
    tables = torch.arange(1, 51).view(1, 50)
    query = torch.randn((2, 6, 8), generator=generator(5))
    both = triton_kernels.decode(pool, 0, query, tables.expand(2, -1), torch.tensor([9, 200]))
    alone = triton_kernels.decode(pool, 0, query[:1], tables[:, :3], torch.tensor([9]))
    assert torch.equal(both[:1], alone)


@FEW
@given(
    heads=HEADS,
    contexts=RAGGED,
    share=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_prefill_at_scattered_positions_is_attention(
    heads: tuple[int, int, int], contexts: list[int], share: float, seed: int
) -> None:
    """Queries at any ascending positions, behind rows that are there already, see what they should."""
    query_heads, kv_heads, width = heads
    pages = sum(-(-context // PAGE) for context in contexts) + 1
    pool = filled_pool(pages, 2, kv_heads, width, seed)
    tables = shuffled_tables(contexts, pages, seed)
    parts = []
    for context, table in zip(contexts, tables, strict=True):
        count = max(1, int(share * context))
        chosen = torch.randperm(context, generator=generator(seed))[:count].sort().values.tolist()
        parts.append(Part([0] * count, chosen, table, context))
    batch = Batch.of(parts, PAGE)
    query = torch.randn((len(batch.positions), query_heads, width), generator=generator(seed + 1))
    found = triton_kernels.prefill(pool, 1, query, batch)
    starts = batch.query_starts.tolist()
    for number, context in enumerate(contexts):
        mine = slice(starts[number], starts[number + 1])
        keys, values = reference.paged_rows(pool, 1, batch.block_tables[number], context)
        wanted = reference.attend(
            query[mine], keys, values, batch.positions[mine], torch.arange(context)
        )
        torch.testing.assert_close(found[mine], wanted.to(torch.float32), rtol=1e-5, atol=1e-5)


@BACKENDS
@given(data=st.data())
@FEW
def test_rows_are_stored_where_they_belong(backend: ModuleType, data: st.DataObject) -> None:
    """Storing writes the given slots of one layer and nothing else."""
    tokens = data.draw(st.integers(0, 9))
    _, kv_heads, width = data.draw(HEADS)
    seed = data.draw(st.integers(0, 999))
    pool = torch.randn((5, 3, 2, PAGE, kv_heads, width), generator=generator(seed))
    slots = torch.randperm(5 * PAGE, generator=generator(seed))[:tokens]
    key, value = torch.randn((2, tokens, kv_heads, width), generator=generator(seed + 1))
    wanted = pool.clone()
    for number, slot in enumerate(slots.tolist()):
        wanted[slot // PAGE, 1, 0, slot % PAGE] = key[number]
        wanted[slot // PAGE, 1, 1, slot % PAGE] = value[number]
    backend.store(pool, 1, slots, key, value)
    assert torch.equal(pool, wanted)


@BACKENDS
@given(data=st.data())
@FEW
def test_packed_pages_come_back(backend: ModuleType, data: st.DataObject) -> None:
    """Packing copies pages in the order asked for (also twice); unpacking puts them at others."""
    seed = data.draw(st.integers(0, 999))
    pool = torch.randn((6, 2, 2, PAGE, 2, 6), generator=generator(seed))
    pages = data.draw(st.lists(st.integers(0, 5), max_size=6))
    packed = backend.pack(pool, torch.tensor(pages, dtype=torch.int64))
    assert packed.shape == (len(pages), *pool.shape[1:])
    assert all(torch.equal(packed[at], pool[page]) for at, page in enumerate(pages))
    places = torch.randperm(6, generator=generator(seed))[: len(pages)]
    other = torch.zeros_like(pool)
    backend.unpack(other, places, packed)
    for at, place in enumerate(places.tolist()):
        assert torch.equal(other[place], packed[at])
    assert torch.count_nonzero(other.flatten(1).any(dim=1)) == len(pages)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@given(
    rows=st.integers(0, 40),
    width=st.sampled_from([2, 8, 12, 64]),
    start=st.integers(0, 5000),
    distance=st.integers(-5000, 5000),
)
@FEW
def test_shifted_keys_are_keys_of_the_other_place(
    backend: str, rows: int, width: int, start: int, distance: int
) -> None:
    """What was rotated for one place and shifted is what the definition gives for the other place."""
    rotary = Rotary(width, 10_000.0)
    vectors = torch.randn((rows, 3, width), generator=generator(rows))
    at = torch.arange(start, start + rows)
    rotated = reference.rotate(vectors, at, 10_000.0).to(torch.float32)
    if backend == "torch":
        moved = rotary.shift(rotated, distance)
    else:
        moved = triton_kernels.shift(rotary, rotated, distance)
    wanted = reference.rotate(vectors, at + distance, 10_000.0).to(torch.float32)
    torch.testing.assert_close(moved, wanted, rtol=1e-5, atol=1e-5)


@BACKENDS
@given(data=st.data())
@FEW
def test_scores_bound_every_product_of_a_page(backend: ModuleType, data: st.DataObject) -> None:
    """Bounds are least and greatest keys; a score is never below a product, and meets it at one row."""
    query_heads, kv_heads, width = data.draw(HEADS)
    rows = torch.tensor(data.draw(st.lists(st.integers(0, PAGE), min_size=1, max_size=4)))
    seed = data.draw(st.integers(0, 999))
    pages = torch.randn((len(rows), PAGE, kv_heads, width), generator=generator(seed))
    query = torch.randn((1, query_heads, width), generator=generator(seed + 1))
    low, high = backend.key_bounds(pages, rows)
    some = rows > 0
    assert torch.isinf(low[~some]).all()
    scores = backend.page_scores(query, low[None, some], high[None, some])[0]
    assert scores.shape == (kv_heads, int(some.sum()))
    for column, page in enumerate(some.nonzero()[:, 0].tolist()):
        keys = pages[page, : int(rows[page])]
        assert torch.equal(low[page], keys.amin(dim=0))
        assert torch.equal(high[page], keys.amax(dim=0))
        best = reference.best_products(query[0], keys)
        assert (scores[:, column] >= best - 1e-4).all()
        if len(keys) == 1:
            torch.testing.assert_close(
                scores[:, column], best.to(torch.float32), rtol=1e-5, atol=1e-5
            )


def test_a_model_runs_over_the_kernels() -> None:
    """The same hidden rows from both backends, for a prefill, its second chunk, and decode steps."""
    model = tiny()
    tokens = torch.randint(0, TINY.vocabulary, (40,), generator=generator(3)).tolist()
    tables = [[1, 3, 0], [2, 4, 5]]
    pools = pool_for(model, 6), pool_for(model, 6)
    steps = [
        [Part.following(tokens[:17], 0, tables[0]), Part.following(tokens[3:8], 0, tables[1])],
        [Part.following(tokens[17:30], 17, tables[0]), Part.following(tokens[8:9], 5, tables[1])],
        [Part.following(tokens[30:31], 30, tables[0]), Part.following(tokens[9:10], 6, tables[1])],
    ]
    for parts in steps:
        batch = Batch.of(parts, 16)
        ours = PagedAttention(pools[0], batch, model.rotary)
        theirs = triton_kernels.TritonAttention(pools[1], batch, model.rotary)
        with torch.inference_mode():
            wanted = model.forward(batch.token_ids, batch.positions, ours)
            found = model.forward(batch.token_ids, batch.positions, theirs)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        assert torch.equal(model.logits(found).argmax(dim=1), model.logits(wanted).argmax(dim=1))
    torch.testing.assert_close(pools[0], pools[1], rtol=1e-4, atol=1e-5)
