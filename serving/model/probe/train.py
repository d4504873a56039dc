"""The recipe of the probe: a curriculum of lengthening blocks in which older steps are hidden.

Looking up the table in the prompt forms only while blocks are short, so they begin with two steps and
grow, each time what stands is mastered. A model that may see everything learns the chains too, but spreads
its attention over the last fifty tokens: nothing in the task asks it to look at the lemma itself rather than
at the many steps that repeat what it says. So from the second phase on the steps that are older than a few
tokens are hidden in most chains, and it learns to look at the lemma. What comes out has attention of the
kind that was found in large reasoning models (milestones and phoenixes, arXiv 2502.11147); here it is made,
and that is said wherever figures are given.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from serving.attention.rotary import Rotary, turn
from serving.model.llama import Llama
from serving.model.probe import CONFIG
from serving.model.probe.task import BIT, COUNTERS, PROMPT_TOKENS, Chains, block_tokens, draw

BLOCKS: Final = 8
LEMMA_WEIGHT: Final = 5.0
PEAK_RATE: Final = 2e-3
WARMUP_STEPS: Final = 30
RECENT_LEAST, RECENT_MOST = 4, 11
"""How many of the newest tokens stay visible in chains whose older steps are hidden."""

WATCHED: Final = 15
"""Over how many batches it is judged whether a phase has done its work."""


class Phase(NamedTuple):
    """A stretch of training with an optimiser of its own.

    steps        how many batches, at most
    batch        chains in each
    least, most  steps of a block, drawn for each batch
    hidden       share of chains whose older steps are hidden
    mastered     share of lemmas and of bits that are right at which it has done its work, and ends
    settles      runs all its steps instead, the rate falling to nothing
    """

    name: str
    steps: int
    batch: int
    least: int
    most: int
    hidden: float
    mastered: float = 0.97
    settles: bool = False


RECIPE: Final = (
    # What later phases only spread out is made here: the look-up in the table.
    Phase("two steps a block", 1500, 48, 2, 2, hidden=0.0, mastered=0.99),
    Phase("four to twelve steps", 1000, 24, 4, 12, hidden=0.5),
    Phase("twelve to all steps", 1000, 12, 12, COUNTERS, hidden=0.75),
    Phase("all steps", 500, 8, COUNTERS, COUNTERS, hidden=0.75, settles=True),
)


class Progress(NamedTuple):
    """Where training is: told after every step.

    step         of its phase
    loss         weighted cross-entropy of this batch, nats a token
    lemma, bits  shares of this batch's lemma tokens and bits that were predicted rightly
    """

    phase: str
    step: int
    loss: float
    lemma: float
    bits: float


def train(seed: int, tell: Callable[[Progress], None], recipe: Sequence[Phase] = RECIPE) -> Llama:
    """Train a probe from nothing. The same seed, machine and library give the same model."""
    model = Llama.random(CONFIG, seed)
    for number, phase in enumerate(recipe):
        run_phase(model, phase, seed + number, tell)
    return Llama(CONFIG, {name: each.detach() for name, each in model.weights.items()})


def run_phase(model: Llama, phase: Phase, seed: int, tell: Callable[[Progress], None]) -> None:
    """Train a model through one phase, in place."""
    generator = torch.Generator().manual_seed(seed)
    weights = [weight.requires_grad_() for weight in model.weights.values()]
    optimiser = torch.optim.AdamW(weights, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate_of(phase))
    lately: deque[float] = deque(maxlen=WATCHED)
    for step in range(1, phase.steps + 1):
        progress = train_step(model, optimiser, phase, step, generator)
        schedule.step()
        tell(progress)
        lately.append(min(progress.lemma, progress.bits))
        is_judged = not phase.settles and len(lately) == WATCHED
        if is_judged and sum(lately) / WATCHED >= phase.mastered:
            return


def rate_of(phase: Phase) -> Callable[[int], float]:
    """A linear warm-up; then the peak, or in a phase that settles a cosine to a fiftieth."""

    def factor(step: int) -> float:
        if step < WARMUP_STEPS:
            return (step + 1) / WARMUP_STEPS
        if not phase.settles:
            return 1.0
        share = min(1.0, (step - WARMUP_STEPS) / max(1, phase.steps - WARMUP_STEPS))
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))

    return factor


def train_step(
    model: Llama,
    optimiser: torch.optim.Optimizer,
    phase: Phase,
    step: int,
    generator: torch.Generator,
) -> Progress:
    """Train on one batch."""
    steps = int(torch.randint(phase.least, phase.most + 1, (1,), generator=generator))
    chains = draw(phase.batch, BLOCKS, steps, generator)
    visible = visibility(chains, steps, phase.hidden, generator)
    logits = predictions(model, chains, visible)
    targets = chains.tokens[:, PROMPT_TOKENS:]
    lemma = chains.lemma[PROMPT_TOKENS:]
    weight = torch.where(lemma, LEMMA_WEIGHT, 1.0).expand_as(targets)
    losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    loss = (losses * weight.flatten()).sum() / weight.sum()
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.weights.values(), 1.0)
    optimiser.step()
    right = (logits.detach().argmax(dim=2) == targets).to(torch.float64)
    return Progress(
        phase.name,
        step,
        loss.item(),
        lemma=right[:, lemma].mean().item(),
        bits=right[targets >= BIT].mean().item(),
    )


def visibility(chains: Chains, steps: int, hidden: float, generator: torch.Generator) -> Tensor:
    """``[chains, length, length]``: which token (last) each token (middle) may look at.

    In a share of the chains older steps are hidden; in half of those, lemmas of earlier blocks too.
    """
    count, length = chains.tokens.shape
    at = torch.arange(length)
    distance = at[:, None] - at[None, :]
    causal = (distance >= 0).expand(count, -1, -1)
    if not hidden:
        return causal
    chosen = torch.rand((count, 1, 1), generator=generator) < hidden
    forgets = torch.rand((count, 1, 1), generator=generator) < 0.5
    recent = torch.randint(RECENT_LEAST, RECENT_MOST + 1, (count, 1, 1), generator=generator)
    in_block = distance <= block_tokens(steps) + 2
    kept = (at < PROMPT_TOKENS) | (chains.lemma & (in_block | ~forgets))
    return causal & (~chosen | kept | (distance < recent))


def predictions(model: Llama, chains: Chains, visible: Tensor) -> Tensor:
    """Logits of every token after the prompt, from what is before it: ``[chains, tokens, vocabulary]``."""
    count, length = chains.tokens.shape
    positions = torch.arange(length).repeat(count)
    hidden = model.forward(chains.tokens.flatten(), positions, WholeChains(model.rotary, visible))
    rows = hidden.view(count, length, -1)[:, PROMPT_TOKENS - 1 : -1]
    return model.logits(rows.flatten(0, 1)).view(count, length - PROMPT_TOKENS, -1)


class WholeChains:
    """Attention over whole chains at once, for training: gradients go through, nothing is kept.

    visible  ``[chains, length, length]``, as `visibility` gives it
    """

    def __init__(self, rotary: Rotary, visible: Tensor) -> None:
        self._visible = visible
        self._angles = rotary.angles(torch.arange(visible.shape[1]))

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `serving.attention.protocol.Attention`."""
        count, length, _ = self._visible.shape
        shape = (count, length, *query.shape[1:])
        attended = functional.scaled_dot_product_attention(
            turn(query.view(shape), *self._angles).transpose(1, 2),
            turn(key.view(shape), *self._angles).transpose(1, 2),
            value.view(shape).transpose(1, 2),
            attn_mask=self._visible[:, None],
        )
        return attended.transpose(1, 2).flatten(0, 1)
