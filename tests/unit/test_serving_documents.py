"""Documents of a chat: the same tokens whatever stands around them, in chunks that a worker can link."""

from __future__ import annotations

import itertools

import msgspec
import pytest

import k2store
from serving.api.requests import (
    CHUNK_TOKENS,
    ChatRequest,
    CompletionRequest,
    of_chat,
    of_completion,
    read,
)
from serving.engine.request import Request
from serving.model import Message, prompt_tokens
from tests.unit.serving_models import smollm2

BREAD, RIVERS = "The baker sells bread at five.", "Two rivers meet behind the station."


def asked(documents: object, question: str = "When?", **more: object) -> Request:
    """What a chat about documents becomes."""
    messages = [{"role": "user", "content": question}]
    body = {"model": "m", "messages": messages, "documents": documents, **more}
    chat = read(ChatRequest, msgspec.json.encode(body))
    return of_chat(chat, smollm2().tokenizer, 16).request


def chunks(request: Request) -> list[str]:
    """Texts of a request's chunks, and of what is behind them."""
    ends = [0, *itertools.accumulate(request.chunks), len(request.tokens)]
    decode = smollm2().tokenizer.decode
    return [decode(request.tokens[start:end]) for start, end in itertools.pairwise(ends)]


def test_documents_are_chunks_in_front_of_the_question() -> None:
    """What stands before them, each document, and the rest; a document's tokens do not depend on its place."""
    head, first, second, tail = chunks(asked([BREAD, RIVERS]))
    assert head.endswith("user\n")
    assert (first, second) == (BREAD + "\n\n", RIVERS + "\n\n")
    assert tail == "When?\nassistant\n"
    turned = asked([RIVERS, BREAD], "Where to?")
    assert chunks(turned)[1:3] == [second, first]
    one, other = asked([BREAD, RIVERS]), turned
    assert one.tokens[: one.chunks[0]] == other.tokens[: other.chunks[0]]
    assert (
        one.tokens[one.chunks[0] :][: one.chunks[1]]
        == other.tokens[sum(other.chunks[:2]) : sum(other.chunks)]
    )


def test_documents_stand_in_the_first_turn() -> None:
    """So a conversation about them goes on behind the same chunks; a system message stays before them."""
    tokenizer = smollm2().tokenizer
    turns = [
        ("system", "Be short."),
        ("user", "When?"),
        ("assistant", "At five."),
        ("user", "Why?"),
    ]
    messages = [{"role": role, "content": text} for role, text in turns]
    told = []
    for count in (2, 4):
        body = {"model": "m", "messages": messages[:count], "documents": [BREAD]}
        chat = read(ChatRequest, msgspec.json.encode(body))
        told.append(of_chat(chat, tokenizer, 16).request)
    first, second = told
    assert first.chunks == second.chunks
    assert second.tokens[: sum(first.chunks)] == first.tokens[: sum(first.chunks)]
    assert chunks(second)[-1] == ("When?\nassistant\nAt five.\nuser\nWhy?\nassistant\n")


def test_titles_and_objects() -> None:
    """An object is a text with a title above it; no documents are none, and empty ones nothing."""
    titled = chunks(asked([{"text": BREAD, "title": "Bread"}]))
    assert titled[1] == f"Bread\n{BREAD}\n\n"
    assert asked([{"text": BREAD}]).tokens == asked([BREAD]).tokens
    bare = tuple(prompt_tokens(smollm2().tokenizer, [Message("user", "When?")]))
    for nothing in (None, [], [""], [{"text": ""}]):
        request = asked(nothing)
        assert (request.tokens, request.chunks) == (bare, ())


def test_long_documents_are_cut() -> None:
    """No chunk is longer than the limit; nothing of the text is lost."""
    text = "\n\n".join(" ".join([f"Ship {ship} came in."] * 40) for ship in range(9))
    request = asked([text, BREAD])
    assert len(request.chunks) > 4
    assert max(request.chunks) <= CHUNK_TOKENS
    assert "".join(chunks(request)[1:-2]) == text + "\n\n"


@pytest.mark.parametrize("documents", ["text", [3], [{"title": "x"}], [["x"]], {"text": "x"}])
def test_what_is_no_document_is_refused(documents: object) -> None:
    """The error names the field."""
    with pytest.raises(k2store.Rejected) as refused:
        asked(documents)
    assert (refused.value.field or "").startswith("documents")


def test_documents_without_a_place_are_refused() -> None:
    """Where no user speaks, and with a bare prompt: leaving them out would change the answer."""
    tokenizer = smollm2().tokenizer
    body = {"model": "m", "messages": [{"role": "system", "content": "x"}], "documents": [BREAD]}
    with pytest.raises(k2store.Rejected, match="message of the user"):
        of_chat(read(ChatRequest, msgspec.json.encode(body)), tokenizer, 16)
    bare = {"model": "m", "prompt": "x", "documents": [BREAD]}
    with pytest.raises(k2store.Rejected, match="documents"):
        of_completion(read(CompletionRequest, msgspec.json.encode(bare)), tokenizer)
