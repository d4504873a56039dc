"""The engine's core: one object, one thread, one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

import k2store
from kv_pool.blocks import Chain
from kv_pool.pool.block_pool import Slot
from serving.attention import Attention, Batch, Part
from serving.engine.request import Finish, Logprob, Outcome, Request
from serving.engine.sampling import choose, explain
from serving.engine.scheduler import RemotePrefix, Scheduler, Work
from serving.engine.sequence import Phase, Sequence
from serving.engine.settings import EngineSettings
from serving.engine.text import TextStream
from serving.linking.linker import LinkCounts, Linker
from serving.pages.mem_pool import DEVICE, MemPool
from serving.sparse.retention import MixedAttention, Retention, RetentionCounts

Attend = Callable[[Tensor, Batch], Attention]
"""Makes the attention object of a step from the device's pages and the batch."""

Decode = Callable[[Several[int]], str]


class Model(Protocol):
    """What the engine needs of a model."""

    def forward(self, token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """``[tokens]`` to ``[tokens, width]``."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """``[rows, width]`` to ``[rows, vocabulary]``."""
        ...


class Hooks(Protocol):
    """Who is told, in the engine's thread, where a sequence stands; what it does must not block."""

    def on_prefill_done(self, sequence: Sequence) -> None:
        """The first token was generated; the pages hold the whole prompt."""
        ...

    def on_finish(self, sequence: Sequence, finish: Finish) -> None:
        """The sequence is through; its pages are released when this returns."""
        ...


@dataclass
class EngineCounts:
    """What has happened so far.

    prompt_tokens    of requests that were admitted
    cached_tokens    of them, found computed
    computed_tokens  that went through the model, prompts, answers and what was computed again
    generated_tokens that came out
    finished         sequences, by why they ended
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    finished: dict[Finish, int] = field(default_factory=lambda: dict.fromkeys(Finish, 0))


class Engine:
    """See the package.

    context_tokens  longest sequence of the model
    vocabulary      number of tokens
    decode          tokens to text; without it there is no text, and no stop strings
    linker          links prompts that come in chunks; without it they are computed like any other
    retention       answers are decoded under its policy; without it all is kept and attended to
    """

    def __init__(
        self,
        model: Model,
        pool: MemPool,
        attend: Attend,
        *,
        vocabulary: int,
        context_tokens: int,
        settings: EngineSettings | None = None,
        decode: Decode | None = None,
        hooks: Hooks | None = None,
        remote: RemotePrefix | None = None,
        linker: Linker | None = None,
        retention: Retention | None = None,
    ) -> None:
        self.settings = settings or EngineSettings()
        self.settings.check()
        self.pool = pool
        self.counts = EngineCounts()
        self.vocabulary = vocabulary
        self.context_tokens = min(
            context_tokens,
            self.settings.context_tokens or context_tokens,
            pool.stores[DEVICE].pages * pool.page_tokens,
        )
        self._model = model
        self._attend = attend
        self._decode = decode
        self._hooks = hooks
        self._linker = linker
        self._retention = retention
        self._scheduler = Scheduler(pool, self.settings, remote, linker, retention)
        self._sequences: dict[int, Sequence] = {}
        self._outcomes: list[Outcome] = []
        self._next = 0

    # ------------------------------------------------------------------------------ requests

    def submit(self, request: Request, generated: Several[int] = ()) -> int:
        """Take on a request; gives the number of its sequence.

        generated  tokens that somebody else has generated and told: the answer goes on behind them

        `k2store.Rejected` for one that cannot be served, `k2store.Overloaded` when too many wait.
        """
        sequence = self._sequence(request)
        self._go_on(sequence, generated)
        scheduler = self._scheduler
        if len(scheduler.waiting) + len(scheduler.fetching) >= self.settings.waiting_max:
            raise k2store.Overloaded(
                f"{self.settings.waiting_max} requests wait already",
                limit="waiting_max",
                retry_after_s=1.0,
            )
        self._sequences[sequence.number] = sequence
        scheduler.waiting.append(sequence)
        self.counts.requests += 1
        return sequence.number

    def adopt(
        self,
        request: Request,
        generated: Several[int],
        chain: Chain,
        pages: Several[Slot],
        *,
        cached: int,
    ) -> int:
        """Go on with a sequence whose prompt somebody else has computed; gives its number here.

        generated  tokens that came after the prompt, at least one; they are told again as outcomes
        chain      names of the pages that are in the index; the caller holds them
        pages      of the whole prompt, in order: those of `chain`, then others from `alloc_mem`
        cached     tokens of the prompt that were found computed where it was computed

        The pages are the engine's from here on. `k2store.Rejected` and `k2store.Overloaded` leave
        them with the caller.
        """
        assert generated, "the last token has no keys and values yet: it is the next to be computed"
        sequence = self._sequence(request)
        assert not sequence.linked, "a prompt that somebody else has computed is exact"
        if len(self._scheduler.running) >= self.settings.step_tokens_max:
            raise k2store.Overloaded(
                "every token of a step is somebody's already", limit="step_tokens_max"
            )
        assert len(pages) == self._scheduler.pages_for(sequence.prompt_tokens)
        sequence.chain, sequence.pages = chain, list(pages)
        sequence.computed = sequence.prompt_tokens
        sequence.cached = cached
        self._sequences[sequence.number] = sequence
        self.counts.requests += 1
        self._scheduler.run(sequence)
        self._scheduler.store(sequence)
        for token in generated:
            if sequence.phase is Phase.RUNNING:
                self._accept(sequence, token, None)
        return sequence.number

    def cancel(self, number: int) -> bool:
        """End a sequence now; whether it was still there. There is no outcome."""
        sequence = self._sequences.get(number)
        if sequence is None:
            return False
        self._end(sequence, Finish.CANCELLED)
        return True

    def release(self, number: int) -> None:
        """End a parked sequence, whose pages were needed until now; nothing if it is gone."""
        sequence = self._sequences.get(number)
        if sequence is not None:
            assert sequence.phase is Phase.PARKED, "only who is parked is released"
            self._forget(sequence)

    def arrived(self, number: int) -> None:
        """What `RemotePrefix` wanted is in the pool, or will not come: the sequence goes on."""
        sequence = self._scheduler.fetching.pop(number, None)
        if sequence is not None:
            sequence.phase = Phase.WAITING
            self._scheduler.waiting.appendleft(sequence)

    # --------------------------------------------------------------------------------- steps

    @property
    def has_work(self) -> bool:
        """Whether a step could do something."""
        return bool(self._outcomes or self._scheduler.waiting or self._scheduler.running)

    def sequences(self) -> dict[Phase, int]:
        """How many sequences are where; those that are finished are nowhere."""
        found = dict.fromkeys(Phase, 0)
        for sequence in self._sequences.values():
            found[sequence.phase] += 1
        return found

    @property
    def links(self) -> LinkCounts:
        """What was linked so far."""
        return LinkCounts() if self._linker is None else self._linker.counts

    @property
    def retained(self) -> RetentionCounts:
        """What a retention policy has done so far."""
        return RetentionCounts() if self._retention is None else self._retention.counts

    @property
    def retained_pages(self) -> int:
        """Pages of a single layer that answers under a retention policy hold now."""
        retention = self._retention
        return 0 if retention is None else retention.arena.pages - retention.arena.free_pages

    @property
    def preemptions(self) -> int:
        """How often a running sequence had to give way."""
        return self._scheduler.preemptions

    def step(self) -> list[Outcome]:
        """Compute once; gives what became of every sequence that has something to tell."""
        scheduler = self._scheduler
        placed, compiled = scheduler.placed, scheduler.compiled_tokens
        work = scheduler.plan()
        compiled = scheduler.compiled_tokens - compiled
        self.counts.computed_tokens += compiled
        if work or compiled or scheduler.placed > placed:
            self.counts.steps += 1
        if work:
            self._compute(work)
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def check_integrity(self) -> None:
        """No page is lost, and every page that is held or taken is some sequence's.

        For tests and idle moments, when nobody outside the engine holds pages.
        """
        self.pool.check_integrity()
        if self._retention is not None:
            self._retention.check_integrity()
        census = self.pool.census()
        pages = [page for each in self._sequences.values() for page in each.pages]
        assert census.held + census.taken == len(set(pages)), "what is active is somebody's"

    # -------------------------------------------------------------------------------- inside

    def _sequence(self, request: Request) -> Sequence:
        request.check(self.vocabulary, self.context_tokens)
        if request.stop and self._decode is None:
            raise k2store.Rejected("stop strings need a tokenizer", field="stop")
        text = TextStream(self._decode, request.stop) if self._decode else None
        self._next += 1
        return Sequence(
            self._next,
            request,
            list(request.tokens),
            self.pool.empty_chain,
            text,
            linked=bool(request.chunks) and self._linker is not None,
        )

    def _go_on(self, sequence: Sequence, generated: Several[int]) -> None:
        """Have what was generated elsewhere behind the prompt, as if it had been told here."""
        request = sequence.request
        if generated and len(generated) >= min(
            request.max_tokens, self.context_tokens - sequence.prompt_tokens
        ):
            raise k2store.Rejected("the answer is complete", field="generated")
        for token in generated:
            if not 0 <= token < self.vocabulary or token in request.ends:
                raise k2store.Rejected(f"no answer goes on behind {token}", field="generated")
            sequence.tokens.append(token)
            if sequence.text is not None:
                sequence.text.push(token)
                if sequence.text.stopped:
                    raise k2store.Rejected("the answer has ended already", field="generated")

    def _compute(self, work: list[Work]) -> None:
        """One call of the model. Rows under a retention policy come behind all others."""
        work = sorted(work, key=self._is_retained)
        parts = [
            Part([one.sequence.tokens[row] for row in rows], rows, _numbers(one.sequence.pages))
            for one in work
            if not self._is_retained(one)
            for rows in [one.sequence.rows(one.tokens)]
        ]
        retained = [one.sequence for one in work[len(parts) :]]
        with torch.inference_mode():
            token_ids, positions, ends, attention = self._batch(parts, retained)
            hidden = self._model.forward(token_ids, positions, attention)
            done = [number for number, one in enumerate(work) if one.completes]
            logits = self._model.logits(hidden[ends[done]]) if done else hidden[:0]
        completed = [work[number].sequence for number in done]
        for sequence in retained:
            assert self._retention is not None, "somebody retains"
            self._retention.advance(sequence.number)
        for sequence, count in work:
            self.counts.computed_tokens += count
            sequence.advance(count)
            self._scheduler.store(sequence)
        for sequence, row in zip(completed, logits, strict=True):
            token = choose(row, sequence.request.sampling, sequence.generated)
            self._accept(sequence, token, row)

    def _is_retained(self, one: Work) -> bool:
        return self._retention is not None and one.sequence.decoded >= 0

    def _batch(
        self, parts: list[Part], retained: list[Sequence]
    ) -> tuple[Tensor, Tensor, Tensor, Attention]:
        """Tokens and positions of a step, where the rows of each sequence end, and what attends."""
        tensor = self.pool.stores[DEVICE].tensor
        batch = Batch.of(parts, self.pool.page_tokens, tensor.device) if parts else None
        exact = self._attend(tensor, batch) if batch else None
        if batch is not None and exact is not None and not retained:
            return batch.token_ids, batch.positions, batch.last_rows, exact
        retention = self._retention
        assert retention is not None, "somebody retains"
        single = [retention.attention(one.number, one.pages, one.prompt_tokens) for one in retained]
        tokens = torch.tensor([one.tokens[one.computed] for one in retained])
        places = torch.tensor([one.computed for one in retained])
        rows = torch.arange(len(retained))
        if batch is None:
            return tokens, places, rows, MixedAttention(None, 0, single)
        count = len(batch.token_ids)
        return (
            torch.cat((batch.token_ids, tokens)),
            torch.cat((batch.positions, places)),
            torch.cat((batch.last_rows, rows + count)),
            MixedAttention(exact, count, single),
        )

    def _accept(self, sequence: Sequence, token: int, logits: Tensor | None) -> None:
        """A sequence has another token: tell it, and see whether it is the last one."""
        request = sequence.request
        sequence.tokens.append(token)
        self.counts.generated_tokens += 1
        is_first, sequence.begun = not sequence.begun, True
        if is_first:
            self.counts.prompt_tokens += sequence.prompt_tokens
            self.counts.cached_tokens += sequence.cached or 0
        text, finish = "", None
        if token in request.ends:
            finish = Finish.STOP
        elif sequence.text is not None:
            text = sequence.text.push(token)
            finish = Finish.STOP if sequence.text.stopped else None
        generated = len(sequence.tokens) - sequence.prompt_tokens
        if finish is None and (
            generated >= request.max_tokens or len(sequence.tokens) >= self.context_tokens
        ):
            finish = Finish.LENGTH
        if finish is not None and sequence.text is not None:
            text += sequence.text.finish()
        logprob: float | None = None
        top: tuple[Logprob, ...] = ()
        if request.logprobs is not None and logits is not None:
            logprob, top = explain(logits, token, request.logprobs)
        usage = sequence.usage()
        self._outcomes.append(Outcome(sequence.number, token, text, finish, usage, logprob, top))
        if is_first and logits is not None and self._hooks is not None:
            self._hooks.on_prefill_done(sequence)
        if finish is not None:
            self._end(sequence, finish)
        elif request.parks:
            self._scheduler.remove(sequence, Phase.PARKED)

    def _end(self, sequence: Sequence, finish: Finish) -> None:
        self.counts.finished[finish] += 1
        if self._hooks is not None:
            self._hooks.on_finish(sequence, finish)
        is_exact = self.settings.keeps_prefixes and not sequence.linked
        if self._retention is not None and is_exact and finish is not Finish.CANCELLED:
            self._retention.keep(sequence.number, sequence.tokens, sequence.prompt_tokens)
        self._forget(sequence)

    def _forget(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence, Phase.FINISHED)
        self._scheduler.let_go(sequence)
        del self._sequences[sequence.number]


def _numbers(pages: Several[Slot]) -> list[int]:
    return [page.number for page in pages]
