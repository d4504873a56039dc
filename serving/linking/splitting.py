"""KVSplit: where a text is cut into chunks (EPIC, arXiv 2410.15332, §4.1).

Chunks are found again by their tokens, so the same text must be cut at the same places whatever
surrounds it: cut each document by itself, before it is put into a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from serving.model import Tokenizer

_PARAGRAPH = re.compile(r"(?<=\n\n)")
_SENTENCE = re.compile(r"(?<=[.!?\n])(?=\s)")


def split_fixed(token_ids: Sequence[int], chunk_tokens: int) -> list[list[int]]:
    """Pieces of `chunk_tokens`; the last one may be shorter."""
    assert chunk_tokens > 0
    return [
        list(token_ids[at : at + chunk_tokens]) for at in range(0, len(token_ids), chunk_tokens)
    ]


def split_semantic(text: str, tokenizer: Tokenizer, chunk_tokens: int) -> list[list[int]]:
    """Whole paragraphs, as many as fit; those that do not fit by sentences; those by tokens.

    Each piece is encoded by itself, so a piece's tokens do not depend on its neighbours.
    """
    assert chunk_tokens > 0
    chunks: list[list[int]] = []
    gathered: list[int] = []
    for piece in _pieces(text, tokenizer, chunk_tokens):
        if gathered and len(gathered) + len(piece) > chunk_tokens:
            chunks.append(gathered)
            gathered = []
        gathered = gathered + piece
    return [*chunks, gathered] if gathered else chunks


def _pieces(text: str, tokenizer: Tokenizer, chunk_tokens: int) -> list[list[int]]:
    pieces: list[list[int]] = []
    for paragraph in filter(None, _PARAGRAPH.split(text)):
        whole = tokenizer.encode(paragraph)
        if len(whole) <= chunk_tokens:
            pieces.append(whole)
            continue
        for sentence in filter(None, _SENTENCE.split(paragraph)):
            pieces += split_fixed(tokenizer.encode(sentence), chunk_tokens)
    return pieces
