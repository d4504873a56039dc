"""Which tokens the next step computes, and whose pages they fill.

Running sequences come first, in the order in which they were admitted, those that decode before those that
still read their prompt: nobody waits for a token because somebody came with a long prompt. What
is left of the step's tokens goes to prompts, in chunks, and then to those who wait, first come first served.

Pages: who is admitted gets them for all that it has so far; a running sequence gets one more when it
grows into it. When there is none, the sequence that was admitted last gives way. Its full pages stay in
the index, so what it has computed is found again, on the device or further down, if nobody needed the
room meanwhile.

Who waits for a page that a running sequence is about to fill goes on waiting, and others pass: a prompt that
came with a hundred others of the same beginning is computed once.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

import k2store
from kv_pool.blocks import NAME_BYTES, Names, chain
from kv_pool.pool.block_pool import Slot
from serving.engine.sequence import Phase, Sequence
from serving.engine.settings import EngineSettings
from serving.pages.mem_pool import MemPool


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
        self, pool: MemPool, settings: EngineSettings, remote: RemotePrefix | None
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._remote = remote
        self.waiting: deque[Sequence] = deque()
        self.fetching: dict[int, Sequence] = {}
        self.running: list[Sequence] = []
        self.preemptions = 0

    def plan(self) -> list[Work]:
        """The next step. Empty when nobody has anything to do, or all room is held by others."""
        budget = self._settings.step_tokens_max
        work: list[Work] = []
        for sequence in sorted(self.running, key=lambda one: not one.is_decoding):
            if sequence.phase is not Phase.RUNNING or not budget:
                continue
            count = min(sequence.missing, budget)
            if self._grow(sequence, sequence.computed + count, work):
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
                work.append(Work(sequence, min(sequence.missing, budget)))
                budget -= work[-1].tokens
        return work

    def run(self, sequence: Sequence) -> None:
        """A sequence that has its pages already runs from now on."""
        sequence.phase = Phase.RUNNING
        self.running.append(sequence)

    def store(self, sequence: Sequence) -> None:
        """Put pages that are full by now into the index."""
        if not self._settings.keeps_prefixes:
            return
        page_tokens = self._pool.page_tokens
        known, full = sequence.chain.blocks, sequence.computed // page_tokens
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
        self._pool.release(sequence.pages)
        sequence.pages = []
        sequence.computed = 0
        sequence.chain = self._pool.empty_chain

    def pages_for(self, tokens: int) -> int:
        """How many pages so many tokens need."""
        return -(-tokens // self._pool.page_tokens)

    # ------------------------------------------------------------------------------ inside

    def _grow(self, sequence: Sequence, tokens: int, work: list[Work]) -> bool:
        """Have pages for so many tokens, if need be at the expense of who came last."""
        while (wanted := self.pages_for(tokens) - len(sequence.pages)) > 0:
            pages = self._alloc(wanted)
            if pages is not None:
                sequence.pages += pages
                break
            busy = {one.sequence.number for one in work}
            victim = next(one for one in reversed(self.running) if one.number not in busy)
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

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
        usable = tokens[: self._reusable(sequence)]
        names = chain(self._pool.empty_chain.tail, usable, self._pool.page_tokens).names
        held = len(self._pool.match(usable))
        return self._remote.wants(sequence.number, tokens, names, held)

    def _is_being_computed(self, sequence: Sequence) -> bool:
        """Whether the next block that a sequence misses is one that a running sequence computes."""
        if not self._settings.keeps_prefixes:
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
        reusable = sequence.tokens[: self._reusable(sequence)]
        wanted = self.pages_for(len(sequence.tokens))
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
        if sequence.cached is None:
            sequence.cached = min(sequence.computed, sequence.prompt_tokens)
        sequence.pages += pages
        self.waiting.remove(sequence)
        self.run(sequence)
        return True

    def _reusable(self, sequence: Sequence) -> int:
        """How many tokens may come from the pool: the last one is computed, for its logits."""
        return len(sequence.tokens) - 1 if self._settings.keeps_prefixes else 0

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
