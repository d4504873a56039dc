"""How many heads attend as RaaS expects: counted, so that its figures can be read for what they are.

A *use* is a step at which a token gets at least a tenth of a head's weight from more than eleven tokens
away. A *milestone* is a decoded token with at least four uses, the last of them long before the end. A *return* is
a use after long silence; those of RaaS's paper are nearly all of prompt tokens, its phoenixes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

USE_WEIGHT: Final = 0.1
FAR_TOKENS: Final = 11
USES_MIN: Final = 4
OVER_STEPS: Final = 64
SILENT_STEPS: Final = 128


class Milestones(NamedTuple):
    """What was counted over all layers, heads and sequences.

    heads           how many there are
    heads_with      in how many at least one of fifty decoded tokens is a milestone, on average
    tokens          share of decoded tokens that are a milestone in any head
    returns         uses after long silence
    prompt_returns  share of those that are of prompt tokens
    """

    heads: int
    heads_with: int
    tokens: float
    returns: int
    prompt_returns: float


class MilestoneCount:
    """A `serving.sparse.attention.Watcher` of a dense run."""

    def __init__(
        self, layers: int, sequences: int, query_heads: int, prompt_tokens: int, length: int
    ) -> None:
        """All prompts have the same length; so have all chains, `length` tokens with the prompt."""
        shape = (layers, sequences, query_heads, length)
        self._uses = torch.zeros(shape, dtype=torch.int64)
        self._last = torch.full(shape, -1, dtype=torch.int64)
        self._prompt_tokens = prompt_tokens
        self._length = length
        self._returns = torch.zeros(2, dtype=torch.int64)
        self._at = [prompt_tokens] * layers

    def __call__(self, layer: int, first: Tensor, weights: Tensor) -> None:
        """See `serving.sparse.attention.Watcher`."""
        at = self._at[layer]
        self._at[layer] += 1
        page_tokens = weights.shape[3]
        places = first[:, :, None] + torch.arange(page_tokens)
        places = places.flatten(1)[:, None].expand(-1, weights.shape[1], -1)
        spread = weights.new_zeros(self._uses.shape[1:])
        spread.scatter_add_(2, places.clamp(max=self._length - 1), weights.flatten(2))
        used = spread >= USE_WEIGHT
        used[:, :, max(0, at - FAR_TOKENS) :] = False
        last = self._last[layer]
        returned = used & (last >= 0) & (at - last > SILENT_STEPS)
        self._returns[0] += returned.sum()
        self._returns[1] += returned[:, :, : self._prompt_tokens].sum()
        self._uses[layer] += used
        last[used] = at

    def outcome(self) -> Milestones:
        """The counts so far."""
        end = self._at[0]
        decoded = slice(self._prompt_tokens, end)
        over = end - self._last > OVER_STEPS
        milestone = ((self._uses >= USES_MIN) & over)[..., decoded]
        # Tokens of the last stretch cannot be over yet; they are neither for nor against.
        judged = max(1, end - self._prompt_tokens - OVER_STEPS)
        share = milestone.sum(dim=3).to(torch.float64).mean(dim=1) / judged
        returns = int(self._returns[0])
        return Milestones(
            heads=share.numel(),
            heads_with=int((share >= 1 / 50).sum()),
            tokens=milestone.any(dim=2).any(dim=0).sum().item() / (judged * milestone.shape[1]),
            returns=returns,
            prompt_returns=int(self._returns[1]) / returns if returns else 0.0,
        )
