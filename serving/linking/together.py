"""Compiling several chunks in one pass over the weights: the products are the same, over more rows at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from serving.attention import Rotary
from serving.attention.blockwise import attend
from serving.linking.chunk import Chunk
from serving.model import Llama


class _Apart:
    """Attends each of some chunks to itself, and keeps what chunks are made of."""

    def __init__(self, rotary: Rotary, lengths: Sequence[int]) -> None:
        self._rotary = rotary
        self._lengths = list(lengths)
        self.positions = torch.cat([torch.arange(length) for length in lengths])
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `serving.attention.protocol.Attention`."""
        assert layer == len(self.keys)
        self.keys.append(key)
        self.values.append(value)
        turned = [self._rotary.rotate(each, self.positions) for each in (query, key)]
        pieces = [torch.split(each, self._lengths) for each in (*turned, value, self.positions)]
        return torch.cat(
            [
                attend(queries, keys, values, places, places)
                for queries, keys, values, places in zip(*pieces, strict=True)
            ]
        )


@torch.inference_mode()
def compile_chunks(
    model: Llama, texts: Sequence[Sequence[int]], *, dummies: Sequence[int] = ()
) -> list[Chunk]:
    """Compute some chunks, each alone; to the bit those of `serving.linking.chunk.compile_chunk`."""
    assert texts
    lead = len(dummies)
    tokens = [token for text in texts for token in (*dummies, *text)]
    lengths = [lead + len(text) for text in texts]
    apart = _Apart(model.rotary, lengths)
    model.forward(torch.tensor(tokens, dtype=torch.int64), apart.positions, apart)
    keys, values = [
        torch.split(torch.stack(each), lengths, dim=1) for each in (apart.keys, apart.values)
    ]
    return [
        Chunk(tuple(text), key[:, lead:].contiguous(), value[:, lead:].contiguous(), lead)
        for text, key, value in zip(texts, keys, values, strict=True)
    ]
