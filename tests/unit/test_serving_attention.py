"""Attention over pages: right by the definition, and the same to the last bit however it is batched."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.attention import Part, Rotary, reference
from serving.attention.blockwise import KEY_BLOCK, QUERY_TILE, attend
from tests.unit.serving_models import TINY, pool_for, smollm2, step, tiny

LENGTHS = st.sampled_from([1, 2, 15, 16, 17, 63, KEY_BLOCK - 1, KEY_BLOCK, KEY_BLOCK + 1, 600])
TEXT = (
    "A prompt tree maps prefixes of prompts to the workers that hold their keys and values. "
    "When a request arrives, the router walks the tree, finds the longest prefix, and weighs what "
    "is saved by reuse against the queue of the worker that has it."
)


def random_heads(seed: int, *shape: int) -> torch.Tensor:
    """Numbers from N(0, 1)."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(
    rows=LENGTHS,
    count=st.integers(1, 2 * QUERY_TILE),
    heads=st.sampled_from([(1, 1), (3, 1), (6, 2), (4, 4)]),
    seed=st.integers(0, 1000),
)
def test_blocks_add_up_to_softmax(rows: int, count: int, heads: tuple[int, int], seed: int) -> None:
    """Attention in blocks is attention, for ragged lengths, scattered positions and unseeing queries."""
    query = random_heads(seed, count, heads[0], 8)
    key, value = (
        random_heads(seed + 1, rows, heads[1], 8),
        random_heads(seed + 2, rows, heads[1], 8),
    )
    generator = torch.Generator().manual_seed(seed)
    queries_at = torch.randint(-1, rows + 2, (count,), generator=generator)
    keys_at = torch.arange(rows)
    found = attend(query, key, value, queries_at, keys_at)
    wanted = reference.attend(query, key, value, queries_at, keys_at)
    torch.testing.assert_close(found, wanted.to(torch.float32), rtol=1e-5, atol=2e-6)
    assert not found[queries_at < 0].any()


@given(
    rows=st.integers(2, 700),
    cut=st.floats(0, 1, exclude_max=True),
    end=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_a_query_does_not_see_its_neighbours(rows: int, cut: float, end: float, seed: int) -> None:
    """To the bit: any slice of the queries, with no more keys than the last of them sees, agrees."""
    query = random_heads(seed, rows, 6, 16)
    key, value = random_heads(seed + 1, rows, 2, 16), random_heads(seed + 2, rows, 2, 16)
    at = torch.arange(rows)
    whole = attend(query, key, value, at, at)
    start = int(cut * rows)
    stop = start + 1 + int(end * (rows - start - 1))
    part = attend(query[start:stop], key[:stop], value[:stop], at[start:stop], at[:stop])
    assert torch.equal(part, whole[start:stop])


@given(
    prompts=st.lists(st.integers(1, 120), min_size=1, max_size=4),
    chunk=st.integers(2, 130),
    seed=st.integers(0, 1000),
)
@settings(max_examples=12)
def test_chunks_and_company_change_no_bit(prompts: list[int], chunk: int, seed: int) -> None:
    """Hidden rows are equal bits: each prompt alone and whole, or all of them together in chunks."""
    model = tiny()
    generator = torch.Generator().manual_seed(seed)
    tokens = [
        torch.randint(0, TINY.vocabulary, (length,), generator=generator).tolist()
        for length in prompts
    ]
    pages = torch.randperm(8 * len(prompts), generator=generator).view(len(prompts), 8).tolist()
    alone = []
    for prompt, table in zip(tokens, pages, strict=True):
        pool = pool_for(model, 8 * len(prompts))
        alone.append(step(model, pool, [Part.following(prompt, 0, table)]))
    pool = pool_for(model, 8 * len(prompts))
    together: list[list[torch.Tensor]] = [[] for _ in prompts]
    for at in range(0, max(prompts), chunk):
        live = [number for number, prompt in enumerate(tokens) if at < len(prompt)]
        parts = [
            Part.following(tokens[number][at : at + chunk], at, pages[number]) for number in live
        ]
        rows = step(model, pool, parts).split([len(part.token_ids) for part in parts])
        for number, row in zip(live, rows, strict=True):
            together[number].append(row)
    for one, many in zip(alone, together, strict=True):
        assert torch.equal(one, torch.cat(many))


@pytest.mark.parametrize("threads", [1, 2])
def test_cached_prefix_changes_no_bit_of_a_real_model(threads: int) -> None:
    """SmolLM2: behind a cached prefix, and one by one, hidden rows and keys are those of one prefill."""
    model, tokenizer = smollm2().model, smollm2().tokenizer
    tokens = tokenizer.encode(TEXT)
    table = [5, 2, 7, 1, 0]
    assert 48 < len(tokens) <= 80
    whole_pool, cached_pool, single_pool = (pool_for(model, 8) for _ in range(3))
    torch.set_num_threads(threads)
    try:
        whole = step(model, whole_pool, [Part.following(tokens, 0, table)])
        cached_pool[table[:3]] = whole_pool[table[:3]]
        behind = step(model, cached_pool, [Part.following(tokens[48:], 48, table)])
        torch.set_num_threads(1)
        head = step(model, single_pool, [Part.following(tokens[:-4], 0, table)])
        singles = [
            step(model, single_pool, [Part.following([token], at, table)])
            for at, token in enumerate(tokens[-4:], len(tokens) - 4)
        ]
    finally:
        torch.set_num_threads(1)
    assert torch.equal(behind, whole[48:])
    assert torch.equal(torch.cat((head, *singles)), whole)
    assert torch.equal(cached_pool, whole_pool)
    assert torch.equal(single_pool, whole_pool)


@given(position=st.integers(0, 100_000), distance=st.integers(-100_000, 100_000))
def test_rotations_add_up(position: int, distance: int) -> None:
    """Rotated for one place and shifted to another is rotated for that other place."""
    rotary = Rotary(head_dim=64, theta=100_000.0)
    vectors = random_heads(position, 3, 2, 64)
    here = rotary.rotate(vectors, torch.full((3,), position))
    there = rotary.rotate(vectors, torch.full((3,), position + distance))
    torch.testing.assert_close(rotary.shift(here, distance), there, rtol=1e-5, atol=1e-5)


def test_logits_do_not_depend_on_where_a_prompt_begins() -> None:
    """SmolLM2: a prompt whose first token stands at position 1,000 has the logits of one at 0.

    Its table begins at that place: pages before it are not looked at, for nothing is visible there.
    """
    model, tokenizer = smollm2().model, smollm2().tokenizer
    tokens = torch.tensor(tokenizer.encode("The capital of France is"))
    outcomes = []
    for start in (0, 1000):
        attention = Unpaged(model.rotary, torch.arange(start, start + len(tokens)))
        with torch.inference_mode():
            hidden = model.forward(tokens, attention.positions, attention)
            outcomes.append(model.logits(hidden[-1:])[0])
    assert int(outcomes[0].argmax()) == int(outcomes[1].argmax())
    assert tokenizer.decode([int(outcomes[0].argmax())]) == " Paris"
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=0, atol=2e-3)


class Unpaged:
    """Attends to the step's own tokens only, at positions that need not begin at 0."""

    def __init__(self, rotary: Rotary, positions: torch.Tensor) -> None:
        self.positions = positions
        self._rotary = rotary

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        query = self._rotary.rotate(query, self.positions)
        key = self._rotary.rotate(key, self.positions)
        return attend(query, key, value, self.positions, self.positions)
