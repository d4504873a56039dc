"""Linking measured on SmolLM2: how far it is from the full computation, and what it saves.

Each prompt is answered once by the full computation and once by each arm, over the same tokens. The
measure is KL(full || arm) of the first answer token's distribution: it needs few prompts. Accuracy (the
whole code, greedily) needs many, and is told with its standard error. Source of the measures: EPIC,
arXiv 2410.15332, §6; needles as in its appendix.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from bench.serve.documents import Prompt, draw_documents, prompt_for
from bench.serve.part import Findings, Options, Table
from bench.serve.zipf import Load, count_hits
from serving.attention import Batch, PagedAttention, Part
from serving.attention.paged import empty_pool
from serving.linking import Chunk, ChunkStore, Linked, blend, link
from serving.linking.lego import compute_rows, prefill_products, recomputed_rows
from serving.model import Llama, LoadedModel, load

PAGE_TOKENS: Final = 16
PROMPTS: Final = 200
PROMPTS_QUICK: Final = 4
DOCUMENTS: Final = (2, 4, 8, 12)
SENTENCES: Final = 6
LINKED: Final = (0, 1, 4, 16, 32)
BLEND: Final = 0.15
DUMMIES: Final = 3
RESAMPLES: Final = 1000
STORE_BYTES: Final = 4 << 30
LENGTHS: Final = (512, 1024, 2048, 4096, 8192)
"""Prompt lengths whose operations are counted, in four chunks each."""

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


def measure(options: Options) -> Findings:
    """Deviation and accuracy of each arm; rows and operations; hits of a Zipf load."""
    count = PROMPTS_QUICK if options.quick else PROMPTS
    loaded = load()
    answers = answer_all(loaded, count, options)
    rng = random.Random(options.seed)
    summary = {name: _summary(each, rng) for name, each in answers.items()}
    operations = {str(length): _operations(loaded.model, length) for length in LENGTHS}
    zipf = count_hits(Load(prompts=200 if options.quick else 2000), options.seed)
    found = Findings()
    found.add(
        {
            "epic": {
                "prompts": count,
                "arms": summary,
                "prefill_products": operations,
                "zipf": {
                    "prefix_ratio": round(zipf.prefix_ratio, 4),
                    "content_ratio": round(zipf.content_ratio, 4),
                    "inert_prompts": zipf.inert,
                    "prompts": zipf.prompts,
                },
            }
        }
    )
    found.tables += _tables(summary, operations, count)
    ratio = f"{zipf.prefix_ratio:.1%} by prefix, {zipf.content_ratio:.1%} by content"
    found.tables.append(
        Table(
            "Zipf load, tokens found computed (counted)",
            ("load", "inert prompts"),
            [(ratio, f"{zipf.inert} of {zipf.prompts}")],
        )
    )
    return found


def answer_all(loaded: LoadedModel, count: int, options: Options) -> dict[str, list[Answer]]:
    """Every arm's answers to the same prompts, in the same order."""
    model = loaded.model
    rng = random.Random(options.seed)
    dummies = [loaded.tokenizer.special("<|im_start|>")] * DUMMIES
    answers: dict[str, list[Answer]] = {name: [] for name in ARMS}
    options.begin(f"linking, {count} prompts", 4.0 * count)
    for number in range(count):
        documents = draw_documents(rng, DOCUMENTS[number % len(DOCUMENTS)], SENTENCES)
        prompt = prompt_for(loaded.tokenizer, documents, rng.choice(documents))
        # Documents are drawn anew for each prompt: nothing would be found again.
        stores = Stores(ChunkStore(model, STORE_BYTES), ChunkStore(model, STORE_BYTES, dummies))
        exact: Tensor | None = None
        for name, arm in ARMS.items():
            exact, answer = _answer(loaded, arm, prompt, stores, exact)
            answers[name].append(answer)
    return answers


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


def _summary(answers: Sequence[Answer], rng: random.Random) -> dict[str, float]:
    """Means, with the standard error of each: of the divergence by resampling."""
    count = len(answers)
    divergences = [answer.divergence for answer in answers]
    accuracy = sum([answer.right for answer in answers]) / count
    means = [sum(rng.choices(divergences, k=count)) / count for _ in range(RESAMPLES)]
    middle = sum(means) / RESAMPLES
    spread = math.sqrt(sum([(mean - middle) ** 2 for mean in means]) / (RESAMPLES - 1))
    return {
        "kl": round(sum(divergences) / count, 6),
        "kl_error": round(spread, 6),
        "accuracy": round(accuracy, 4),
        "accuracy_error": round(math.sqrt(accuracy * (1 - accuracy) / count), 4),
        "recomputed_tokens": sum([answer.recomputed for answer in answers]),
        "products": sum([answer.products for answer in answers]),
    }


def _operations(model: Llama, length: int) -> dict[str, int]:
    """Multiply-adds of a prompt of four chunks and a question of 32 tokens, by arm."""
    tail = 32
    chunk = (length - tail) // 4
    lengths = [length - tail - 3 * chunk, chunk, chunk, chunk]
    return {
        FULL: prefill_products(model, range(length)),
        "lego-16": prefill_products(model, recomputed_rows(lengths, tail, 16)),
    }


def _tables(
    summary: dict[str, dict[str, float]], operations: dict[str, dict[str, int]], count: int
) -> list[Table]:
    arms = [
        (
            name,
            f"{each['kl']:.4f} ± {each['kl_error']:.4f}",
            f"{each['accuracy']:.2f} ± {each['accuracy_error']:.2f}",
            each["recomputed_tokens"],
            f"{each['products'] / summary[FULL]['products']:.1%}",
        )
        for name, each in summary.items()
    ]
    return [
        Table(
            f"Linking documents, {count} prompts of {DOCUMENTS[0]} to {DOCUMENTS[-1]} (counted)",
            ("arm", "KL to full", "needle found", "rows computed", "operations"),
            arms,
        ),
        Table(
            "Operations of a prefill by length, four chunks (counted)",
            ("tokens", *next(iter(operations.values()))),
            [(length, *each.values()) for length, each in operations.items()],
        ),
    ]
