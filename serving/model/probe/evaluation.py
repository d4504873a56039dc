"""How well a probe has learned its task, with the right tokens before it."""

from __future__ import annotations

from typing import NamedTuple

import torch

from serving.model.llama import Llama
from serving.model.probe.task import BIT, COUNTERS, KEYS, PROMPT_TOKENS, VALUE, draw
from serving.model.probe.train import BLOCKS, predictions, visibility


class Accuracy(NamedTuple):
    """Shares of tokens that were predicted rightly."""

    keys: float
    values: float
    bits: float
    all: float

    @property
    def worst(self) -> float:
        """The least of them."""
        return min(self)


@torch.inference_mode()
def accuracy(model: Llama, *, chains: int, seed: int, hidden: bool = False) -> Accuracy:
    """Judge on whole blocks of chains drawn from a seed; `hidden` hides the older steps, as in training."""
    generator = torch.Generator().manual_seed(seed)
    drawn = draw(chains, BLOCKS, COUNTERS, generator)
    visible = visibility(drawn, COUNTERS, 1.0 if hidden else 0.0, generator)
    targets = drawn.tokens[:, PROMPT_TOKENS:]
    right = (predictions(model, drawn, visible).argmax(dim=2) == targets).to(torch.float64)
    lemma = drawn.lemma[PROMPT_TOKENS:].expand_as(targets)
    values = lemma & (targets >= VALUE) & (targets < VALUE + KEYS)
    return Accuracy(
        keys=right[lemma & ~values].mean().item(),
        values=right[values].mean().item(),
        bits=right[targets >= BIT].mean().item(),
        all=right.mean().item(),
    )
