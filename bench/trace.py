"""Traces of prompts as chains of block hashes: read from a file, or made up with the same shape.

A prompt of an inference service is cut into blocks of 512 tokens, and each block is named by a hash
over itself *and everything before it*. So equal ids mean equal prefixes, each id has exactly one
parent, and the ids of all prompts form a tree. A file has one JSON object a line::

    {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}

with the time in ms, lengths in tokens, and one id a block. The reference is the conversation trace
that was published with Mooncake (Qin et al., FAST 2025); `CONVERSATION` holds its marginals.

`generate` makes up a trace with these marginals. Its model is a population of conversations:

- An arrival either begins a conversation, with a prompt of which only the system's block 0 is known
  (`_FRESH_BLOCKS`), or goes on from an earlier prompt, `_LAG_S` ago.
- Whoever goes on keeps the earlier prompt's blocks up to `_DROPPED` before its end (the last block
  was not full, so its hash changes: most drop exactly one; who asks again differently drops more)
  and adds new ones (`_ADDED_BLOCKS`).

Every quantity is drawn from a table of quantiles, by strata: n draws hit n equal parts of the
distribution once each, in random order. So totals differ little from seed to seed.
"""

from __future__ import annotations

import bisect
import collections
import random
from collections.abc import Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from kv_pool.edge.trace import BLOCK_TOKENS, Request, ideal_hits, read

__all__ = ["CONVERSATION", "Marginals", "Request", "generate", "ideal_hits", "marginals", "read"]

Quantiles: TypeAlias = tuple[tuple[float, float], ...]
"""Points (share, value) of a distribution, ascending; between two of them it is linear."""


class Marginals(Struct, frozen=True, kw_only=True):
    """What a trace is like, as far as a store of prefixes can tell.

    span_s            from the first arrival to the last
    references        blocks of all requests; `distinct` counts each once
    seen_once         share of the distinct blocks that one request has
    fan_out           children of block 0
    blocks_p50, ...   blocks of a request
    hit_share         share of references that an endless cache would have had, prefixes only
    one_parent        whether each block follows one other block wherever it occurs
    """

    requests: int
    span_s: float
    references: int
    distinct: int
    seen_once: float
    fan_out: int
    blocks_p50: int
    blocks_p99: int
    blocks_max: int
    hit_share: float
    one_parent: bool


CONVERSATION: Final = Marginals(
    requests=12_031,
    span_s=3_537.0,
    references=288_500,
    distinct=182_790,
    seen_once=0.7585,
    fan_out=7_373,
    blocks_p50=14,
    blocks_p99=167,
    blocks_max=247,
    hit_share=0.3664,
    one_parent=True,
)

_FRESH_BLOCKS: Final[Quantiles] = (
    (0.000, 2),
    (0.170, 2),
    (0.250, 3),
    (0.300, 4),
    (0.400, 7.5),
    (0.500, 11),
    (0.600, 15),
    (0.700, 21.7),
    (0.750, 26),
    (0.800, 31),
    (0.850, 38),
    (0.900, 50),
    (0.930, 62),
    (0.950, 75),
    (0.970, 102),
    (0.980, 131),
    (0.990, 176),
    (0.995, 217),
    (1.000, 247),
)
_ADDED_BLOCKS: Final[Quantiles] = (
    (0.000, 0),
    (0.020, 0),
    (0.030, 1),
    (0.200, 1),
    (0.250, 1.6),
    (0.300, 2),
    (0.600, 2),
    (0.650, 2.4),
    (0.700, 4),
    (0.750, 6.8),
    (0.800, 10),
    (0.850, 15),
    (0.900, 20),
    (0.950, 28.6),
    (0.980, 41),
    (0.990, 53),
    (0.995, 65),
    (0.998, 85),
    (1.000, 180),
)
_KEPT_BLOCKS: Final[Quantiles] = (
    (0.000, 2),
    (0.120, 2),
    (0.150, 3),
    (0.200, 4),
    (0.250, 5),
    (0.300, 6),
    (0.400, 9),
    (0.500, 12),
    (0.600, 16),
    (0.700, 22),
    (0.750, 26),
    (0.800, 31),
    (0.850, 38),
    (0.900, 48.5),
    (0.930, 57),
    (0.950, 69),
    (0.970, 96),
    (0.980, 119),
    (0.990, 150),
    (0.995, 182),
    (1.000, 240),
)
_LAG_S: Final[Quantiles] = (
    (0.00, 5),
    (0.05, 36),
    (0.25, 75),
    (0.50, 147),
    (0.75, 318),
    (0.90, 552),
    (0.95, 720),
    (1.00, 3_210),
)
_OUTPUT_TOKENS: Final[Quantiles] = (
    (0.00, 1),
    (0.05, 10),
    (0.25, 156),
    (0.50, 350),
    (0.75, 472),
    (0.95, 698),
    (1.00, 2_000),
)
_AGAIN: Final = 0.27
"""How often a prompt is gone on from although somebody has gone on from it before."""
_NEAR: Final = 40
"""How many arrivals on either side of the wanted time are looked at first."""
_FAR: Final = 400
"""How many where none of those was long enough."""


