"""What a model asks of an attention object."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Attention(Protocol):
    """Keeps the keys and values of one step and attends to what its tokens may see.

    It knows the positions of the tokens: it rotates, stores and attends. Called once in each layer,
    in ascending order.
    """

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend.

        query  ``[tokens, query_heads, head_dim]``, before rotation
        key    ``[tokens, kv_heads, head_dim]``, before rotation
        value  ``[tokens, kv_heads, head_dim]``

        Gives ``[tokens, query_heads, head_dim]``.
        """
        ...
