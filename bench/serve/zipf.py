"""Which part of a load of retrieval prompts is found computed: by prefix, and whatever the position.

Counted, without a model: documents are drawn with Zipf's weights, prompts are some of them in some
order, and both caches are unlimited. A prompt is *link inert* when all its documents are found as a plain
prefix already: what a linker shows on such prompts is prefix caching.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from kv_pool.blocks import NAME_BYTES, chain, root
from kv_pool.namespace import Namespace
from serving.linking.chunk import chunk_name

BLOCK_TOKENS = 16


class Load(NamedTuple):
    """A load of prompts.

    documents  that there are, each of `document_tokens`
    prompts    that ask, each of `per_prompt` different documents
    exponent   of Zipf's law: document i is drawn with weight 1 / i ** exponent
    """

    documents: int = 200
    document_tokens: int = 128
    prompts: int = 1000
    per_prompt: int = 4
    exponent: float = 1.0
    head_tokens: int = 32
    question_tokens: int = 32


class Hits(NamedTuple):
    """Tokens of all prompts, of those the ones found by prefix and by content, and inert prompts."""

    tokens: int
    prefix: int
    content: int
    inert: int
    prompts: int

    @property
    def prefix_ratio(self) -> float:
        """Of the tokens, found as a prefix."""
        return self.prefix / self.tokens

    @property
    def content_ratio(self) -> float:
        """Of the tokens, found in a chunk of the same content or in the prefix."""
        return self.content / self.tokens


def count_hits(load: Load, seed: int) -> Hits:
    """Run the load once over both caches, each empty in the beginning."""
    rng = random.Random(seed)
    namespace = Namespace(
        tenant="",
        model="zipf",
        revision="0",
        dtype="float32",
        layout="any",
        block_tokens=BLOCK_TOKENS,
    )
    first = root(namespace.digest())
    texts = [_tokens(rng, load.document_tokens) for _ in range(load.documents)]
    head = _tokens(rng, load.head_tokens)
    weights = [1 / (rank + 1) ** load.exponent for rank in range(load.documents)]
    blocks: set[bytes] = set()
    chunks: set[bytes] = set()
    tokens = prefix = content = inert = 0
    for _ in range(load.prompts):
        chosen = _choose(rng, weights, load.per_prompt)
        prompt = [*head, *[token for number in chosen for token in texts[number]]]
        prompt += _tokens(rng, load.question_tokens)
        names = chain(first, prompt, BLOCK_TOKENS).names
        found = 0
        while found < len(names) and names[found : found + NAME_BYTES] in blocks:
            found += NAME_BYTES
        reused = found // NAME_BYTES * BLOCK_TOKENS
        blocks.update([names[at : at + NAME_BYTES] for at in range(0, len(names), NAME_BYTES)])
        linked = load.head_tokens if chunks else 0
        for number in chosen:
            name = chunk_name(texts[number], 0)
            linked += load.document_tokens if name in chunks else 0
            chunks.add(name)
        tokens += len(prompt)
        prefix += reused
        content += max(linked, reused)
        inert += reused >= len(prompt) - load.question_tokens - BLOCK_TOKENS
    return Hits(tokens, prefix, content, inert, load.prompts)


def _tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(1 << 16) for _ in range(count)]


def _choose(rng: random.Random, weights: Sequence[float], count: int) -> list[int]:
    """Different documents, in the order in which they were drawn."""
    chosen: list[int] = []
    while len(chosen) < count:
        (number,) = rng.choices(range(len(weights)), weights)
        if number not in chosen:
            chosen.append(number)
    return chosen
