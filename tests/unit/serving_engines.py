"""Engines over a tiny model, and what it says to a prompt when nothing is shared, cut or cached."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from torch import Tensor

from serving.attention import Attention, Batch, PagedAttention
from serving.engine.engine import Engine, Hooks
from serving.engine.request import Finish, Outcome, Request
from serving.engine.scheduler import RemotePrefix
from serving.engine.settings import EngineSettings
from serving.linking import Linker
from serving.model.llama import Llama
from serving.pages.geometry import Geometry
from serving.pages.mem_pool import MemPool
from serving.pages.store import PageStore
from serving.sparse.retention import Retention
from tests.unit.serving_models import TINY, greedy, pool_for

PAGE_TOKENS = 16
GEOMETRY = Geometry(layers=TINY.layers, kv_heads=TINY.kv_heads, head_dim=TINY.head_dim)


@cache
def lively() -> Llama:
    """A tiny Llama whose next token depends on all before it.

    Freshly drawn weights are so small that the tied embedding repeats the last token for ever, and any
    cache would look right. With matrices twelve times larger, changing the first token of a
    prompt changes its answer.
    """
    model = Llama.random(TINY, seed=1)
    weights = {
        name: weight if name == "embedding" or weight.dim() == 1 else 12 * weight
        for name, weight in model.weights.items()
    }
    return Llama(TINY, weights)


def text_of(tokens: Sequence[int]) -> str:
    """A tokenizer of the tests: a token is a letter."""
    return "".join(chr(ord("a") + token % 26) for token in tokens)


def pool_of(device: int = 32, host: int = 0) -> MemPool:
    """A pool for the lively model."""
    return MemPool(
        b"tiny".ljust(16), [PageStore(GEOMETRY, size) for size in (device, host) if size]
    )


def engine_of(
    pool: MemPool | None = None,
    settings: EngineSettings | None = None,
    *,
    hooks: Hooks | None = None,
    remote: RemotePrefix | None = None,
    linker: Linker | None = None,
    retention: Retention | None = None,
) -> Engine:
    """An engine for the lively model."""
    model = lively()

    def attend(pages: Tensor, batch: Batch) -> Attention:
        return PagedAttention(pages, batch, model.rotary)

    return Engine(
        model,
        pool or pool_of(),
        attend,
        vocabulary=TINY.vocabulary,
        context_tokens=TINY.context_tokens,
        settings=settings,
        decode=text_of,
        hooks=hooks,
        remote=remote,
        linker=linker,
        retention=retention,
    )


def prompt_of(length: int, seed: int = 0) -> tuple[int, ...]:
    """A prompt; prompts of one seed begin alike."""
    return tuple((seed * 31 + at * at * 7 + at // 5) % TINY.vocabulary for at in range(length))


@cache
def answer_of(prompt: tuple[int, ...], count: int) -> list[int]:
    """What the model says, computed alone in one piece."""
    model = lively()
    pages = -(-(len(prompt) + count) // PAGE_TOKENS)
    return greedy(model, pool_for(model, pages), range(pages), prompt, -1, count)


def run(engine: Engine, *, check: bool = True) -> dict[int, list[Outcome]]:
    """Step until nobody has anything to do; outcomes by sequence."""
    found: dict[int, list[Outcome]] = {}
    idle = False
    while engine.has_work and not idle:
        steps = engine.counts.steps
        outcomes = engine.step()
        idle = engine.counts.steps == steps and not outcomes
        for outcome in outcomes:
            found.setdefault(outcome.number, []).append(outcome)
        if check:
            engine.check_integrity()
    return found


def tokens_of(outcomes: Sequence[Outcome]) -> list[int]:
    """The tokens that were generated."""
    return [outcome.token for outcome in outcomes if outcome.token is not None]


def finish_of(outcomes: Sequence[Outcome]) -> Finish | None:
    """Why a sequence ended."""
    return outcomes[-1].finish


def ask(engine: Engine, prompt: tuple[int, ...], count: int = 8) -> list[Outcome]:
    """One request, alone."""
    number = engine.submit(Request(tokens=prompt, max_tokens=count))
    return run(engine)[number]
