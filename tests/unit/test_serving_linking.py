"""Linking: what is exact is exact to the bit, what is counted is the formula, what is approximate is named so."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.serve.zipf import Load, count_hits
from kv_pool.namespace import Kind, Namespace
from serving.attention import Part
from serving.attention.paged import empty_pool
from serving.linking import (
    ChunkStore,
    blend,
    chunk_namespace,
    compile_chunk,
    link,
    linked_namespace,
    recomputed_rows,
    split_fixed,
    split_semantic,
)
from serving.linking.evaluation import (
    BLEND,
    CACHE_BLEND,
    FULL,
    LINKED,
    NAIVE,
    answers,
    draw_prompts,
    lego,
)
from serving.linking.lego import compute_rows, prefill_products, prompt_of
from serving.linking.naming import chunk_blocks
from serving.linking.needles import Prompt, draw_documents, prompt_for
from serving.linking.together import compile_chunks
from tests.unit.serving_models import TINY, smollm2, step, tiny

EXACT = Namespace(
    tenant="", model="tiny", revision="1", dtype="float32", layout="pages", block_tokens=16
)
TAIL = (5, 6, 7)


def fresh_pool(rows: int):
    """An empty pool of exactly the pages of a prompt, and its table in a wild order."""
    pages = list(range(-(-rows // 16)))
    random.Random(rows).shuffle(pages)
    return empty_pool(len(pages), TINY.layers, TINY.kv_heads, TINY.head_dim), pages


def full(chunks, tail):
    """The full computation of a prompt."""
    prompt = prompt_of(chunks, tail)
    pool, pages = fresh_pool(len(prompt))
    with torch.inference_mode():
        linked = compute_rows(tiny(), pool, pages, prompt, range(len(prompt)))
    return linked, pool, pages


def some_chunks(seed: int, lengths: list[int]):
    """Compiled chunks of random tokens."""
    rng = random.Random(seed)
    return [
        compile_chunk(tiny(), [rng.randrange(TINY.vocabulary) for _ in range(length)])
        for length in lengths
    ]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_k_as_long_as_the_chunks_is_the_full_computation(seed: int, lengths: list[int]) -> None:
    """With k at least every chunk's length the pages and the last row are those of a full prefill, to the bit."""
    chunks = some_chunks(seed, lengths)
    wanted, wanted_pool, wanted_pages = full(chunks, TAIL)
    pool, pages = fresh_pool(wanted.rows)
    linked = link(tiny(), pool, pages, chunks, TAIL, max(lengths))
    assert torch.equal(linked.hidden, wanted.hidden)
    assert torch.equal(pool[pages], wanted_pool[wanted_pages])


def test_a_first_chunk_is_exact_where_it_stands() -> None:
    """One chunk and a question need no row of the chunk to be computed anew."""
    chunks = some_chunks(3, [37])
    wanted, _, _ = full(chunks, TAIL)
    pool, pages = fresh_pool(wanted.rows)
    linked = link(tiny(), pool, pages, chunks, TAIL, 0)
    assert torch.equal(linked.hidden, wanted.hidden)
    assert linked.recomputed == len(TAIL)


@given(st.lists(st.integers(1, 60), max_size=6), st.integers(1, 30), st.integers(0, 70))
def test_rows_computed_are_the_formula(lengths: list[int], tail: int, k: int) -> None:
    """The first k rows of every chunk but the first, and the tail; each once, ascending."""
    rows = recomputed_rows(lengths, tail, k)
    assert len(rows) == sum(min(k, length) for length in lengths[1:]) + tail
    assert rows == sorted(set(rows))
    assert all(0 <= row < sum(lengths) + tail for row in rows)


def test_linking_is_an_approximation_and_k_brings_it_nearer() -> None:
    """Naive concatenation differs from the full computation; a larger k differs less, in the mean."""
    distance = {0: 0.0, 8: 0.0, 24: 0.0}
    for seed in range(6):
        chunks = some_chunks(seed, [24, 24, 24])
        wanted, _, _ = full(chunks, TAIL)
        for k in distance:
            pool, pages = fresh_pool(wanted.rows)
            linked = link(tiny(), pool, pages, chunks, TAIL, k)
            distance[k] += float((linked.hidden - wanted.hidden).norm())
    assert distance[0] > distance[8] > distance[24] == 0.0


def test_a_chunk_is_the_same_wherever_it_is_placed() -> None:
    """Rows placed at a distance are those of the origin turned by it; values are not touched."""
    (chunk,) = some_chunks(4, [20])
    rotary = tiny().rotary
    pool, pages = fresh_pool(64)
    chunk.place(pool, pages, 33, rotary)
    table = pool[pages].transpose(1, 3)  # [pages, page_tokens, 2, layers, ...]
    rows = table.flatten(0, 1)[33:53]
    turned = rotary.rotate(chunk.keys[1], torch.arange(33, 53))
    assert torch.equal(rows[:, 0, 1], turned)
    assert torch.equal(rows[:, 1, 1], chunk.values[1])


