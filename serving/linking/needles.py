"""Prompts made of documents: each tells one code, and the question asks for one of them.

Everything is drawn from one seed. A document's text never depends on the prompt it stands in, and a
name stands in one document only, so what is looked for has one answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from serving.model import Tokenizer

_NAMES = (
    *("Amara", "Bence", "Chloe", "Dmitri", "Elif", "Farid", "Greta", "Hassan", "Ingrid"),
    *("Jonas", "Kamala", "Lorenzo", "Mirela", "Nadia", "Oskar", "Priya", "Quentin", "Renata"),
    *("Sofia", "Tariq", "Ursula", "Viktor", "Wanda", "Ximena", "Yusuf", "Zelda"),
)
_PLACES = (
    "the old harbour",
    "the north station",
    "the botanical garden",
    "the river market",
    "the town archive",
    "the observatory",
    "the glass factory",
    "the mountain school",
)
_FILLERS = (
    "The building was opened in the spring after a long delay.",
    "Visitors usually come in the morning, when the light is good.",
    "Two of the rooms are closed for repairs until next year.",
    "A small kitchen serves soup and bread at noon.",
    "The floors are made of oak that was brought down the river.",
    "On Fridays a choir rehearses in the large hall.",
    "The roof leaks a little when the wind comes from the west.",
    "Most of the letters kept there have never been read.",
    "Children like the staircase, which turns twice on its way up.",
    "Everyone who works there knows the story of the blue door.",
)


class Document(NamedTuple):
    """A text, and the code that it tells of a person."""

    text: str
    name: str
    code: str


class Prompt(NamedTuple):
    """A question about some documents.

    head       what stands before all documents; the same in every prompt
    documents  in the order of the prompt
    question   what stands behind them, up to where the answer's first digit comes
    opening    how many tokens at its end are words of the answer already
    """

    head: tuple[int, ...]
    documents: tuple[tuple[int, ...], ...]
    question: tuple[int, ...]
    opening: int
    code: str


def draw_documents(rng: random.Random, count: int, sentences: int) -> list[Document]:
    """Documents of this many sentences each, about different people; at most 26."""
    documents = []
    for name in rng.sample(_NAMES, count):
        code = f"{rng.randrange(1000, 10_000)}"
        told = [f"This note is about {name}, who works at {rng.choice(_PLACES)}."]
        told += rng.sample(_FILLERS, sentences - 2)
        told.insert(rng.randrange(1, len(told) + 1), f"The access code of {name} is {code}.")
        documents.append(Document(" ".join(told) + "\n\n", name, code))
    return documents


def prompt_for(tokenizer: Tokenizer, documents: Sequence[Document], asked: Document) -> Prompt:
    """The question for one document's code, behind all of them."""
    begin, end = tokenizer.special("<|im_start|>"), tokenizer.special("<|im_end|>")
    encode = tokenizer.encode
    told = "Answer questions from the notes that you are given."
    head = [
        begin,
        *encode(f"system\n{told}"),
        end,
        *encode("\n"),
        begin,
        *encode("user\nNotes:\n\n"),
    ]
    asking = f"What is the access code of {asked.name}?"
    opening = encode(f"The access code of {asked.name} is ")
    question = [*encode(asking), end, *encode("\n"), begin, *encode("assistant\n"), *opening]
    return Prompt(
        tuple(head),
        tuple([tuple(encode(document.text)) for document in documents]),
        tuple(question),
        len(opening),
        asked.code,
    )
