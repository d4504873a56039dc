"""The next token: the likeliest, or one drawn from what temperature, top-k and top-p leave.

A draw is a function of the request's seed and of how many tokens it has generated, not of a generator
that somebody keeps. So a sequence that was preempted, or moved to another worker, goes on as if it had
not been.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from serving.engine.request import Logprob, Sampling

_BITS: Final = 53
_DRAWS: Final = 1 << _BITS


def draw(seed: int, index: int) -> float:
    """A number in [0, 1) for the token with this index."""
    digest = hashlib.sha256(f"k2.draw:{seed}:{index}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - _BITS)) / _DRAWS


def choose(logits: Tensor, sampling: Sampling, generated: Sequence[int]) -> int:
    """The token that follows on those `generated`.

    logits  ``[vocabulary]``, as the model gives them
    """
    logits = _penalized(logits.float(), sampling, generated)
    if sampling.temperature == 0.0:
        return int(logits.argmax())
    # A stable sort breaks ties by token, so that equal inputs choose equally everywhere.
    ordered, tokens = (logits / sampling.temperature).sort(descending=True, stable=True)
    if sampling.top_k:
        ordered = ordered[: sampling.top_k]
    # In float64: the sum over a large vocabulary must come to 1 closely.
    cumulative = ordered.double().softmax(0).cumsum(0)
    kept = 1 + int((cumulative < sampling.top_p).sum())
    cumulative = cumulative[: min(kept, len(cumulative))]
    mark = draw(sampling.seed, len(generated)) * cumulative[-1]
    place = int(torch.searchsorted(cumulative, mark, right=True))
    return int(tokens[min(place, len(cumulative) - 1)])


def explain(logits: Tensor, token: int, alternatives: int) -> tuple[float, tuple[Logprob, ...]]:
    """The logarithm of a token's probability, and of the likeliest ones'."""
    logprobs = logits.float().log_softmax(0)
    values, tokens = logprobs.topk(min(alternatives, len(logprobs)))
    top = [
        Logprob(other, value) for other, value in zip(tokens.tolist(), values.tolist(), strict=True)
    ]
    return float(logprobs[token]), tuple(top)


def _penalized(logits: Tensor, sampling: Sampling, generated: Sequence[int]) -> Tensor:
    if not generated or not (sampling.presence_penalty or sampling.frequency_penalty):
        return logits
    counts = Counter(generated)
    tokens = torch.tensor(list(counts), device=logits.device)
    times = torch.tensor(list(counts.values()), dtype=logits.dtype, device=logits.device)
    penalties = sampling.presence_penalty + sampling.frequency_penalty * times
    return logits.index_add(0, tokens, -penalties)
