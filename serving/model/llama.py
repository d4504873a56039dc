"""A Llama in plain torch: RMSNorm, rotary grouped-query attention, gated MLP, tied embedding.

The model holds weights and nothing else; where keys and values are kept, what is attended and how is
the attention object's. Products run over a number of rows that is a multiple of `ROW_TILE`, so that the
bits of a row do not depend on how many others came along (`serving.attention.blockwise`).

It trains, too: give it weights that require gradients and an attention object that lets them through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from serving.attention.blockwise import padding_to_tile
from serving.attention.protocol import Attention
from serving.attention.rotary import Rotary
from serving.model.config import ModelConfig


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight.

    Matrices are ``[out, in]``. Query, key and value are one matrix, and so are gate and up: two large
    products are quicker than five small ones.
    """
    heads = config.query_heads + 2 * config.kv_heads
    found: dict[str, tuple[int, ...]] = {
        "embedding": (config.vocabulary, config.width),
        "norm": (config.width,),
    }
    for layer in range(config.layers):
        found |= {
            f"layers.{layer}.attention_norm": (config.width,),
            f"layers.{layer}.query_key_value": (heads * config.head_dim, config.width),
            f"layers.{layer}.output": (config.width, config.query_heads * config.head_dim),
            f"layers.{layer}.mlp_norm": (config.width,),
            f"layers.{layer}.gate_up": (2 * config.feed_forward, config.width),
            f"layers.{layer}.down": (config.width, config.feed_forward),
        }
    return found


class Llama:
    """Weights by name, as `shapes` lists them; all of one dtype, on one device."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
        """Take the weights as they are; ``ValueError`` where names or shapes are not the config's."""
        found = {name: tuple(weight.shape) for name, weight in weights.items()}
        wanted = shapes(config)
        if found != wanted:
            wrong = sorted(found.items() ^ wanted.items())
            raise ValueError(f"weights that do not fit the model: {wrong[:4]}")
        self.config = config
        self.weights = dict(weights)
        self.rotary = Rotary(config.head_dim, config.rope_theta)

    @classmethod
    def random(cls, config: ModelConfig, seed: int) -> Self:
        """Weights drawn as for training: matrices N(0, 0.02), those into the residual scaled down."""
        generator = torch.Generator().manual_seed(seed)
        weights = {}
        for name, shape in shapes(config).items():
            if name.endswith("norm"):
                weights[name] = torch.ones(shape)
                continue
            spread = 0.02
            if name.endswith(("output", "down")):
                spread /= math.sqrt(2 * config.layers)
            weights[name] = torch.randn(shape, generator=generator) * spread
        return cls(config, weights)

    def forward(self, token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Run ``[tokens]`` through all layers; gives ``[tokens, width]`` after the last norm.

        positions  ``[tokens]``; part of every model's call, of use to models with learned positions
        """
        config = self.config
        count = token_ids.shape[0]
        assert positions.shape == token_ids.shape
        padding = padding_to_tile(count)
        sizes = [config.query_heads, config.kv_heads, config.kv_heads]
        hidden = functional.pad(self.weights["embedding"][token_ids], (0, 0, 0, padding))
        for layer in range(config.layers):
            name = f"layers.{layer}."
            normed = self._norm(hidden, name + "attention_norm")
            heads = functional.linear(normed, self.weights[name + "query_key_value"])[:count]
            query, key, value = torch.split(heads.view(count, -1, config.head_dim), sizes, dim=1)
            attended = attention(layer, query, key, value).flatten(1)
            attended = functional.pad(attended, (0, 0, 0, padding))
            hidden = hidden + functional.linear(attended, self.weights[name + "output"])
            normed = self._norm(hidden, name + "mlp_norm")
            gate, up = functional.linear(normed, self.weights[name + "gate_up"]).chunk(2, dim=-1)
            inner = functional.silu(gate) * up
            hidden = hidden + functional.linear(inner, self.weights[name + "down"])
        return self._norm(hidden, "norm")[:count]

    def logits(self, hidden: Tensor) -> Tensor:
        """``[rows, width]`` to ``[rows, vocabulary]``."""
        count = hidden.shape[0]
        padded = functional.pad(hidden, (0, 0, 0, padding_to_tile(count)))
        return functional.linear(padded, self.weights["embedding"])[:count]

    def _norm(self, hidden: Tensor, name: str) -> Tensor:
        width = (self.config.width,)
        return functional.rms_norm(hidden, width, self.weights[name], self.config.norm_epsilon)
