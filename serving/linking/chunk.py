"""Compiling: a chunk of text alone, from position 0, its keys kept before rotation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


class _Capturing:
    """Attends chunks to themselves, each alone, and keeps what chunks are made of."""

    def __init__(self, rotary: Rotary, lengths: Sequence[int]) -> None:
        self._rotary = rotary
        self._lengths = list(lengths)
        self._positions = torch.cat([torch.arange(length) for length in lengths])
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    @property
    def positions(self) -> Tensor:
        """Of all rows, each chunk's from 0 on."""
        return self._positions

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `serving.attention.protocol.Attention`."""
        assert layer == len(self.keys)
        self.keys.append(key)
        self.values.append(value)
        turned = [self._rotary.rotate(each, self._positions) for each in (query, key)]
        pieces = [each.split(self._lengths) for each in (*turned, value, self._positions)]
        return torch.cat(
            [attend(*rows, places, places) for *rows, places in zip(*pieces, strict=True)]
        )


def chunk_name(token_ids: Sequence[int], lead: int) -> bytes:
    """The name of a chunk with these tokens, compiled behind so many dummies."""
    body = b"".join([token.to_bytes(4, "little") for token in token_ids])
    tagged = b"k2.chunk" + lead.to_bytes(4, "big") + len(token_ids).to_bytes(4, "big") + body
    return hashlib.sha256(tagged).digest()[:16]


def compile_chunk(model: Llama, token_ids: Sequence[int], *, dummies: Sequence[int] = ()) -> Chunk:
    """Compute a chunk alone.

    dummies  tokens before it whose rows are dropped (LegoLink-0); none for LegoLink-k
    """
    (chunk,) = compile_chunks(model, [token_ids], dummies=dummies)
    return chunk


@torch.inference_mode()
def compile_chunks(
    model: Llama, texts: Sequence[Sequence[int]], *, dummies: Sequence[int] = ()
) -> list[Chunk]:
    """Compute some chunks, each alone, in one pass over the weights: to the bit those of `compile_chunk`."""
    assert texts
    lead = len(dummies)
    tokens = [token for text in texts for token in (*dummies, *text)]
    lengths = [lead + len(text) for text in texts]
    capturing = _Capturing(model.rotary, lengths)
    model.forward(torch.tensor(tokens, dtype=torch.int64), capturing.positions, capturing)
    keys, values = [
        torch.stack(each).split(lengths, dim=1) for each in (capturing.keys, capturing.values)
    ]
    return [
        Chunk(tuple(text), key[:, lead:].contiguous(), value[:, lead:].contiguous(), lead)
        for text, key, value in zip(texts, keys, values, strict=True)
    ]
