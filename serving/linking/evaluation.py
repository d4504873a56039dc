"""Linked prompts against the full computation: how far the first answer token is from it, and whether
the answer is right.

Each prompt is answered once by the full computation and once by each arm, over the same tokens. The
measure is KL(full || arm) of the first answer token's distribution: it needs few prompts. Accuracy (the
whole code, greedily) needs many. Source of the measures: EPIC, arXiv 2410.15332, §6; needles as in its
appendix.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from serving.attention import Batch, PagedAttention, Part
from serving.attention.paged import empty_pool
from serving.linking.blending import blend
from serving.linking.chunk import Chunk
from serving.linking.lego import Linked, compute_rows, link
from serving.linking.needles import Prompt, draw_documents, prompt_for
from serving.linking.store import ChunkStore
from serving.model import Llama, LoadedModel

PAGE_TOKENS: Final = 16
DOCUMENTS: Final = (2, 4, 8, 12)
SENTENCES: Final = 4
LINKED: Final = (0, 1, 4, 16, 32)
BLEND: Final = 0.15
DUMMIES: Final = 3
STORE_BYTES: Final = 4 << 30

NAIVE: Final = "naive"
FULL: Final = "full"
LEGO_0: Final = "lego-0"
CACHE_BLEND: Final = f"blend-{BLEND:g}"


class Answer(NamedTuple):
    """What one arm did with one prompt."""

    divergence: float
    right: bool
    recomputed: int
    products: int


class Stores(NamedTuple):
    """Compiled chunks: alone, and behind dummies."""

    plain: ChunkStore
    behind: ChunkStore


Arm = Callable[[Llama, Tensor, Sequence[int], Prompt, Stores], Linked]


def _lego(k: int) -> Arm:
    def arm(
        model: Llama, pool: Tensor, pages: Sequence[int], prompt: Prompt, stores: Stores
    ) -> Linked:
        return link(model, pool, pages, _chunks(prompt, stores.plain), prompt.question, k)

    return arm


def _lego_0(
    model: Llama, pool: Tensor, pages: Sequence[int], prompt: Prompt, stores: Stores
) -> Linked:
    head = stores.plain.get(prompt.head)
    chunks = [head, *[stores.behind.get(tokens) for tokens in prompt.documents]]
    return link(model, pool, pages, chunks, prompt.question, 0)


def _blend(
    model: Llama, pool: Tensor, pages: Sequence[int], prompt: Prompt, stores: Stores
) -> Linked:
    chunks = _chunks(prompt, stores.plain)
    return blend(model, pool, pages, chunks, prompt.question, BLEND).linked


@torch.inference_mode()
def _full(model: Llama, pool: Tensor, pages: Sequence[int], prompt: Prompt, _: Stores) -> Linked:
    tokens = _tokens(prompt)
    return compute_rows(model, pool, pages, tokens, range(len(tokens)))


def _name(k: int) -> str:
    return f"lego-{k}" if k else NAIVE


ARMS: Final[dict[str, Arm]] = {
    FULL: _full,
    **{_name(k): _lego(k) for k in LINKED},
    LEGO_0: _lego_0,
    CACHE_BLEND: _blend,
}


def answers(loaded: LoadedModel, count: int, seed: int) -> Iterator[dict[str, Answer]]:
    """What every arm makes of each of `count` prompts."""
    model = loaded.model
    rng = random.Random(seed)
    dummies = [loaded.tokenizer.special("<|im_start|>")] * DUMMIES
    for number in range(count):
        documents = draw_documents(rng, DOCUMENTS[number % len(DOCUMENTS)], SENTENCES)
        prompt = prompt_for(loaded.tokenizer, documents, rng.choice(documents))
        # Documents are drawn anew for each prompt: nothing would be found again.
        stores = Stores(ChunkStore(model, STORE_BYTES), ChunkStore(model, STORE_BYTES, dummies))
        exact: Tensor | None = None
        found: dict[str, Answer] = {}
        for name, arm in ARMS.items():
            exact, found[name] = _answer(loaded, arm, prompt, stores, exact)
        yield found


@torch.inference_mode()
def _answer(
    loaded: LoadedModel, arm: Arm, prompt: Prompt, stores: Stores, exact: Tensor | None
) -> tuple[Tensor, Answer]:
    """One arm, one prompt; `exact` are the full computation's log probabilities, made by the first arm."""
    model, tokens = loaded.model, _tokens(prompt)
    config = model.config
    digits = len(prompt.code)
    pages = range(-(-(len(tokens) + digits) // PAGE_TOKENS))
    pool = empty_pool(len(pages), config.layers, config.kv_heads, config.head_dim)
    linked = arm(model, pool, pages, prompt, stores)
    logits = model.logits(linked.hidden[None])[0]
    told = torch.log_softmax(logits.to(torch.float64), dim=-1)
    exact = told if exact is None else exact
    divergence = float((exact.exp() * (exact - told)).sum())
    answer = [int(logits.argmax())]
    while len(answer) < digits:
        part = Part.following(answer[-1:], len(tokens) + len(answer) - 1, pages)
        batch = Batch.of([part], PAGE_TOKENS)
        attention = PagedAttention(pool, batch, model.rotary)
        hidden = model.forward(batch.token_ids, batch.positions, attention)
        answer.append(int(model.logits(hidden)[0].argmax()))
    right = loaded.tokenizer.decode(answer) == prompt.code
    return exact, Answer(divergence, right, linked.recomputed, linked.products)


def _tokens(prompt: Prompt) -> list[int]:
    return [
        *prompt.head,
        *[token for document in prompt.documents for token in document],
        *prompt.question,
    ]


def _chunks(prompt: Prompt, store: ChunkStore) -> list[Chunk]:
    return [store.get(prompt.head), *[store.get(tokens) for tokens in prompt.documents]]
