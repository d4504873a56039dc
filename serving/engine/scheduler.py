"""Which tokens the next step computes, and whose pages they fill.

Running sequences come first, in the order in which they were admitted, those that decode before those that
still read their prompt: nobody waits for a token because somebody came with a long prompt. What
is left of the step's tokens goes to prompts, in chunks, and then to those who wait, first come first served.

Pages: who is admitted gets them for all that it has so far; a running sequence gets one more when it
grows into it. When there is none, the sequence that was admitted last gives way. Its full pages stay in
the index, so what it has computed is found again, on the device or further down, if nobody needed the
room meanwhile.

A prompt of chunks that is to be linked (`serving.linking.linker`) gets pages of its own; its chunks are placed
there, or compiled first, at the expense of the same tokens of a step. Then only the rows are missing that belong
to the place.

Under a retention policy (`serving.sparse.retention`) an answer has pages of another kind, and grows by a row a step,
also where it is gone through once more.

Who waits for a page that a running sequence is about to fill goes on waiting, and others pass: a prompt that
came with a hundred others of the same beginning is computed once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Several
from typing import NamedTuple, Protocol

import k2store
from kv_pool.blocks import NAME_BYTES, Names, chain
from kv_pool.pool.block_pool import Slot
from serving.engine.sequence import Phase, Sequence
from serving.engine.settings import EngineSettings
from serving.linking.linker import Linker
from serving.pages.mem_pool import MemPool
from serving.sparse.retention import Retention


class RemotePrefix(Protocol):
    """Who can bring pages from elsewhere."""

    def wants(self, number: int, tokens: tuple[int, ...], names: Names, held: int) -> bool:
        """Whether the sequence should wait for pages that come from elsewhere.

        number  of the sequence, for `Engine.arrived`, which must follow in the end, whatever comes
        tokens  of the sequence
        names   of its whole blocks
        held    how many of them are in the pool here

        Called in the engine's thread; must not block.
        """
        ...

    def wants_chunks(self, number: int, chunks: Several[tuple[int, ...]]) -> bool:
        """The same of compiled chunks, those that the pool here lacks, by their tokens."""
        ...


class Work(NamedTuple):
    """So many tokens of one sequence that a step computes, from its `computed` on."""

    sequence: Sequence
    tokens: int

    @property
    def completes(self) -> bool:
        """Whether the sequence is through with what it has, and gets a next token."""
        return self.tokens == self.sequence.missing


class Scheduler:
    """Sequences that wait and run, in order."""

    def __init__(
        self,
        pool: MemPool,
        settings: EngineSettings,
        remote: RemotePrefix | None,
        linker: Linker | None = None,
        retention: Retention | None = None,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._remote = remote
        self._linker = linker
        self._retention = retention
        self.waiting: deque[Sequence] = deque()
        self.fetching: dict[int, Sequence] = {}
        self.running: list[Sequence] = []
        self.preemptions = 0
        # Chunks that were placed, and tokens that were compiled on the way, by all plans so far.
        self.placed = 0
        self.compiled_tokens = 0

    def plan(self) -> list[Work]:
        """The next step. Empty when nobody has anything to do, or all room is held by others."""
        budget = self._settings.step_tokens_max
        work: list[Work] = []
        for sequence in sorted(self.running, key=lambda one: not one.is_decoding):
            if sequence.phase is not Phase.RUNNING or not budget:
                continue
            budget -= self._place(sequence, budget)
            if sequence.placing is not None or not budget:
                continue
            count = self._count(sequence, budget)
            if self._grow(sequence, count, work):
                work.append(Work(sequence, count))
                budget -= count
        for sequence in list(self.waiting):
            if not budget or len(self.running) >= self._settings.sequences_max:
                break
            if self._fetches(sequence):
                self.remove(sequence, Phase.FETCHING)
                self.fetching[sequence.number] = sequence
            elif not self._is_being_computed(sequence):
                if not self._admit(sequence):
                    break
                budget -= self._place(sequence, budget)
                if sequence.placing is not None or not budget:
                    continue
                count = self._count(sequence, budget)
                if self._grow(sequence, count, work):
                    work.append(Work(sequence, count))
                    budget -= count
        return work

    def run(self, sequence: Sequence) -> None:
        """A sequence that has its pages already runs from now on."""
        sequence.phase = Phase.RUNNING
        self.running.append(sequence)

    def store(self, sequence: Sequence) -> None:
        """Put pages that are full by now into the index."""
        if sequence.linked or not self._settings.keeps_prefixes:
            return
        page_tokens = self._pool.page_tokens
        known = sequence.chain.blocks
        full = self._in_pages(sequence, sequence.computed) // page_tokens
        if known < full:
            sequence.chain, pages = self._pool.insert(
                sequence.chain,
                sequence.tokens[known * page_tokens : full * page_tokens],
                sequence.pages[known:full],
            )
            sequence.pages[known:full] = pages

    def remove(self, sequence: Sequence, phase: Phase) -> None:
        """Take a sequence out of wherever it is; its pages stay its own."""
        match sequence.phase:
            case Phase.WAITING:
                self.waiting.remove(sequence)
            case Phase.FETCHING:
                del self.fetching[sequence.number]
            case Phase.RUNNING:
                self.running.remove(sequence)
            case Phase.PARKED | Phase.FINISHED:
                pass
        sequence.phase = phase

    def let_go(self, sequence: Sequence) -> None:
        """Release the pages of a sequence."""
        if self._retention is not None:
            self._retention.drop(sequence.number)
        self._pool.release(sequence.pages)
        sequence.pages = []
        sequence.computed = 0
        sequence.redo = []
        sequence.placing = None
        sequence.chain = self._pool.empty_chain

    def pages_for(self, tokens: int) -> int:
        """How many pages so many tokens need."""
        return -(-tokens // self._pool.page_tokens)

    # ------------------------------------------------------------------------------ inside

    def _place(self, sequence: Sequence, budget: int) -> int:
        """Bring chunks of a linked prompt to its pages; gives how many tokens of them were compiled."""
        placing = sequence.placing
        if placing is None:
            return 0
        assert self._linker is not None, "who has no linker links nothing"
        left = len(placing.left)
        compiled = self._linker.advance(placing, sequence.pages, budget)
        self.placed += left - len(placing.left)
        self.compiled_tokens += compiled
        if not placing.left:
            sequence.placing = None
            if sequence.cached is None:
                sequence.cached = placing.cached
                self._linker.finish(placing)
        return compiled

    def _in_pages(self, sequence: Sequence, tokens: int) -> int:
        """How many of so many tokens lie in pages of the pool: under a retention policy only the prompt's."""
        return tokens if self._retention is None else min(tokens, sequence.prompt_tokens)

    def _count(self, sequence: Sequence, budget: int) -> int:
        """How many rows of a sequence a step computes: behind its prompt, under a retention policy, one."""
        if self._retention is None:
            return min(sequence.missing, budget)
        return min(max(1, -sequence.decoded), budget)

    def _grow(self, sequence: Sequence, count: int, work: list[Work]) -> bool:
        """Have pages for so many more rows, if need be at the expense of who came last."""
        reach = sequence.computed + max(0, count - len(sequence.redo))
        wanted = self.pages_for(self._in_pages(sequence, reach))
        while len(sequence.pages) < wanted or not self._has_arena(sequence, work):
            pages = (
                self._alloc(wanted - len(sequence.pages)) if wanted > len(sequence.pages) else ()
            )
            if pages:
                sequence.pages += pages
                continue
            busy = {one.sequence.number for one in work}
            victim = next(one for one in reversed(self.running) if one.number not in busy)
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _has_arena(self, sequence: Sequence, work: list[Work]) -> bool:
        """Whether a retention policy has pages for the next rows of a sequence, and of those before it."""
        retention = self._retention
        if retention is None:
            return True
        growing = (sequence, *[one.sequence for one in work])
        wanted = sum(
            retention.wanted(one.prompt_tokens, one.decoded) for one in growing if one.decoded >= 0
        )
        return wanted <= retention.arena.free_pages

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self.remove(sequence, Phase.WAITING)
        self.let_go(sequence)
        self.waiting.appendleft(sequence)

    def _fetches(self, sequence: Sequence) -> bool:
        """Ask once whether pages of a sequence should be brought from elsewhere first."""
        if self._remote is None or sequence.asked or not self._settings.keeps_prefixes:
            return False
        sequence.asked = True
        tokens = tuple(sequence.tokens)
        if sequence.linked:
            assert self._linker is not None, "who has no linker links nothing"
            missing = self._linker.missing(tokens, sequence.request.chunks)
            return bool(missing) and self._remote.wants_chunks(sequence.number, missing)
        usable = tokens[: self._reusable(sequence)]
        names = chain(self._pool.empty_chain.tail, usable, self._pool.page_tokens).names
        held = len(self._pool.match(usable))
        return self._remote.wants(sequence.number, tokens, names, held)

    def _is_being_computed(self, sequence: Sequence) -> bool:
        """Whether the next block that a sequence misses is one that a running sequence computes."""
        if sequence.linked or not self._settings.keeps_prefixes:
            return False
        tokens = sequence.tokens[: self._reusable(sequence)]
        if not sequence.names:
            sequence.names = chain(
                self._pool.empty_chain.tail, tokens, self._pool.page_tokens
            ).names
        known = len(self._pool.match(tokens, sequence.names))
        block = slice(known * NAME_BYTES, (known + 1) * NAME_BYTES)
        name = sequence.names[block]
        return bool(name) and any(
            other.names[block] == name and other.chain.blocks <= known for other in self.running
        )

    def _admit(self, sequence: Sequence) -> bool:
        """Let a waiting sequence run, with what the pool has of it and pages for the rest."""
        if self._retention is not None and not self._retention.has_room:
            return False
        reusable = sequence.tokens[: self._reusable(sequence)]
        wanted = self.pages_for(self._in_pages(sequence, len(sequence.tokens)))
        if not self._has_room(reusable, wanted):
            return False
        if reusable:
            held = self._pool.acquire(reusable)
            sequence.chain, sequence.pages = held.chain, list(held.pages)
        pages = self._alloc(wanted - len(sequence.pages))
        if pages is None:
            self.let_go(sequence)
            return False
        sequence.computed = len(sequence.pages) * self._pool.page_tokens
        if sequence.linked:
            self._link(sequence)
        elif sequence.cached is None:
            sequence.cached = min(sequence.computed, sequence.prompt_tokens)
        sequence.pages += pages
        self.waiting.remove(sequence)
        self.run(sequence)
        return True

    def _link(self, sequence: Sequence) -> None:
        """Begin to put a prompt together: what is missing are the rows that are computed for their place."""
        assert self._linker is not None, "who has no linker links nothing"
        chunks = sequence.request.chunks
        sequence.placing = self._linker.begin(sequence.request.tokens, chunks)
        sequence.redo = list(sequence.placing.redo)
        sequence.computed = sum(chunks)

    def _reusable(self, sequence: Sequence) -> int:
        """How many tokens may come from the pool as they are: the last one is computed, for its logits."""
        if sequence.linked or not self._settings.keeps_prefixes:
            return 0
        return self._in_pages(sequence, len(sequence.tokens) - 1)

    def _has_room(self, reusable: list[int], wanted: int) -> bool:
        """Whether so many pages could be had, before anything is moved for their sake."""
        census = self._pool.census()
        shared = self._pool.held_pages(reusable)
        return wanted - shared <= census.free + census.cached

    def _alloc(self, count: int) -> tuple[Slot, ...] | None:
        try:
            return self._pool.alloc_mem(count)
        except k2store.Overloaded:
            return None
