"""What could have been found computed: the prompts as the tokens that workers see.

The ideal is an endless cache that knows everything at once: every block of a prompt is computed once, or was
generated in an answer. What a second turn elsewhere has to find are the whole blocks that it has in common with
what the first one has left: its prompt, and its answer without the last token, of which no keys and values exist.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from bench.demo.real.people import Turn
from bench.demo.real.plan import MODEL
from kv_pool.blocks import NAME_BYTES, chain, root, split_names
from serving.engine.assembly import geometry_of, namespace_of
from serving.model import Message, load, prompt_tokens
from serving.model.chat import Role


class Elsewhere(Struct, frozen=True):
    """A second turn in another region: tokens that the first one had left, and how many were computed again."""

    turn: Turn
    prefix: int
    recomputed: int


class Blocks(Struct, frozen=True):
    """Of the prompts that were answered: whole blocks, those that were found, and those that could have been."""

    references: int
    hits: int
    ideal: int
    elsewhere: tuple[Elsewhere, ...]


def count_blocks(turns: Sequence[Turn]) -> Blocks:
    """See the module. Loads the model's tokenizer."""
    loaded = load(MODEL)
    geometry = geometry_of(loaded.model)
    size = geometry.page_tokens
    first = root(namespace_of(loaded, geometry).digest())
    tokenizer = loaded.tokenizer
    prompts: dict[tuple[int, int], list[int]] = {}
    left: dict[tuple[int, int], list[int]] = {}
    asked: set[bytes] = set()
    generated: set[bytes] = set()
    references = hits = 0
    for turn in turns:
        said = [Message(_role(one["role"]), one["content"]) for one in turn.messages]
        tokens = prompt_tokens(tokenizer, said)
        assert len(tokens) == turn.tokens, "workers see the same tokens"
        prompts[turn.talk, turn.number] = tokens
        whole = [*tokens, *tokenizer.encode(turn.answer)][: turn.tokens + turn.generated - 1]
        left[turn.talk, turn.number] = whole
        names = split_names(chain(first, tokens, size).names)
        asked.update(names)
        answered = chain(first, whole, size).names[len(names) * NAME_BYTES :]
        generated.update(split_names(answered))
        references += len(names)
        hits += turn.cached // size
    elsewhere = []
    for turn in turns:
        if turn.is_elsewhere and (turn.talk, 0) in left:
            common = _common(prompts[turn.talk, 1], left[turn.talk, 0]) // size * size
            elsewhere.append(Elsewhere(turn, common, max(0, common - turn.cached)))
    return Blocks(references, hits, references - len(asked - generated), tuple(elsewhere))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How long two lists of tokens are alike."""
    length = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        length += 1
    return length


def _role(said: str) -> Role:
    match said:
        case "system" | "user" | "assistant":
            return said
        case _:
            raise AssertionError(said)
