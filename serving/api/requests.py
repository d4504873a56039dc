"""Bodies of requests, and what they ask of the engine."""

from __future__ import annotations

import secrets
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

import k2store
from serving.engine.request import Request, Sampling
from serving.linking.splitting import split_semantic
from serving.model import Message, Tokenizer, Told, prompt_with

T = TypeVar("T", bound=Struct)

CHUNK_TOKENS: Final = 512
"""Longer documents are cut, at paragraphs if possible: what is computed alone knows no other piece."""

COMPLETION_TOKENS_DEFAULT: Final = 16
"""What OpenAI's API generates for a bare prompt when it is not told."""

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


class TextPart(Struct, frozen=True, tag_field="type", tag="text"):
    """A part of a message's content; there is none but text."""

    text: str


class ChatMessage(Struct, frozen=True):
    """Who says what."""

    role: str
    content: str | list[TextPart] | None = None


class Document(Struct, frozen=True):
    """A text that a conversation is about; an extension of the API."""

    text: str
    title: str = ""


class StreamOptions(Struct, frozen=True):
    """What a stream has beside the answer."""

    include_usage: bool = False


class _Common(Struct, frozen=True, kw_only=True):
    """Fields of both kinds of request. Those that are refused stand here so that they are seen."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int | None = None
    best_of: int | None = None
    logit_bias: dict[str, float] | None = None
    documents: list[str | Document] | None = None


class ChatRequest(_Common, frozen=True, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[object] | None = None
    functions: list[object] | None = None
    response_format: dict[str, object] | None = None


class CompletionRequest(_Common, frozen=True, kw_only=True):
    """The body of /v1/completions."""

    prompt: str | list[str | int | list[int]]
    logprobs: int | None = None
    echo: bool | None = None
    suffix: str | None = None


class Asked(Struct, frozen=True):
    """A request as it goes to the engine, and how its answer is told."""

    request: Request
    streams: bool
    includes_usage: bool


def read(kind: type[T], body: bytes) -> T:
    """A body; `k2store.Rejected` for what is none."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        raise k2store.Rejected(message, field=place.rstrip("`") or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise k2store.Rejected(f"the body is not JSON: {error}") from None


def of_chat(body: ChatRequest, tokenizer: Tokenizer, answer_tokens: int) -> Asked:
    """What a conversation asks for; `answer_tokens` unless it says itself."""
    _refuse("tools", given=bool(body.tools or body.functions))
    form = (body.response_format or {}).get("type", "text")
    _refuse("response_format", given=form != "text")
    if body.top_logprobs is not None and not body.logprobs:
        raise k2store.Rejected("top_logprobs goes with logprobs", field="top_logprobs")
    if not body.messages:
        raise k2store.Rejected("a conversation has at least one message", field="messages")
    messages = [_message(number, one) for number, one in enumerate(body.messages)]
    pieces = [
        piece
        for document in body.documents or []
        for piece in split_semantic(_text(document), tokenizer, CHUNK_TOKENS)
    ]
    if pieces and not any(message.role == "user" for message in messages):
        raise k2store.Rejected("documents go with a message of the user", field="documents")
    return _asked(
        body,
        prompt_with(tokenizer, messages, pieces),
        body.max_completion_tokens or body.max_tokens,
        answer_tokens,
        (body.top_logprobs or 0) if body.logprobs else None,
        tokenizer,
    )


def of_completion(body: CompletionRequest, tokenizer: Tokenizer) -> Asked:
    """What a bare prompt asks for."""
    _refuse("echo", given=bool(body.echo))
    _refuse("suffix", given=bool(body.suffix))
    # A bare prompt has no place for them.
    _refuse("documents", given=bool(body.documents))
    told = Told(_prompt(body.prompt, tokenizer), ())
    return _asked(body, told, body.max_tokens, COMPLETION_TOKENS_DEFAULT, body.logprobs, tokenizer)


def _asked(
    body: _Common,
    told: Told,
    max_tokens: int | None,
    answer_tokens: int,
    logprobs: int | None,
    tokenizer: Tokenizer,
) -> Asked:
    _refuse("n", given=body.n not in {None, 1})
    _refuse("best_of", given=body.best_of not in {None, 1})
    _refuse("logit_bias", given=bool(body.logit_bias))
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    sampling = Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k or 0,
        seed=secrets.randbits(63) if body.seed is None else body.seed,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
    )
    request = Request(
        tokens=tuple(told.tokens),
        chunks=told.chunks,
        max_tokens=answer_tokens if max_tokens is None else max_tokens,
        sampling=sampling,
        stop=tuple(stop),
        ends=frozenset({tokenizer.end}),
        logprobs=logprobs,
    )
    options = body.stream_options or StreamOptions()
    return Asked(request, bool(body.stream), options.include_usage)


def _message(number: int, message: ChatMessage) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise k2store.Rejected(
            f"a message is of {', '.join(_ROLES)}, not {message.role}",
            field=f"messages[{number}].role",
        )
    content = message.content
    if isinstance(content, list):
        content = "".join([part.text for part in content])
    return Message(role, content or "")  # type: ignore[arg-type] # the table has roles only


def _text(document: str | Document) -> str:
    """A document as it is read: its title above it, a paragraph of its own."""
    if isinstance(document, str):
        return document + "\n\n" if document else ""
    text = f"{document.title}\n{document.text}" if document.title else document.text
    return text + "\n\n" if text else ""


def _prompt(prompt: str | list[str | int | list[int]], tokenizer: Tokenizer) -> list[int]:
    """Tokens of one prompt: a text, tokens, or a list of one of those."""
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    tokens = [one for one in prompt if isinstance(one, int)]
    if len(tokens) == len(prompt):
        return tokens
    if len(prompt) != 1:
        raise k2store.Rejected("one request has one prompt", field="prompt")
    only = prompt[0]
    return tokenizer.encode(only) if isinstance(only, str) else _prompt([*_list(only)], tokenizer)


def _list(value: int | list[int]) -> list[int]:
    return [value] if isinstance(value, int) else value


def _refuse(field: str, *, given: bool) -> None:
    if given:
        raise k2store.Rejected(f"{field} is not served here", field=field)
