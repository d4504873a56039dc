"""Linked prompts in an engine: what the library links is what the engine links, whatever cuts, shares or preempts."""

from __future__ import annotations

from collections.abc import Sequence as Several

import pytest
import torch

import k2store
from serving.engine.engine import Engine
from serving.engine.request import Request
from serving.engine.settings import EngineSettings
from serving.linking import Linker, chunk_namespace, compile_chunk, recomputed_rows
from serving.linking.chunk import Chunk
from serving.linking.naming import FILLER, chunk_blocks, filled
from serving.pages.mem_pool import MemPool
from tests.unit.serving_chunks import CHUNKS, DOCUMENTS, EXACT, HEAD, TAIL, WHOLE, reference, told
from tests.unit.serving_engines import (
    GEOMETRY,
    answer_of,
    ask,
    engine_of,
    lively,
    pool_of,
    prompt_of,
    run,
    tokens_of,
)
from tests.unit.serving_models import TINY


def linking(k: int, pool: MemPool | None = None, settings: EngineSettings | None = None) -> Engine:
    """An engine that links."""
    pool = pool or pool_of(64)
    return engine_of(pool, settings, linker=Linker(lively(), pool, CHUNKS, k))


def request_for(*documents: tuple[int, ...], count: int = 8) -> Request:
    """A question about some documents."""
    tokens, chunks = told(*documents)
    return Request(tokens=tokens, chunks=chunks, max_tokens=count)


def linked(engine: Engine, *documents: tuple[int, ...], count: int = 8) -> list[int]:
    """The answer of an engine that has nothing else to do."""
    number = engine.submit(request_for(*documents, count=count))
    return tokens_of(run(engine)[number])


def test_a_chunk_in_pieces_is_the_chunk_in_one() -> None:
    """Keys and values to the bit, wherever it is cut; and through pages and back."""
    tokens = prompt_of(41, 3)
    whole = compile_chunk(lively(), tokens)
    for cut in (1, 16, 37):
        begun = compile_chunk(lively(), tokens[:cut])
        chunk = compile_chunk(lively(), tokens[cut:], begun=begun)
        assert chunk.token_ids == tokens
        assert torch.equal(chunk.keys, whole.keys)
        assert torch.equal(chunk.values, whole.values)
    pages = whole.pages(16)
    assert pages.shape == (3, *GEOMETRY.page_shape)
    assert not pages[2, :, :, 9:].any()
    back = Chunk.of_pages(tokens, pages)
    assert torch.equal(back.keys, whole.keys)
    assert torch.equal(back.values, whole.values)


def test_all_rows_of_a_chunk_have_names() -> None:
    """The last block is filled up, with what is no token: a longer chunk shares whole blocks only."""
    tokens = prompt_of(20)
    names, contents = chunk_blocks(chunk_namespace(EXACT), tokens)
    longer, longer_contents = chunk_blocks(chunk_namespace(EXACT), prompt_of(40))
    assert names.blocks == 2
    assert longer.names[:16] == names.names[:16]
    assert longer.names[16:32] != names.names[16:]
    assert contents[:16] == longer_contents[:16]
    assert filled(tokens, 16) == (*tokens, *([FILLER] * 12))
    assert TINY.vocabulary <= FILLER


@pytest.mark.parametrize("step_tokens", [7, 512])
@pytest.mark.parametrize("k", [0, 4, WHOLE])
def test_an_engine_links_what_the_library_links(k: int, step_tokens: int) -> None:
    """The answer is that behind a prompt linked in one piece, in whatever steps; rows and chunks are counted
    by the formula; with k as long as the chunks it is the full computation's."""
    engine = linking(k, settings=EngineSettings(step_tokens_max=step_tokens, sequences_max=4))
    tokens, chunks = told(*DOCUMENTS)
    assert linked(engine, *DOCUMENTS) == reference(DOCUMENTS, k, 8)
    rows = len(recomputed_rows(chunks, len(TAIL), k))
    assert rows == sum(min(k, length) for length in chunks[1:]) + len(TAIL)
    counts = engine.links
    assert (counts.prompts, counts.compiled, counts.found) == (1, len(chunks), 0)
    assert (counts.recomputed_tokens, counts.compiled_tokens) == (rows, sum(chunks))
    assert engine.counts.computed_tokens == sum(chunks) + rows + 7
    if k == WHOLE:
        assert linked(engine, *DOCUMENTS) == answer_of(tokens, 8)
    # Other documents in another order: nothing is compiled that was before.
    other = (DOCUMENTS[3], prompt_of(17, 8), DOCUMENTS[0])
    assert linked(engine, *other) == reference(other, k, 8)
    assert engine.links.compiled_tokens == sum(chunks) + 17


