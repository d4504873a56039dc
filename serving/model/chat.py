"""The form in which SmolLM2 was taught conversations (ChatML).

::

    <|im_start|>system
    You are ...<|im_end|>
    <|im_start|>user
    What is ...?<|im_end|>
    <|im_start|>assistant

Documents of a conversation stand at the beginning of its first user message, each encoded by itself: so their tokens
depend on nothing around them, and what was computed of one can be linked into any prompt (`serving.linking`).

Each message's content is encoded as ordinary text, so it cannot forge a mark. A conversation that goes on
begins with exactly the tokens of the shorter one, which is what lets its prefix be reused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from serving.model.tokenizer import Tokenizer

Role = Literal["system", "user", "assistant"]

SYSTEM: Final = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What the model was trained to be told where a conversation has no system message."""


class Message(NamedTuple):
    """Who says what."""

    role: Role
    content: str


class Told(NamedTuple):
    """A prompt, and lengths of the chunks that it begins with: what is before the documents, then their pieces."""

    tokens: list[int]
    chunks: tuple[int, ...]


def prompt_tokens(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Tokens of a conversation, up to where the assistant's next answer begins."""
    return prompt_with(tokenizer, messages, ()).tokens


def prompt_with(
    tokenizer: Tokenizer, messages: Sequence[Message], pieces: Sequence[Sequence[int]]
) -> Told:
    """The prompt of a conversation about documents, whose tokens are `pieces`; it has a message of the user."""
    begin, end = tokenizer.special("<|im_start|>"), tokenizer.special("<|im_end|>")
    newline = tokenizer.encode("\n")
    told = [] if messages and messages[0].role == "system" else [Message("system", SYSTEM)]
    tokens: list[int] = []
    chunks: tuple[int, ...] = ()
    for message in (*told, *messages):
        text = f"{message.role}\n{message.content}"
        tokens.append(begin)
        if pieces and not chunks and message.role == "user":
            tokens += tokenizer.encode(f"{message.role}\n")
            chunks = (len(tokens), *map(len, pieces))
            tokens += [token for piece in pieces for token in piece]
            text = message.content
        tokens += [*tokenizer.encode(text), end, *newline]
    assert not pieces or chunks, "documents are somebody's who asks"
    return Told([*tokens, begin, *tokenizer.encode("assistant\n")], chunks)