def test_dummies_leave_no_rows() -> None:
    """A chunk behind dummies has rows for its own tokens only, and another name."""
    plain = compile_chunk(tiny(), [1, 2, 3])
    behind = compile_chunk(tiny(), [1, 2, 3], dummies=[0, 0, 0])
    assert behind.keys.shape == plain.keys.shape
    assert behind.lead == 3
    assert behind.name != plain.name
    assert not torch.equal(behind.values[1], plain.values[1])


def test_blending_chooses_what_deviates() -> None:
    """With all rows chosen it is the full computation; the tail is always computed."""
    chunks = some_chunks(5, [20, 20])
    wanted, _, _ = full(chunks, TAIL)
    pool, pages = fresh_pool(wanted.rows)
    whole = blend(tiny(), pool, pages, chunks, TAIL, 1.0)
    assert torch.equal(whole.linked.hidden, wanted.hidden)
    pool, pages = fresh_pool(wanted.rows)
    some = blend(tiny(), pool, pages, chunks, TAIL, 0.2)
    assert len(some.chosen) == 8
    assert some.linked.recomputed == 8 + len(TAIL)
    # The first chunk stands where it was compiled: nothing of it deviates.
    assert min(some.chosen) >= 20
    assert some.linked.products > link(tiny(), pool, pages, chunks, TAIL, 4).products


