"""The shape of a Llama."""

from __future__ import annotations

import msgspec


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and constants of a Llama-style decoder; the output matrix is the embedding.

    vocabulary      number of tokens
    width           of the residual stream
    feed_forward    inner width of the gated MLP
    norm_epsilon    of RMSNorm
    rope_theta      base of the rotary frequencies
    context_tokens  longest sequence that the model was made for
    """

    vocabulary: int
    layers: int
    width: int
    query_heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    norm_epsilon: float
    rope_theta: float
    context_tokens: int

    def __post_init__(self) -> None:
        counts = (
            self.vocabulary,
            self.layers,
            self.width,
            self.query_heads,
            self.kv_heads,
            self.head_dim,
            self.feed_forward,
            self.context_tokens,
        )
        if min(counts) < 1:
            raise ValueError(f"every size of a model is at least 1: {self}")
        if self.query_heads % self.kv_heads:
            raise ValueError("every KV head serves the same number of query heads")
        if self.head_dim % 2:
            raise ValueError("rotary positions turn pairs: heads have an even width")

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token in float32."""
        return 4 * 2 * self.layers * self.kv_heads * self.head_dim
