"""Lemma chains: text of which one knows what must be remembered, for how long, and from where.

::

    prompt   BEGIN  k3 v7  k0 v2  ...  k9 v1  START  k4                          (23 tokens)
    block    k4 v8   c0 bit  c1 bit  ...  c23 bit                                (50 tokens)
    block    k2 v5   c0 bit  ...                                                 4 + 8 = 2 (mod 10)

The prompt is a table in random order. A block first states its key and looks the value up in the prompt:
these two are its *lemma*. Each of its steps then gives one bit, which the value and the step's counter
determine through a table that the model knows by heart. The next key is the sum of key and value. So the
value is needed at every step of its block, the key only once more at the end, fifty tokens later, and both
never again: *milestones*. The table in the prompt is needed once a block: *phoenixes*. No window that is
shorter than a block can do this.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

KEYS: Final = 10
COUNTERS: Final = 24
PROMPT_TOKENS: Final = 1 + 2 * KEYS + 2

BEGIN: Final = 0
START: Final = 1
KEY: Final = 2
VALUE: Final = KEY + KEYS
COUNTER: Final = VALUE + KEYS
BIT: Final = COUNTER + COUNTERS
VOCABULARY: Final = BIT + 2

_TABLE_SEED: Final = 20_250_211


def bits() -> Tensor:
    """``[value, counter]``: the table that the model learns by heart, half of it ones."""
    generator = torch.Generator().manual_seed(_TABLE_SEED)
    return torch.randint(0, 2, (KEYS, COUNTERS), generator=generator)


class Chains(NamedTuple):
    """Some chains of equal length.

    tokens  ``[chains, length]``
    lemma   ``[length]``: which places hold a key or a value of a block
    """

    tokens: Tensor
    lemma: Tensor

    @property
    def length(self) -> int:
        """Tokens of a chain, prompt included."""
        return self.tokens.shape[1]


def block_tokens(steps: int) -> int:
    """Tokens of a block of so many steps."""
    return 2 + 2 * steps


def draw(count: int, blocks: int, steps: int, generator: torch.Generator) -> Chains:
    """Draw chains at random. Blocks of fewer steps than `COUNTERS` begin with a later counter."""
    assert 1 <= steps <= COUNTERS
    table = torch.randint(0, KEYS, (count, KEYS), generator=generator)
    order = torch.rand((count, KEYS), generator=generator).argsort(dim=1)
    pairs = torch.stack((KEY + order, VALUE + table.gather(1, order)), dim=2).flatten(1)
    key = torch.randint(0, KEYS, (count, 1), generator=generator)
    begin = torch.full((count, 1), BEGIN)
    parts = [begin, pairs, torch.full((count, 1), START), KEY + key]
    counters = torch.arange(COUNTERS - steps, COUNTERS)
    known = bits()
    for _ in range(blocks):
        value = table.gather(1, key)
        outcomes = known[value.squeeze(1)][:, counters]
        steps_taken = torch.stack((COUNTER + counters.expand(count, -1), BIT + outcomes), dim=2)
        parts += [KEY + key, VALUE + value, steps_taken.flatten(1)]
        key = (key + value) % KEYS
    tokens = torch.cat(parts, dim=1)
    lemma = torch.zeros(tokens.shape[1], dtype=torch.bool)
    for block in range(blocks):
        at = PROMPT_TOKENS + block * block_tokens(steps)
        lemma[at : at + 2] = True
    return Chains(tokens, lemma)
