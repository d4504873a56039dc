"""A retention policy in an engine: each sequence decodes into single-layer pages of its own, and lets go of them.

::

    prompt    computed like any other, into pages of the pool, shared and published as exact
    answer    a row at a time into the arena; each layer lets go of pages by itself
    end       blocks that are whole in all layers still become pages of the pool, in a namespace that says so

The state of a sequence depends on its tokens and the policy alone. So one that had to give way begins again behind its
prompt, and goes through what it has said, row by row, to where it was: its answer is the same.

Blocks that were kept are stretches with gaps. Each stretch is named by all that came before it, kept or not, and
stands at the beginning of a prompt in its namespace, whose parent is the exact one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import k2store
from kv_pool.blocks import Chain, chain, root
from kv_pool.pool.block_pool import Slot
from serving.attention import Attention, Rotary
from serving.pages.arena import Arena
from serving.pages.mem_pool import DEVICE, MemPool
from serving.sparse.attention import SparseAttention
from serving.sparse.cache import SparseCache
from serving.sparse.policies import Policy


@dataclass
class RetentionCounts:
    """What has happened so far.

    pages_max    decode pages that any sequence has held in any layer, between two steps
    kept_blocks  of answers that were through, whole in all layers still
    gone_blocks  of them, not whole any more, or without room
    """

    pages_max: int = 0
    kept_blocks: int = 0
    gone_blocks: int = 0


class MixedAttention:
    """Rows of several attention objects in one step: many of the first, then one of each other one."""

    def __init__(self, exact: Attention | None, rows: int, single: Sequence[Attention]) -> None:
        self._exact = exact
        self._rows = rows
        self._single = single

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `serving.attention.protocol.Attention`."""
        at = self._rows
        attended = []
        if self._exact is not None:
            attended.append(self._exact(layer, query[:at], key[:at], value[:at]))
        for row, one in enumerate(self._single, at):
            here = slice(row, row + 1)
            attended.append(one(layer, query[here], key[here], value[here]))
        return torch.cat(attended)


class Retention:
    """See the module. Belongs to the thread of its pool.

    pages      of the arena, of a single layer each; at least what one sequence can come to hold
    namespace  digest of `serving.sparse.publication.residency_namespace`; empty: what was kept is let go
    """

    def __init__(
        self, policy: Policy, pool: MemPool, rotary: Rotary, pages: int, namespace: bytes = b""
    ) -> None:
        self._pool = pool
        self._rotary = rotary
        self._namespace = namespace
        self._caches: dict[int, SparseCache] = {}
        self.policy = policy
        self.arena = Arena(pool.geometry, pages)
        self.counts = RetentionCounts()

    @property
    def has_room(self) -> bool:
        """Whether a sequence that has no pages could get its first ones."""
        return self.arena.free_pages >= self._pool.geometry.layers

    def wanted(self, prompt_tokens: int, decoded: int) -> int:
        """Pages that a sequence takes with its next row, which has so many decoded ones before it."""
        begins = not decoded or (prompt_tokens + decoded) % self._pool.page_tokens == 0
        return self._pool.geometry.layers if begins else 0

    @torch.inference_mode()
    def attention(self, number: int, pages: Sequence[Slot], prompt_tokens: int) -> Attention:
        """For the next row of a sequence, whose prompt lies in these pages of the device."""
        cache = self._caches.get(number)
        if cache is None:
            cache = self._caches[number] = SparseCache(
                self.policy,
                self.arena,
                self._pool.stores[DEVICE].tensor,
                torch.tensor([[page.number for page in pages]]),
                torch.tensor([prompt_tokens]),
                owner=number,
                aligned=True,
            )
        return SparseAttention(cache, self._rotary)

    @torch.inference_mode()
    def advance(self, number: int) -> None:
        """The row is computed."""
        cache = self._caches[number]
        decoded = cache.step
        if self.wanted(int(cache.positions[0]) - decoded, decoded):
            self.counts.pages_max = max(self.counts.pages_max, int(cache.resident_pages().max()))
        cache.advance()

    @torch.inference_mode()
    def drop(self, number: int) -> None:
        """A sequence needs its pages no more, if it has any."""
        cache = self._caches.pop(number, None)
        if cache is not None:
            cache.close()

    @torch.inference_mode()
    def keep(self, number: int, tokens: Sequence[int], prompt_tokens: int) -> None:
        """An answer is through: what is whole of it goes into the pool, as far as there is room."""
        cache = self._caches.get(number)
        if cache is None or not self._namespace:
            return
        size = self._pool.page_tokens
        first, end = prompt_tokens // size, int(cache.positions[0]) // size
        behind = chain(root(self._namespace), tokens[: first * size], size)
        behind = Chain(b"", behind.tail)
        held: list[Slot] = []
        for block in range(first, end):
            here = tokens[block * size : (block + 1) * size]
            slots = self._packed(cache, block)
            if slots:
                behind, kept = self._pool.insert(behind, here, slots, self._namespace)
                held += kept
                self.counts.kept_blocks += 1
            else:
                # What comes behind the gap begins a stretch of its own.
                behind = Chain(b"", chain(behind.tail, here, size).tail)
                self._pool.release(held)
                held = []
                self.counts.gone_blocks += 1
        self._pool.release(held)

    def _packed(self, cache: SparseCache, block: int) -> tuple[Slot, ...]:
        """A page of the pool with a block of an answer; none where it is not whole, or has no room."""
        rows = cache.block(0, block * self._pool.page_tokens)
        if rows is None:
            return ()
        try:
            slots = self._pool.alloc_mem(1)
        except k2store.Overloaded:
            return ()
        self._pool.stores[DEVICE].tensor[slots[0].number] = rows
        return slots

    def check_integrity(self) -> None:
        """Every page of the arena is free or some sequence's."""
        self.arena.check_integrity()
        held = sum(int(cache.resident_pages().sum()) for cache in self._caches.values())
        assert held == self.arena.pages - self.arena.free_pages, "pages are sequences'"


def arena_pages(
    policy: Policy, layers: int, page_tokens: int, sequences: int, context_tokens: int
) -> int:
    """Pages for so many sequences; without a budget for one that is as long as it can be."""
    budget = policy.budget_tokens
    if budget is None:
        return layers * -(-context_tokens // page_tokens)
    # A page is taken before another one goes.
    return layers * sequences * (budget // page_tokens + 1)
