"""One step of the model over several sequences: which tokens, where they stand, where they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor


class Part(NamedTuple):
    """What one sequence brings to a step.

    token_ids  the tokens to compute, at least one
    positions  the position of each, ascending; they need not be consecutive
    pages      the sequence's table: page ``i`` keeps positions ``[i * page_tokens, (i + 1) * page_tokens)``
    context    rows that are visible once this step's are stored; 0 stands for last position + 1
    """

    token_ids: Sequence[int]
    positions: Sequence[int]
    pages: Sequence[int]
    context: int = 0

    @classmethod
    def following(cls, token_ids: Sequence[int], start: int, pages: Sequence[int]) -> Self:
        """Consecutive tokens from position `start` on, behind what the pages already hold."""
        return cls(token_ids, range(start, start + len(token_ids)), pages)


@dataclass(frozen=True)
class Batch:
    """Flattened over sequences; integer tensors, int64.

    token_ids        ``[tokens]``
    positions        ``[tokens]``
    slots            ``[tokens]``: where each token's row is stored, page * page_tokens + offset
    query_starts     ``[sequences + 1]``: tokens of sequence ``s`` are ``query_starts[s]:query_starts[s + 1]``
    block_tables     ``[sequences, pages_max]``, padded with 0
    context_lengths  ``[sequences]``: rows visible after this step's store
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    query_starts: Tensor
    block_tables: Tensor
    context_lengths: Tensor

    @classmethod
    def of(
        cls, parts: Sequence[Part], page_tokens: int, device: torch.device | str = "cpu"
    ) -> Self:
        """Flatten the parts of some sequences."""
        assert parts
        slots: list[int] = []
        starts = [0]
        contexts = []
        width = max(len(part.pages) for part in parts)
        for part in parts:
            assert len(part.token_ids) == len(part.positions) > 0
            context = part.context or part.positions[-1] + 1
            assert part.positions[-1] < context <= len(part.pages) * page_tokens
            slots += [
                part.pages[position // page_tokens] * page_tokens + position % page_tokens
                for position in part.positions
            ]
            starts.append(len(slots))
            contexts.append(context)

        def integers(values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        return cls(
            token_ids=integers([token for part in parts for token in part.token_ids]),
            positions=integers([position for part in parts for position in part.positions]),
            slots=integers(slots),
            query_starts=integers(starts),
            block_tables=integers([[*p.pages, *([0] * (width - len(p.pages)))] for p in parts]),
            context_lengths=integers(contexts),
        )

    @property
    def last_rows(self) -> Tensor:
        """``[sequences]``: the row of each sequence's last token, whose logits name the next one."""
        return self.query_starts[1:] - 1
