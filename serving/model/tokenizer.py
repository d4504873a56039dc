"""Text to tokens and back: byte-pair encoding over bytes, as GPT-2's, with digits one by one.

Special tokens (the marks of a chat) are recognised in templates only, never in what people write: a
message that contains the mark of the end of a message is just text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Encoder
from tokenizers.decoders import DecodeStream

from k2store.errors import Corruption
from serving.model.gguf import GgufFile

_CONTROL: Final = 3
"""How the file's list of kinds marks a special token."""

_SCHEMES: Final = {"smollm"}


class Tokenizer:
    """Encodes and decodes; immutable, may be shared between threads.

    vocabulary  number of tokens
    end         the token that ends an answer
    """

    def __init__(
        self, tokens: Sequence[str], merges: Sequence[str], special: Sequence[str], end: int
    ) -> None:
        """Tokens in the order of their numbers, merges by rank as ``left right``."""
        ranks = {token: number for number, token in enumerate(tokens)}
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
        if len(ranks) != len(tokens) or not 0 <= end < len(tokens):
            raise Corruption("a token stands twice, or the end is none of them", what="tokenizer")
        try:
            self._encoder = Encoder(models.BPE(vocab=ranks, merges=pairs))
        except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
            raise Corruption(f"tokens and merges do not fit: {error}", what="tokenizer") from None
        self._encoder.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
        self._encoder.decoder = decoders.ByteLevel()
        self._encoder.add_special_tokens([AddedToken(text, special=True) for text in special])
        self._encoder.encode_special_tokens = True
        self._special = {text: ranks[text] for text in special}
        self.vocabulary = len(tokens)
        self.end = end

    @classmethod
    def of(cls, file: GgufFile) -> Tokenizer:
        """The tokenizer in the metadata of a model's file."""
        model, scheme = file.text("tokenizer.ggml.model"), file.text("tokenizer.ggml.pre")
        if model != "gpt2" or scheme not in _SCHEMES:
            raise Corruption(f"tokenizer {model}/{scheme} is not read", what="tokenizer")
        tokens = file.texts("tokenizer.ggml.tokens")
        kinds = file.integers("tokenizer.ggml.token_type")
        if len(kinds) != len(tokens):
            raise Corruption("tokens and their kinds differ in number", what="tokenizer")
        special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
        end = file.integer("tokenizer.ggml.eos_token_id")
        return cls(tokens, file.texts("tokenizer.ggml.merges"), special, end)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, all of it ordinary."""
        tokens: list[int] = self._encoder.encode(text, add_special_tokens=False).ids
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        text: str = self._encoder.decode(list(tokens), skip_special_tokens=True)
        return text

    def special(self, text: str) -> int:
        """The number of a special token; ``KeyError`` where there is none."""
        return self._special[text]

    def stream(self) -> TextStream:
        """Decode token by token."""
        return TextStream(self._encoder)


class TextStream:
    """Text as its tokens come: a character whose bytes lie in several tokens is given once it is whole."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._stream = DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        """The text that this token completes; often all of its own, sometimes none."""
        return self._stream.step(self._encoder, token) or ""
