"""The shape of a page: keys and values of some tokens, in all layers, in one piece."""

from __future__ import annotations

from typing import Final

import torch
from msgspec import Struct

PAGE_TOKENS: Final = 16

_DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Geometry(Struct, frozen=True, kw_only=True):
    """What pages of one model look like: ``[layers, 2, page_tokens, kv_heads, head_dim]``.

    dtype  ``float32``, ``bfloat16`` or ``float16``

    Page-major: all of a page is one stretch of memory, so one copy moves what would be
    ``2 * layers`` pieces if each layer had a pool of its own.
    """

    layers: int
    kv_heads: int
    head_dim: int
    page_tokens: int = PAGE_TOKENS
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("layers", "kv_heads", "head_dim", "page_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")
        if self.dtype not in _DTYPES:
            raise ValueError(f"pages hold {', '.join(_DTYPES)}, not {self.dtype}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the numbers."""
        return _DTYPES[self.dtype]

    @property
    def page_shape(self) -> tuple[int, int, int, int, int]:
        """The axes of one page."""
        return (self.layers, 2, self.page_tokens, self.kv_heads, self.head_dim)

    @property
    def page_bytes(self) -> int:
        """Bytes of one page."""
        numbers = self.layers * 2 * self.page_tokens * self.kv_heads * self.head_dim
        return numbers * self.torch_dtype.itemsize

    @property
    def layout(self) -> str:
        """The order of the axes in words, for `kv_pool.namespace.Namespace.layout`."""
        return (
            f"layer{self.layers}.kv2.token{self.page_tokens}.head{self.kv_heads}.dim{self.head_dim}"
        )
