"""Linked prompts in a worker: chunks from the pool or compiled, put into a sequence's pages, piece by piece.

A compiled chunk lies in ordinary pages of the worker's pool, under the names of `serving.linking.naming`: it is found
again, goes down the tiers, and is fetched by other workers like any page. What is put together of chunks is
in pages of the sequence alone, which get no name.

::

    begin ──▶ Placing ──advance──▶ ... ──advance──▶ done     rows `redo` and the tail are computed by the engine
                          │
                          ├ the pool has the chunk          found; it may have been fetched
                          └ it has not                      compiled, so many tokens a call, then kept in the pool
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

import k2store
from kv_pool.blocks import Names, chain, root
from kv_pool.pool.block_pool import Slot
from serving.linking.chunk import Chunk, compile_chunk
from serving.linking.lego import recomputed_rows
from serving.linking.naming import filled
from serving.model import Llama
from serving.pages.mem_pool import DEVICE, Held, MemPool

Used = Callable[[Sequence[int], Names, Sequence[Slot]], None]
"""Is told, in the engine's thread, of a chunk of the pool that is in use: its filled tokens, names and pages."""


@dataclass
class LinkCounts:
    """What has happened so far.

    prompts            that were linked
    found              their chunks that the pool had, fetched from another worker perhaps
    compiled           that had to be computed, all or the rest of them
    compiled_tokens    tokens that went through the model for that
    chunk_tokens       tokens of all chunks
    recomputed_tokens  tokens of the prompts computed for their place: ``sum(min(k, n) for n in lengths[1:]) + tail``
    """

    prompts: int = 0
    found: int = 0
    compiled: int = 0
    compiled_tokens: int = 0
    chunk_tokens: int = 0
    recomputed_tokens: int = 0


@dataclass
class Placing:
    """A prompt on the way to its pages.

    lengths  tokens of its chunks; what is behind them is the tail
    redo     rows of the chunks that are to be computed for their place, ascending
    left     number, first row and tokens of each chunk that is not placed yet
    cached   rows that were there and stay as they are
    """

    lengths: tuple[int, ...]
    tail: int
    redo: list[int]
    left: deque[tuple[int, int, tuple[int, ...]]] = field(default_factory=deque)
    cached: int = 0


