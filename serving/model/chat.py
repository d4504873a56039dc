"""The form in which SmolLM2 was taught conversations (ChatML).

::

    <|im_start|>system
    You are ...<|im_end|>
    <|im_start|>user
    What is ...?<|im_end|>
    <|im_start|>assistant

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


def prompt_tokens(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Tokens of a conversation, up to where the assistant's next answer begins."""
    begin, end = tokenizer.special("<|im_start|>"), tokenizer.special("<|im_end|>")
    newline = tokenizer.encode("\n")
    told = [] if messages and messages[0].role == "system" else [Message("system", SYSTEM)]
    tokens: list[int] = []
    for message in (*told, *messages):
        tokens += [begin, *tokenizer.encode(f"{message.role}\n{message.content}"), end, *newline]
    return [*tokens, begin, *tokenizer.encode("assistant\n")]
