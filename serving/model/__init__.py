"""The models that workers run: weights, tokenizer, and the Llama over both.

::

    GGUF file ── gguf ──▶ conversion ──▶ safetensors in the user's cache ── mapped ──▶ Llama
         └────── metadata ─────────────▶ tokenizer ──▶ chat

A model is called with tokens, positions and an attention object (`serving.attention`), and has no state
beside its weights. The default is SmolLM2-135M-Instruct, which comes in a package and answers in plain
torch on two cores.
"""

from __future__ import annotations

from serving.model.chat import Message, Told, prompt_tokens, prompt_with
from serving.model.config import ModelConfig
from serving.model.llama import Llama
from serving.model.loading import SMOLLM2, LoadedModel, load
from serving.model.tokenizer import Tokenizer

__all__ = [
    "SMOLLM2",
    "Llama",
    "LoadedModel",
    "Message",
    "ModelConfig",
    "Tokenizer",
    "Told",
    "load",
    "prompt_tokens",
    "prompt_with",
]