def test_operations_grow_with_length_as_they_should() -> None:
    """Doubling a prompt doubles what LegoLink computes in the matrices, and more than doubles a full prefill."""
    model = tiny()

    def lego(length: int) -> int:
        return prefill_products(model, recomputed_rows([length // 4] * 4, 32, 16))

    def whole(length: int) -> int:
        return prefill_products(model, range(length + 32))

    steps = [lego(length) - lego(length // 2) for length in (1024, 2048, 4096)]
    # Linear: the step from n to 2n is proportional to n.
    assert steps[1] == 2 * steps[0]
    assert steps[2] == 2 * steps[1]
    assert whole(4096) / whole(2048) > 2.5


def test_chunks_are_kept_up_to_their_bytes() -> None:
    """A store compiles once, finds again, and lets the least used go."""
    one = compile_chunk(tiny(), [1] * 8)
    store = ChunkStore(tiny(), 2 * one.size_bytes)
    store.get([1] * 8)
    store.get([2] * 8)
    store.get([1] * 8)
    store.get([3] * 8)
    assert (store.compiled, store.hits, len(store)) == (3, 1, 2)
    assert [2] * 8 not in store
    assert [1] * 8 in store


def test_linked_blocks_are_never_named_as_exact_ones() -> None:
    """Exact pages, chunks and linked prompts live in namespaces of their own, whose digests differ."""
    chunk, behind = chunk_namespace(EXACT), chunk_namespace(EXACT, 3)
    linked = linked_namespace(EXACT, 16)
    digests = {each.digest() for each in (EXACT, chunk, behind, linked, linked_namespace(EXACT, 4))}
    assert len(digests) == 5
    assert (chunk.kind, behind.kind, linked.kind) == (Kind.EXACT, Kind.LINKED, Kind.LINKED)
    with pytest.raises(ValueError, match="exact"):
        chunk_namespace(linked)
    names, contents = chunk_blocks(chunk, list(range(40)))
    assert names.blocks == 3
    assert len(contents) == 48


def test_content_of_a_chunk_has_one_name_wherever_it_stands() -> None:
    """The content names of a chunk's blocks do not depend on anything but their tokens."""
    chunk = chunk_namespace(EXACT)
    tokens = list(range(32))
    _, contents = chunk_blocks(chunk, tokens)
    _, swapped = chunk_blocks(chunk, tokens[16:] + tokens[:16])
    assert swapped == contents[16:] + contents[:16]


# ------------------------------------------------------------------------------------ splitting


@given(st.lists(st.integers(0, 96), max_size=100), st.integers(1, 20))
def test_fixed_pieces_lose_nothing(tokens: list[int], size: int) -> None:
    """Pieces put together are the text; all but the last are of one size."""
    pieces = split_fixed(tokens, size)
    assert [token for piece in pieces for token in piece] == tokens
    assert all(len(piece) == size for piece in pieces[:-1])


def test_semantic_pieces_end_where_sentences_do() -> None:
    """Pieces fit and say all of the text; what is added behind changes the last one at most."""
    tokenizer = smollm2().tokenizer
    rng = random.Random(1)
    text = "".join(document.text for document in draw_documents(rng, 4, 8))
    pieces = split_semantic(text, tokenizer, 60)
    assert all(len(piece) <= 60 for piece in pieces)
    assert "".join(tokenizer.decode(piece) for piece in pieces) == text
    longer = split_semantic(text + "Something else.\n\n" * 4, tokenizer, 60)
    assert longer[: len(pieces) - 1] == pieces[:-1]


# ------------------------------------------------------------------------------------- measures


def test_prompts_have_one_answer() -> None:
    """The code that is asked for stands in one document, and documents do not change with the prompt."""
    tokenizer = smollm2().tokenizer
    documents = draw_documents(random.Random(2), 5, 5)
    prompt = prompt_for(tokenizer, documents, documents[3])
    turned = prompt_for(tokenizer, documents[::-1], documents[3])
    assert prompt.documents == turned.documents[::-1]
    told = tokenizer.decode([token for document in prompt.documents for token in document])
    assert told.count(documents[3].code) == 1
    assert prompt.code == documents[3].code


def test_content_is_found_where_prefixes_are_not() -> None:
    """On a Zipf load content hits far exceed prefix hits; with one document a prompt they are alike."""
    many = count_hits(Load(documents=50, prompts=300), seed=1)
    assert many.content_ratio > many.prefix_ratio + 0.2
    few = count_hits(Load(documents=8, prompts=300, per_prompt=2), seed=1)
    assert many.inert < few.inert < few.prompts
    one = count_hits(Load(documents=50, prompts=300, per_prompt=1), seed=1)
    assert one.content_ratio - one.prefix_ratio < 0.1


def test_chunks_compiled_together_are_those_compiled_alone() -> None:
    """One pass over several chunks gives each the bits that it has by itself, behind dummies, too."""
    texts = [[1, 2, 3], list(range(40)), [7]]
    for dummies in ((), (0, 0)):
        together = compile_chunks(tiny(), texts, dummies=dummies)
        for text, chunk in zip(texts, together, strict=True):
            alone = compile_chunk(tiny(), text, dummies=dummies)
            assert (chunk.token_ids, chunk.lead) == (alone.token_ids, alone.lead)
            assert torch.equal(chunk.keys, alone.keys)
            assert torch.equal(chunk.values, alone.values)


@torch.inference_mode()
def answered_step_by_step(model, tokenizer, prompt: Prompt, arm: str):
    """What the measure says of an arm, the long way: alone, token by token. Log probabilities, whether it is right,
    rows and operations."""
    code = tokenizer.encode(prompt.code)
    chunks = [compile_chunk(model, tokens) for tokens in (prompt.head, *prompt.documents)]
    tokens = prompt_of(chunks, prompt.question)
    pages = range(-(-(len(tokens) + len(code)) // 16))
    config = model.config
    pool = empty_pool(len(pages), config.layers, config.kv_heads, config.head_dim)
    if arm == "full":
        linked = compute_rows(model, pool, pages, tokens, range(len(tokens)))
    elif arm == CACHE_BLEND:
        linked = blend(model, pool, pages, chunks, prompt.question, BLEND).linked
    else:
        linked = link(model, pool, pages, chunks, prompt.question, int(arm.removeprefix("lego-")))

    def after(token: int, behind: int):
        part = Part.following([token], len(tokens) + behind, pages)
        return model.logits(step(model, pool, [part]))

    opening = model.logits(linked.computed[-prompt.opening - 1 :])
    greedy = [int(opening[-1].argmax())]
    while len(greedy) < len(code):
        greedy.append(int(after(greedy[-1], len(greedy) - 1).argmax()))
    forced = [after(token, place) for place, token in enumerate(code[:-1])]
    told = torch.log_softmax(torch.cat([opening, *forced]).double(), dim=-1)
    right = tokenizer.decode(greedy) == prompt.code
    return told, right, linked.recomputed, linked.products


def test_a_slice_of_the_real_measure_is_what_it_says_and_shows_the_effect() -> None:
    """On the packaged model and few prompts all arms in one batch give what each gives alone, token by token; and
    linking with k = 32 is nearer to the full computation than naive, at every place."""
    loaded = smollm2()
    # As the whole measure begins.
    prompts = list(draw_prompts(loaded.tokenizer, 2, seed=1))
    found = [answers(loaded, prompt) for prompt in prompts]
    exact, *_ = answered_step_by_step(loaded.model, loaded.tokenizer, prompts[0], FULL)
    for arm in (FULL, "lego-4", CACHE_BLEND):
        told, *counted = answered_step_by_step(loaded.model, loaded.tokenizer, prompts[0], arm)
        each = (exact.exp() * (exact - told)).sum(dim=-1)
        places = [float(one) for one in (each.mean(), each[0], each[prompts[0].opening])]
        assert list(found[0][arm][:3]) == pytest.approx(places, abs=1e-9)
        assert list(found[0][arm][3:]) == counted
    for where in ("of_answer", "at_first_word", "at_first_digit"):
        full, linked, naive = (
            sum(getattr(each[name], where) for each in found) for name in (FULL, "lego-32", NAIVE)
        )
        assert 0 == full < linked < naive
    for prompt, each in zip(prompts, found, strict=True):
        lengths = [len(tokens) for tokens in (prompt.head, *prompt.documents)]
        for k in LINKED:
            rows = sum(min(k, length) for length in lengths[1:]) + len(prompt.question)
            assert each[lego(k)].recomputed == rows
        assert each[FULL].recomputed == sum(lengths) + len(prompt.question)