def test_what_is_linked_is_nowhere_exact() -> None:
    """After a linked answer the index has chunks and no block of the prompt; who asks the same without chunks gets
    the full computation, and its cached prefix is not given to who links, nor the other way round."""
    engine = linking(0)
    tokens, _ = told(*DOCUMENTS)
    first = linked(engine, *DOCUMENTS, count=24)
    assert engine.pool.match((*tokens, *first)) == ()
    outcomes = ask(engine, tokens, 24)
    assert outcomes[-1].usage.cached == 0
    assert tokens_of(outcomes) == answer_of(tokens, 24)
    assert tokens_of(outcomes) != first
    assert linked(engine, *DOCUMENTS, count=24) == first
    blocks = sum(-(-len(part) // 16) for part in (HEAD, *DOCUMENTS))
    # All that the index has: the chunks, and the exact prompt with its answer.
    exact = (len(tokens) + 23) // 16
    assert engine.pool.census().cached == blocks + exact


def test_an_engine_that_does_not_link_computes() -> None:
    """Chunks of a request mean nothing to it: the answer is exact, and its prefix is found again."""
    engine = engine_of(pool_of(64))
    tokens, _ = told(*DOCUMENTS)
    assert linked(engine, *DOCUMENTS) == answer_of(tokens, 8)
    assert len(engine.pool.match(tokens)) == len(tokens) // 16
    assert engine.links.prompts == 0


def test_what_a_linked_prompt_found_is_told_as_cached() -> None:
    """Rows of chunks that were there and stay: all of the first, but k of each other one."""
    engine = linking(4)
    first = engine.submit(request_for(*DOCUMENTS))
    assert run(engine)[first][-1].usage.cached == 0
    again = engine.submit(request_for(*DOCUMENTS[::-1]))
    wanted = len(HEAD) + sum(len(part) - min(4, len(part)) for part in DOCUMENTS)
    assert run(engine)[again][-1].usage.cached == wanted


def test_linked_prompts_give_way_and_are_linked_again() -> None:
    """Two at a time where there is room for one and a half: answers are those of each alone, beside an exact one."""
    pool = pool_of(20, 6)
    engine = linking(4, pool, EngineSettings(step_tokens_max=24, sequences_max=4))
    some = [DOCUMENTS, DOCUMENTS[:2], DOCUMENTS[1:]]
    numbers = [engine.submit(request_for(*one, count=40)) for one in some]
    exact = engine.submit(Request(tokens=prompt_of(50), max_tokens=30))
    found = run(engine)
    assert engine.preemptions
    for number, documents in zip(numbers, some, strict=True):
        assert tokens_of(found[number]) == reference(documents, 4, 40)
    assert tokens_of(found[exact]) == answer_of(prompt_of(50), 30)
    assert engine.links.prompts == 3


def test_chunks_without_room_are_used_and_not_kept() -> None:
    """A prompt that fills all pages is linked all the same: what has no room is compiled anew each time."""
    tokens, chunks = told(*DOCUMENTS)
    pool = pool_of(-(-(len(tokens) + 8) // 16))
    engine = linking(4, pool)
    for _ in range(2):
        assert linked(engine, *DOCUMENTS) == reference(DOCUMENTS, 4, 8)
    assert engine.links.compiled_tokens > sum(chunks)


def test_an_answer_that_began_elsewhere_goes_on_behind_a_linked_prompt() -> None:
    """What another worker has said of a linked answer stands behind the prompt here."""
    engine = linking(4)
    wanted = reference(DOCUMENTS, 4, 12)
    number = engine.submit(request_for(*DOCUMENTS, count=12), wanted[:5])
    assert tokens_of(run(engine)[number]) == wanted[5:]


def test_chunks_come_down_the_tiers_and_up_again() -> None:
    """Chunks that were moved to the host are found there."""
    engine = linking(4, pool_of(64, 32))
    linked(engine, *DOCUMENTS)
    assert engine.pool.swap_out(32)
    assert linked(engine, *DOCUMENTS) == reference(DOCUMENTS, 4, 8)
    assert engine.links.found == len(DOCUMENTS) + 1
    assert engine.pool.counts.swapped_in


@pytest.mark.parametrize("chunks", [(0, 4), (50,), (-1, 8), (60,)])
def test_chunks_that_are_none_are_refused(chunks: tuple[int, ...]) -> None:
    """Each has a token, and something follows them; a refused request leaves nothing behind."""
    engine = linking(4)
    with pytest.raises(k2store.Rejected, match="chunks"):
        engine.submit(Request(tokens=prompt_of(50), chunks=chunks))
    engine.check_integrity()


class _Elsewhere:
    """A provider that is asked for chunks, and has none."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[tuple[int, ...]]]] = []

    def wants(self, number: int, tokens: tuple[int, ...], names: bytes, held: int) -> bool:
        """Nothing of prompts."""
        return False

    def wants_chunks(self, number: int, chunks: Several[tuple[int, ...]]) -> bool:
        """Whoever asks waits."""
        self.asked.append((number, list(chunks)))
        return True


def test_chunks_that_are_missing_are_looked_for_once() -> None:
    """A prompt waits while others run; each chunk is named once; those that the pool has are not."""
    remote = _Elsewhere()
    pool = pool_of(64)
    engine = engine_of(pool, remote=remote, linker=Linker(lively(), pool, CHUNKS, 4))
    first = engine.submit(request_for(DOCUMENTS[0], DOCUMENTS[1], DOCUMENTS[0]))
    assert run(engine) == {}
    assert remote.asked == [(first, [HEAD, DOCUMENTS[0], DOCUMENTS[1]])]
    engine.arrived(first)
    documents = (DOCUMENTS[0], DOCUMENTS[1], DOCUMENTS[0])
    assert tokens_of(run(engine)[first]) == reference(documents, 4, 8)
    # Twice in a prompt: compiled once, then found.
    assert (engine.links.compiled, engine.links.found) == (3, 1)
    second = engine.submit(request_for(DOCUMENTS[1], DOCUMENTS[2]))
    run(engine)
    assert remote.asked[1] == (second, [DOCUMENTS[2]])
    engine.cancel(second)
    engine.check_integrity()
