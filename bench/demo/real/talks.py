"""What people ask, and where: all of it follows from a seed.

The texts are topics of the language reference, as Python itself brings them along for its `help()`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pydoc_data.topics import topics
from typing import Final

from msgspec import Struct

TURNS: Final = 3
"""Of a conversation."""
TALK_SHARE: Final = 0.6
"""Of the prompts, those that are turns of conversations."""
PASSAGE_CHARACTERS: Final = 850
"""Of a text; about 200 tokens."""
PASSAGES: Final = 2
"""Texts of a lookup."""

_SUBJECTS: Final = (
    *("for", "with", "raise", "class", "assert", "import", "del", "return"),
    *("global", "in", "slicings", "exceptions", "booleans", "context-managers"),
)
_SYSTEM: Final = "You are a careful assistant. Answer briefly, from the text alone."
_ASKS: Final = (
    "What is the text about? Say it in one sentence.",
    "Which mistake could a beginner make there?",
    "Say the same again for a child.",
    "What happens first, and what happens then?",
    "Name one thing that may go wrong, and why.",
    "Which part of it would you read twice?",
)
_LOOKUPS: Final = (
    "Which of the texts speaks of errors, and what does it say?",
    "What do the texts have in common?",
    "Which of the texts is about names, and which about values?",
    "Give one example that fits the first text.",
    "Answer with one word: which text is harder?",
)


class Talk(Struct, frozen=True):
    """A conversation, or a lookup: a conversation of one turn.

    system  what the model is told beforehand
    asks    what is said in each turn, and where
    """

    number: int
    system: str
    asks: tuple[tuple[str, str], ...]

    @property
    def is_lookup(self) -> bool:
        """Whether it is no conversation."""
        return len(self.asks) == 1

    @property
    def home(self) -> str:
        """Where it begins."""
        return self.asks[0][1]


def talks(prompts: int, regions: Sequence[str], seed: int) -> list[Talk]:
    """So many prompts, in order of beginning, all regions alike."""
    rng = random.Random(seed)
    subjects: list[str] = [name for name in _SUBJECTS if name in topics]
    weights = [1 / rank for rank in range(1, len(subjects) + 1)]
    found: list[Talk] = []
    left = prompts
    conversations = max(1, round(prompts * TALK_SHARE / TURNS)) if prompts >= TURNS else 0
    lookups = prompts - conversations * TURNS
    while left:
        number = len(found)
        home = number % len(regions)
        # Conversations and lookups alternate, as far as there are any.
        talk = conversations * TURNS >= lookups if number % 2 else conversations > 0
        if talk:
            conversations -= 1
            (subject,) = rng.choices(subjects, weights)
            # Two in three go elsewhere after their first turn, and stay there.
            away = (home + (number // 2 % TURNS != TURNS - 1)) % len(regions)
            asks = rng.sample(_ASKS, TURNS)
            places = [regions[home], regions[away], regions[away]]
            system = f"{_SYSTEM} The text: {passage(subject)}"
            found.append(Talk(number, system, tuple(zip(asks, places, strict=True))))
            left -= TURNS
        else:
            lookups -= 1
            chosen = sorted(_different(rng, subjects, weights), key=subjects.index)
            texts = " ".join(
                [f"Text {place + 1}: {passage(one)}" for place, one in enumerate(chosen)]
            )
            found.append(
                Talk(number, f"{_SYSTEM} {texts}", ((rng.choice(_LOOKUPS), regions[home]),))
            )
            left -= 1
    return found


def passage(subject: str) -> str:
    """The beginning of a topic, in whole sentences."""
    lines = [line.strip() for line in topics[subject].splitlines()]
    text = " ".join([line for line in lines if re.fullmatch(r"[*=~-]+", line) is None])
    text = re.sub(r"\s+", " ", text).strip()[:PASSAGE_CHARACTERS]
    whole = text.rpartition(". ")[0]
    return f"{whole}." if whole else text


def _different(rng: random.Random, subjects: Sequence[str], weights: Sequence[float]) -> list[str]:
    chosen: list[str] = []
    while len(chosen) < PASSAGES:
        (subject,) = rng.choices(subjects, weights)
        if subject not in chosen:
            chosen.append(subject)
    return chosen
