"""A model that says nonsense quickly: for trying what lies around a model, where the model is not the point.

Its weights are drawn anew from a seed and so large that every token depends on all before it: whoever mixes up two
prompts' keys and values gets other nonsense. Its tokens are the 256 bytes and the two marks of a chat; it says
printable ones only, so that its text reads as the same tokens again.
"""

from __future__ import annotations

from typing import Final

from tokenizers import pre_tokenizers

from serving.model.config import ModelConfig
from serving.model.llama import Llama
from serving.model.loading import LoadedModel
from serving.model.tokenizer import Tokenizer

TOY: Final = "toy"
_MARKS: Final = ("<|im_start|>", "<|im_end|>")
_CONFIG: Final = ModelConfig(
    vocabulary=256 + len(_MARKS),
    layers=3,
    width=48,
    query_heads=6,
    kv_heads=2,
    head_dim=8,
    feed_forward=64,
    norm_epsilon=1e-5,
    rope_theta=10_000.0,
    context_tokens=4096,
)
_STRENGTH: Final = 12.0
"""Matrices as they are drawn for training are so small that the tied embedding repeats the last token for ever."""


def toy(seed: int = 1) -> LoadedModel:
    """The toy of a seed: the same wherever it is made."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *_MARKS]
    drawn = Llama.random(_CONFIG, seed)
    weights = {
        name: weight if name == "embedding" or weight.dim() == 1 else _STRENGTH * weight
        for name, weight in drawn.weights.items()
    }
    # The embedding is the output matrix, too: a row of zeros is likelier than no other but negative ones.
    silent = [number for number, token in enumerate(tokens) if not "!" <= token <= "~"]
    silent += [number for number, token in enumerate(tokens) if token in _MARKS]
    weights["embedding"][silent] = 0.0
    tokenizer = Tokenizer(tokens, [], _MARKS, tokens.index(_MARKS[1]))
    return LoadedModel(TOY, f"seed {seed}", Llama(_CONFIG, weights), tokenizer)
