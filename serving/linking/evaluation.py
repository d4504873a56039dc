"""Linked prompts against the full computation: how far the first answer token is from it, and whether
the answer is right.

Each prompt is answered once by the full computation and once by each arm, over the same tokens. The
measure is KL(full || arm) of a token's distribution, and the answer, which reads "The access code of ... is 1234", has
three places to look: its first word, where the model takes in what it was asked; the code's first digit, behind
the words that are given, where it must have found the document; and the mean over all of it, each token behind the
right ones. Accuracy (the whole code, greedily) needs many more prompts. Source of the measures: EPIC, arXiv
2410.15332, §6; needles as in its appendix.
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
    """What one arm did with one prompt.

    divergence    at the code's first digit, nats
    at_beginning  at the answer's first word
    of_answer     mean over the answer's tokens
    """

    divergence: float
    at_beginning: float
    of_answer: float
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
    """One arm, one prompt; `exact` are log probabilities of the answer, which the first arm, the full one, makes."""
    model, tokens = loaded.model, _tokens(prompt)
    config = model.config
    code = loaded.tokenizer.encode(prompt.code)
    digits = len(code)
    pages = range(-(-(len(tokens) + digits) // PAGE_TOKENS))
    pool = empty_pool(len(pages), config.layers, config.kv_heads, config.head_dim)
    linked = arm(model, pool, pages, prompt, stores)

    def follow(said: Sequence[int], behind: int) -> Tensor:
        """Logits of what follows on tokens that are said so far behind the prompt."""
        batch = Batch.of([Part.following(said, len(tokens) + behind, pages)], PAGE_TOKENS)
        attention = PagedAttention(pool, batch, model.rotary)
        return model.logits(model.forward(batch.token_ids, batch.positions, attention))

    opening = model.logits(linked.computed[-prompt.opening - 1 :])
    answer = [int(opening[-1].argmax())]
    while len(answer) < digits:
        answer.append(int(follow(answer[-1:], len(answer) - 1)[0].argmax()))
    right = loaded.tokenizer.decode(answer) == prompt.code
    logits = torch.cat((opening, follow(code[:-1], 0)))
    told = torch.log_softmax(logits.to(torch.float64), dim=-1)
    exact = told if exact is None else exact
    each = (exact.exp() * (exact - told)).sum(dim=-1)
    return exact, Answer(
        divergence=float(each[prompt.opening]),
        at_beginning=float(each[0]),
        of_answer=float(each.mean()),
        right=right,
        recomputed=linked.recomputed,
        products=linked.products,
    )


def _tokens(prompt: Prompt) -> list[int]:
    return [
        *prompt.head,
        *[token for document in prompt.documents for token in document],
        *prompt.question,
    ]


def _chunks(prompt: Prompt, store: ChunkStore) -> list[Chunk]:
    return [store.get(prompt.head), *[store.get(tokens) for tokens in prompt.documents]]
