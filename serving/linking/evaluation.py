"""Linked prompts against the full computation: how far an answer's tokens are from it, and whether the answer
is right.

Each prompt is answered by the full computation and by every arm, over the same tokens. The measure is KL(full || arm)
of a token's distribution, each behind the right ones. The answer reads "The access code of ... is 1234", and the mean
over all of its tokens is the figure that leads; beside it stand two places: its first word, where the model takes in
what it was asked, and the code's first digit, behind the words that are given, where it must have found the document.
Accuracy (the whole code, greedily) needs many more prompts. Source of the measures: EPIC, arXiv 2410.15332, §6; needles
as in its appendix.

Arms differ in which rows they compute anew over what they have placed, and in nothing else. So all of them go through
the model as parts of one batch, in pages of their own, and the right answer's digits come along behind each prompt: in
float32 the bits of a row do not depend on what else is in the batch (`serving.attention`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from serving.attention import Batch, PagedAttention, Part
from serving.attention.paged import empty_pool
from serving.linking.blending import choose_rows, looking_products
from serving.linking.chunk import Chunk
from serving.linking.lego import place_all, prefill_products, prompt_of, recomputed_rows
from serving.linking.needles import Prompt, draw_documents, prompt_for
from serving.linking.together import compile_chunks
from serving.model import Llama, LoadedModel, Tokenizer

PAGE_TOKENS: Final = 16
DOCUMENTS: Final = (2, 4, 8, 12)
SENTENCES: Final = 4
LINKED: Final = (0, 1, 4, 16, 32)
BLEND: Final = 0.15
DUMMIES: Final = 3

NAIVE: Final = "naive"
FULL: Final = "full"
LEGO_0: Final = "lego-0"
CACHE_BLEND: Final = f"blend-{BLEND:g}"


class Answer(NamedTuple):
    """What one arm did with one prompt.

    of_answer       mean divergence over the answer's tokens, nats
    at_first_word   divergence at the answer's first word
    at_first_digit  divergence at the code's first digit
    right           whether the code comes out, greedily
    recomputed      rows that were computed for it, without those of the answer
    products        multiply-adds of that
    """

    of_answer: float
    at_first_word: float
    at_first_digit: float
    right: bool
    recomputed: int
    products: int


class Site(NamedTuple):
    """Where an arm prepares a prompt: its pages, and the compiled chunks, alone and behind dummies."""

    model: Llama
    pool: Tensor
    pages: Sequence[int]
    prompt: Prompt
    plain: Sequence[Chunk]
    behind: Sequence[Chunk]

    @property
    def tokens(self) -> list[int]:
        """All of the prompt's."""
        return prompt_of(self.plain, self.prompt.question)


class Rest(NamedTuple):
    """What is left to compute when an arm has prepared its pages: these rows. `products`: spent on that already."""

    rows: Sequence[int]
    products: int = 0


def _full(site: Site) -> Rest:
    return Rest(range(len(site.tokens)))


def _lego(site: Site, k: int, chunks: Sequence[Chunk]) -> Rest:
    place_all(site.model, site.pool, site.pages, chunks)
    lengths = [len(chunk) for chunk in chunks]
    return Rest(recomputed_rows(lengths, len(site.prompt.question), k))


def _blend(site: Site) -> Rest:
    place_all(site.model, site.pool, site.pages, site.plain)
    tokens = site.tokens
    cached = len(tokens) - len(site.prompt.question)
    chosen = choose_rows(site.model, site.pool, site.pages, tokens, cached, BLEND)
    rows = chosen + list(range(cached, len(tokens)))
    return Rest(rows, looking_products(site.model, len(tokens)))


def _lego_of(k: int) -> Callable[[Site], Rest]:
    return lambda site: _lego(site, k, site.plain)


def lego(k: int) -> str:
    """The name of an arm."""
    return f"lego-{k}" if k else NAIVE


ARMS: Final[dict[str, Callable[[Site], Rest]]] = {
    FULL: _full,
    **{lego(k): _lego_of(k) for k in LINKED},
    LEGO_0: lambda site: _lego(site, 0, site.behind),
    CACHE_BLEND: _blend,
}


def draw_prompts(tokenizer: Tokenizer, count: int, seed: int) -> Iterator[Prompt]:
    """Prompts over 2, 4, 8, 12, 2, ... documents, which are drawn anew for each."""
    rng = random.Random(seed)
    for number in range(count):
        documents = draw_documents(rng, DOCUMENTS[number % len(DOCUMENTS)], SENTENCES)
        yield prompt_for(tokenizer, documents, rng.choice(documents))


@torch.inference_mode()
def answers(loaded: LoadedModel, prompt: Prompt) -> dict[str, Answer]:
    """What every arm makes of a prompt."""
    model, config = loaded.model, loaded.model.config
    code = loaded.tokenizer.encode(prompt.code)
    plain = compile_chunks(model, [prompt.head, *prompt.documents])
    dummies = [loaded.tokenizer.special("<|im_start|>")] * DUMMIES
    behind = [plain[0], *compile_chunks(model, prompt.documents, dummies=dummies)]
    # The code's last digit tells nothing that is asked for.
    tokens = prompt_of(plain, prompt.question)
    said = [*tokens, *code[:-1]]
    answer = range(len(tokens), len(said))
    width = -(-len(said) // PAGE_TOKENS)
    pool = empty_pool(width * len(ARMS), config.layers, config.kv_heads, config.head_dim)
    rests: list[Rest] = []
    parts: list[Part] = []
    for number, prepare in enumerate(ARMS.values()):
        pages = range(number * width, (number + 1) * width)
        rest = prepare(Site(model, pool, pages, prompt, plain, behind))
        rows = [*rest.rows, *answer]
        rests.append(rest)
        parts.append(Part([said[row] for row in rows], rows, pages))
    batch = Batch.of(parts, PAGE_TOKENS)
    attention = PagedAttention(pool, batch, model.rotary)
    hidden = model.forward(batch.token_ids, batch.positions, attention)
    # What stands before each of the answer's tokens: its words, which end the prompt, and the code's digits.
    before = prompt.opening + len(code)
    ends = (batch.last_rows + 1).tolist()
    logits = model.logits(torch.cat([hidden[end - before : end] for end in ends]))
    found = {}
    exact = torch.log_softmax(logits[:before].to(torch.float64), dim=-1)
    for name, rest, mine in zip(ARMS, rests, torch.split(logits, before), strict=True):
        told = torch.log_softmax(mine.to(torch.float64), dim=-1)
        each = (exact.exp() * (exact - told)).sum(dim=-1)
        found[name] = Answer(
            of_answer=float(each.mean()),
            at_first_word=float(each[0]),
            at_first_digit=float(each[prompt.opening]),
            # Who would say each digit behind the right ones says all of them by itself.
            right=told[prompt.opening :].argmax(dim=-1).tolist() == code,
            recomputed=len(rest.rows),
            products=rest.products + prefill_products(model, rest.rows),
        )
    return found