class Linker:
    """See the module. Belongs to the thread of its pool.

    namespace  digest under which chunks are named
    k          first rows of every chunk but the first that are computed anew (LegoLink-k)
    used       hears of chunks of the pool that are used
    """

    def __init__(
        self, model: Llama, pool: MemPool, namespace: bytes, k: int, used: Used | None = None
    ) -> None:
        assert k >= 0, k
        self._model = model
        self._pool = pool
        self._namespace = namespace
        self._root = root(namespace)
        self._used = used
        # Who came first is served first, so there is one chunk at a time that is not through.
        self._partial: Chunk | None = None
        self.k = k
        self.counts = LinkCounts()

    def names(self, token_ids: Sequence[int]) -> Names:
        """Names of a chunk's blocks."""
        size = self._pool.page_tokens
        return chain(self._root, filled(token_ids, size), size).names

    def chunk_names(self, tokens: Sequence[int], lengths: Sequence[int]) -> list[Names]:
        """Names of the blocks of each chunk of a prompt. Touches nothing: for any thread."""
        return [self.names(chunk) for _, _, chunk in _spans(tokens, lengths)]

    def has(self, token_ids: Sequence[int]) -> bool:
        """Whether the pool has a chunk, in any tier."""
        tokens = filled(token_ids, self._pool.page_tokens)
        known = self._pool.match(tokens, self.names(token_ids))
        return len(known) * self._pool.page_tokens == len(tokens)

    def missing(self, tokens: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, ...]]:
        """The chunks of a prompt that the pool lacks, each once."""
        chunks = [chunk for _, _, chunk in _spans(tokens, lengths)]
        return [chunk for chunk in dict.fromkeys(chunks) if not self.has(chunk)]

    def begin(self, tokens: Sequence[int], lengths: Sequence[int]) -> Placing:
        """A prompt that begins with chunks of these lengths is to be linked."""
        total = sum(lengths)
        tail = len(tokens) - total
        redo = recomputed_rows(lengths, tail, self.k)[:-tail]
        return Placing(tuple(lengths), tail, redo, deque(_spans(tokens, lengths)))

    @torch.inference_mode()
    def advance(self, placing: Placing, pages: Sequence[Slot], budget: int) -> int:
        """Place chunks until one is not there and `budget` tokens were compiled; gives how many were.

        pages  of the sequence, on the device, for all of the prompt; nobody else's
        """
        table = [page.number for page in pages]
        tensor = self._pool.stores[DEVICE].tensor
        spent = 0
        while placing.left:
            number, start, tokens = placing.left[0]
            chunk, compiled, had = self._chunk(tokens, budget - spent)
            spent += compiled
            if chunk is None:
                break
            chunk.place(tensor, table, start, self._model.rotary)
            placing.cached += max(0, had - (min(self.k, len(tokens)) if number else 0))
            placing.left.popleft()
        self.counts.compiled_tokens += spent
        return spent

    def finish(self, placing: Placing) -> None:
        """All chunks of a prompt are placed, for the first time."""
        self.counts.prompts += 1
        self.counts.chunk_tokens += sum(placing.lengths)
        self.counts.recomputed_tokens += len(recomputed_rows(placing.lengths, placing.tail, self.k))

    def _chunk(self, tokens: tuple[int, ...], budget: int) -> tuple[Chunk | None, int, int]:
        """A chunk, as soon as it is there; tokens that were compiled now; rows that the pool had."""
        size = self._pool.page_tokens
        whole = filled(tokens, size)
        held = self._pool.acquire(whole, self._namespace)
        try:
            have = min(len(held.pages) * size, len(tokens))
            begun = self._begun(tokens, held, have)
            if have == len(tokens):
                assert begun is not None, "a chunk has tokens"
                self.counts.found += 1
                if self._used is not None:
                    self._used(whole, held.chain.names, held.pages)
                return begun, 0, have
            known = len(begun) if begun is not None else 0
            count = min(budget, len(tokens) - known)
            if count <= 0:
                return None, 0, have
            chunk = compile_chunk(self._model, tokens[known : known + count], begun=begun)
            if len(chunk) < len(tokens):
                self._partial = chunk
                return None, count, have
            self._partial = None
            self.counts.compiled += 1
            self._keep(chunk, whole, held)
            return chunk, count, have
        finally:
            self._pool.release(held.pages)

    def _begun(self, tokens: tuple[int, ...], held: Held, have: int) -> Chunk | None:
        """The longest beginning of a chunk: what was compiled of it last, or what the pool has."""
        partial = self._partial
        compiled = 0 if partial is None else len(partial)
        if partial is not None and compiled > have and partial.token_ids == tokens[:compiled]:
            return partial
        if not have:
            return None
        table = torch.tensor([page.number for page in held.pages], dtype=torch.int64)
        return Chunk.of_pages(tokens[:have], self._pool.stores[DEVICE].tensor[table])

    def _keep(self, chunk: Chunk, whole: Sequence[int], held: Held) -> None:
        """Let others find a chunk, if there is room for it."""
        have = len(held.pages)
        pages = chunk.pages(self._pool.page_tokens)[have:]
        try:
            slots = self._pool.alloc_mem(len(pages))
        except k2store.Overloaded:
            return
        table = torch.tensor([slot.number for slot in slots], dtype=torch.int64)
        self._pool.stores[DEVICE].tensor[table] = pages
        rest = whole[have * self._pool.page_tokens :]
        _, kept = self._pool.insert(held.chain, rest, slots, self._namespace)
        self._pool.release(kept)


def _spans(tokens: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, int, tuple[int, ...]]]:
    """Number, first row and tokens of each chunk."""
    spans, start = [], 0
    for number, length in enumerate(lengths):
        spans.append((number, start, tuple(tokens[start : start + length])))
        start += length
    return spans