def generate(seed: int = 0, requests: int = CONVERSATION.requests) -> list[Request]:
    """A trace of so many requests like the conversation trace; equal seeds give equal traces."""
    return _Generator(random.Random(seed), requests).run()


def marginals(requests: Sequence[Request]) -> Marginals:
    """What a trace is like."""
    counts: collections.Counter[int] = collections.Counter()
    parents: dict[int, int] = {}
    one_parent = True
    for request in requests:
        counts.update(request.hash_ids)
        for parent, block in zip((-1, *request.hash_ids), request.hash_ids, strict=False):
            one_parent &= parents.setdefault(block, parent) == parent
    sizes = sorted(len(request.hash_ids) for request in requests)
    references = sum(sizes)
    return Marginals(
        requests=len(sizes),
        span_s=(requests[-1].timestamp - requests[0].timestamp) / 1000,
        references=references,
        distinct=len(counts),
        seen_once=sum(count == 1 for count in counts.values()) / len(counts),
        fan_out=sum(parent == 0 for parent in parents.values()),
        blocks_p50=sizes[len(sizes) // 2],
        blocks_p99=sizes[len(sizes) * 99 // 100],
        blocks_max=sizes[-1],
        hit_share=sum(ideal_hits(requests)) / references,
        one_parent=one_parent,
    )


class _Generator:
    """The state of one run of `generate`."""

    def __init__(self, rng: random.Random, count: int) -> None:
        self._rng = rng
        self._count = count
        self._times_ms: list[int] = []
        self._chains: list[tuple[int, ...]] = []
        self._gone_on_from: set[int] = set()
        self._next_block = 1

    def run(self) -> list[Request]:
        rng, count = self._rng, self._count
        span_ms = CONVERSATION.span_s * 1000 * count / CONVERSATION.requests
        times_ms = sorted(int(rng.random() * span_ms) for _ in range(count))
        times_ms[0] = 0
        fresh_count = max(1, round(count * CONVERSATION.fan_out / CONVERSATION.requests))
        # Nobody can go on before somebody has begun.
        begins = {0, *rng.sample(range(1, count), fresh_count - 1)}
        going_on = count - fresh_count
        fresh = iter(_strata(rng, _FRESH_BLOCKS, fresh_count))
        added = iter(_strata(rng, _ADDED_BLOCKS, going_on))
        kept = iter(_strata(rng, _KEPT_BLOCKS, going_on))
        lags_s = iter(_strata(rng, _LAG_S, going_on))
        outputs = iter(_strata(rng, _OUTPUT_TOKENS, count))
        requests = []
        for number, at_ms in enumerate(times_ms):
            if number in begins:
                chain = (0, *self._new_blocks(next(fresh) - 1))
            else:
                chain = self._earlier(at_ms - next(lags_s) * 1000, next(kept))
                room = CONVERSATION.blocks_max - len(chain)
                chain += self._new_blocks(min(next(added), room))
            self._times_ms.append(at_ms)
            self._chains.append(chain)
            tokens = len(chain) * BLOCK_TOKENS - rng.randrange(BLOCK_TOKENS)
            requests.append(Request(at_ms, tokens, next(outputs), chain))
        return requests

    def _new_blocks(self, count: int) -> tuple[int, ...]:
        first = self._next_block
        self._next_block += count
        return tuple(range(first, first + count))

    def _earlier(self, about_ms: float, keep: int) -> tuple[int, ...]:
        """What is kept of an earlier prompt: of those near in time, the one that fits best."""
        chains = self._chains
        again = self._rng.random() < _AGAIN
        middle = bisect.bisect_left(self._times_ms, about_ms)
        longest = 0
        for width in (_NEAR, _FAR):
            near = range(max(0, middle - width), min(len(chains), middle + width))
            fitting = [one for one in near if (one in self._gone_on_from) == again] or near
            longest = max(fitting, key=lambda one: len(chains[one]), default=longest)
            chosen = min(
                (one for one in fitting if len(chains[one]) > keep),
                key=lambda one: len(chains[one]),
                default=longest,
            )
            if len(chains[chosen]) > keep:
                break
        self._gone_on_from.add(chosen)
        return chains[chosen][:keep]


def _strata(rng: random.Random, quantiles: Quantiles, count: int) -> list[int]:
    """So many whole numbers of a distribution, one from each equal part of it, shuffled."""
    shares = [share for share, _ in quantiles]
    drawn = []
    for number in range(count):
        share = (number + rng.random()) / count
        place = min(bisect.bisect_right(shares, share), len(shares) - 1)
        (low, left), (high, right) = quantiles[place - 1], quantiles[place]
        drawn.append(round(left + (right - left) * (share - low) / (high - low)))
    rng.shuffle(drawn)
    return drawn
