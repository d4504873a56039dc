"""Conversations: what users say, turn by turn, over a shared beginning. All of it follows from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

SYSTEM = (
    "You are a careful assistant. Answer briefly, in plain words, and say so when you do not know."
)

_TOPICS = (
    "the harvest of apples in a small orchard",
    "how bridges carry the weight of trains",
    "the tides in a narrow bay",
    "keeping bees on the roof of a house",
    "the first printed newspapers",
    "why bread rises in a warm kitchen",
    "the migration of storks in autumn",
    "how glass is blown by hand",
)
_ASKS = (
    "Tell me one thing about {topic}.",
    "And what would surprise most people about that?",
    "Say the same again for a child of six.",
    "What should I read next about {topic}?",
    "Name two mistakes that beginners make there.",
    "Sum up what you have told me so far.",
)
_SENTENCES = (
    "The council met on Monday and spoke about {topic}.",
    "Nobody had expected that {topic} would take up the whole evening.",
    "A report of twelve pages about {topic} was handed out beforehand.",
    "Two members left early because they had heard enough about {topic}.",
    "In the end it was agreed to come back to {topic} in the spring.",
    "The minutes say little more than that {topic} was discussed.",
)


class Talk(NamedTuple):
    """A conversation: its name, what the system says, and what the user says in each turn."""

    name: str
    system: str
    asks: tuple[str, ...]


def talks(count: int, turns: int, seed: int) -> list[Talk]:
    """Conversations about different things."""
    rng = random.Random(seed)
    topics = rng.sample(_TOPICS, len(_TOPICS))
    return [
        Talk(
            f"talk-{number}",
            SYSTEM,
            tuple(
                [
                    _ASKS[turn % len(_ASKS)].format(topic=topics[number % len(topics)])
                    for turn in range(turns)
                ]
            ),
        )
        for number in range(count)
    ]


def documents(count: int, sentences: int, seed: int) -> list[str]:
    """Texts, none of which begins like another one."""
    rng = random.Random(seed)
    texts = []
    for number in range(count):
        topic = _TOPICS[number % len(_TOPICS)]
        chosen = [rng.choice(_SENTENCES).format(topic=topic) for _ in range(sentences)]
        texts.append(f"Document {number}. {' '.join(chosen)}")
    return texts


def talk_each(texts: Sequence[str]) -> list[Talk]:
    """A short conversation about each of some documents."""
    ask = _ASKS[0].format(topic="the document")
    return [Talk(f"each-{number}", told_of(text), (ask,)) for number, text in enumerate(texts)]


def talks_over(texts: Sequence[str], count: int, turns: int, seed: int) -> list[Talk]:
    """Conversations each of which is about one of some documents, drawn by Zipf's law."""
    rng = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(len(texts))]
    found = []
    for number in range(count):
        (text,) = rng.choices(texts, weights)
        asks = [rng.choice(_ASKS).format(topic="the document") for _ in range(turns)]
        found.append(Talk(f"talk-{number}", told_of(text), tuple(asks)))
    return found


def told_of(text: str) -> str:
    """What the system says where a conversation is about a document."""
    return f"{SYSTEM} {text}"
