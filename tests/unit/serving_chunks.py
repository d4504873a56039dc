"""Prompts of chunks for the tiny model, and what follows on them when the library links them in one piece."""

from __future__ import annotations

from functools import cache

from kv_pool.namespace import Namespace
from serving.attention import Part
from serving.linking import chunk_namespace, compile_chunk, link
from tests.unit.serving_engines import GEOMETRY, lively, prompt_of
from tests.unit.serving_models import pool_for, step

EXACT = Namespace(
    tenant="",
    model="lively",
    revision="1",
    dtype="float32",
    layout=GEOMETRY.layout,
    block_tokens=GEOMETRY.page_tokens,
)
CHUNKS = chunk_namespace(EXACT).digest()
HEAD, TAIL = prompt_of(9, 5), prompt_of(7, 6)
DOCUMENTS = tuple(prompt_of(length, seed) for length, seed in ((32, 1), (21, 2), (5, 3), (40, 4)))
WHOLE = 40
"""As long as the longest document."""


def told(*documents: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The prompt about some documents, and the lengths of its chunks."""
    parts = (HEAD, *documents)
    tokens = tuple(token for part in (*parts, TAIL) for token in part)
    return tokens, tuple(map(len, parts))


@cache
def reference(documents: tuple[tuple[int, ...], ...], k: int, count: int) -> list[int]:
    """What follows on a prompt that the library has linked in one piece."""
    model = lively()
    chunks = [compile_chunk(model, part) for part in (HEAD, *documents)]
    tokens, _ = told(*documents)
    pages = range(-(-(len(tokens) + count) // GEOMETRY.page_tokens))
    pool = pool_for(model, len(pages))
    hidden = link(model, pool, pages, chunks, TAIL, k).hidden
    answer = [int(model.logits(hidden[None]).argmax())]
    while len(answer) < count:
        at = len(tokens) + len(answer) - 1
        rows = step(model, pool, [Part.following(answer[-1:], at, pages)])
        answer.append(int(model.logits(rows).argmax()))
    return answer
