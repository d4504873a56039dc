"""Compiling: a chunk of text alone, from position 0, its keys kept before rotation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from serving.attention import Rotary
from serving.attention.blockwise import attend
from serving.attention.page_operations import store
from serving.model import Llama


@dataclass(frozen=True)
class Chunk:
    """A compiled chunk; immutable, good for any place in any prompt.

    token_ids  at least one
    keys       ``[layers, tokens, kv_heads, head_dim]``, before rotation
    values     the same shape
    lead       how many dummy tokens it was compiled behind
    """

    token_ids: tuple[int, ...]
    keys: Tensor
    values: Tensor
    lead: int = 0

    def __post_init__(self) -> None:
        assert self.token_ids
        assert self.keys.shape == self.values.shape
        assert self.keys.shape[1] == len(self.token_ids)

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def size_bytes(self) -> int:
        """Bytes of keys and values."""
        return 2 * self.keys.numel() * self.keys.element_size()

    @property
    def name(self) -> bytes:
        """What tells it from every other chunk of the same model: 16 bytes."""
        return chunk_name(self.token_ids, self.lead)

    def place(
        self, pool: Tensor, pages: Sequence[int], start: int, rotary: Rotary, begin: int = 0
    ) -> None:
        """Write its rows from number `begin` on into a sequence's pages, as if they stood at `start`.

        pool   ``[pages, layers, 2, page_tokens, kv_heads, head_dim]``; changed in place
        pages  the table of the whole sequence
        start  position of the chunk's first row
        """
        page_tokens = pool.shape[3]
        count = len(self.token_ids)
        positions = torch.arange(start + begin, start + count)
        table = torch.tensor(pages, dtype=torch.int64)
        slots = table[positions // page_tokens] * page_tokens + positions % page_tokens
        for layer in range(self.keys.shape[0]):
            turned = rotary.rotate(self.keys[layer, begin:], positions)
            store(pool, layer, slots, turned, self.values[layer, begin:])

    def pages(self, page_tokens: int) -> Tensor:
        """Its rows as pages ``[pages, layers, 2, page_tokens, kv_heads, head_dim]``, zeros behind the last one."""
        missing = -len(self.token_ids) % page_tokens
        rows = torch.stack((self.keys, self.values), dim=1)
        rows = functional.pad(rows, (0, 0, 0, 0, 0, missing))
        layers, two, _, heads, width = rows.shape
        return rows.view(layers, two, -1, page_tokens, heads, width).permute(2, 0, 1, 3, 4, 5)

    @classmethod
    def of_pages(cls, token_ids: Sequence[int], pages: Tensor) -> Self:
        """The inverse of `pages`, for a chunk that was compiled behind nothing."""
        rows = pages.permute(1, 2, 0, 3, 4, 5).flatten(2, 3)[:, :, : len(token_ids)]
        return cls(tuple(token_ids), rows[:, 0], rows[:, 1])


class _Capturing:
    """Attends a chunk to itself, behind the rows that it has already, and keeps what a chunk is made of."""

    def __init__(self, rotary: Rotary, count: int, begun: Chunk | None) -> None:
        self._rotary = rotary
        self._begun = begun
        self._rows = torch.arange(count + (len(begun) if begun else 0))
        self.positions = self._rows[-count:]
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `serving.attention.protocol.Attention`."""
        assert layer == len(self.keys)
        if self._begun is not None:
            key = torch.cat((self._begun.keys[layer], key))
            value = torch.cat((self._begun.values[layer], value))
        self.keys.append(key)
        self.values.append(value)
        query = self._rotary.rotate(query, self.positions)
        key = self._rotary.rotate(key, self._rows)
        return attend(query, key, value, self.positions, self._rows)


def chunk_name(token_ids: Sequence[int], lead: int) -> bytes:
    """The name of a chunk with these tokens, compiled behind so many dummies."""
    body = b"".join([token.to_bytes(4, "little") for token in token_ids])
    tagged = b"k2.chunk" + lead.to_bytes(4, "big") + len(token_ids).to_bytes(4, "big") + body
    return hashlib.sha256(tagged).digest()[:16]


@torch.inference_mode()
def compile_chunk(
    model: Llama,
    token_ids: Sequence[int],
    *,
    dummies: Sequence[int] = (),
    begun: Chunk | None = None,
) -> Chunk:
    """Compute a chunk alone.

    dummies  tokens before it whose rows are dropped (LegoLink-0); none for LegoLink-k
    begun    its beginning, which `token_ids` follow; the bits are those of a chunk compiled in one piece
    """
    assert begun is None or not (dummies or begun.lead), "a beginning has its dummies behind it"
    tokens = torch.tensor([*dummies, *token_ids], dtype=torch.int64)
    capturing = _Capturing(model.rotary, len(tokens), begun)
    model.forward(tokens, capturing.positions, capturing)
    lead = len(dummies)
    return Chunk(
        (*(begun.token_ids if begun else ()), *token_ids),
        torch.stack(capturing.keys)[:, lead:].contiguous(),
        torch.stack(capturing.values)[:, lead:].contiguous(),
        lead,
    )
