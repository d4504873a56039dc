"""The real model through the engine: wherever keys and values come from, the tokens are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.engine.assembly import Tiers, engine_over
from serving.engine.engine import Engine
from serving.engine.request import Request
from serving.engine.settings import EngineSettings
from serving.model import Message, prompt_tokens
from tests.unit.serving_models import greedy, pool_for, smollm2

QUESTIONS = (
    "Write one sentence about the sea.",
    "Name three colours of the rainbow.",
    "What does a librarian do all day?",
)
ANSWER = 16


def prompt_of(question: str) -> tuple[int, ...]:
    """The tokens of a question, behind a system message that all questions share."""
    system = Message("system", "You answer in a few plain words, and only what was asked.")
    return tuple(prompt_tokens(smollm2().tokenizer, [system, Message("user", question)]))


def answers(engine: Engine, prompts: list[tuple[int, ...]]) -> list[tuple[list[int], int]]:
    """Answers to prompts that come together, each with how many tokens were cached."""
    ends = frozenset({smollm2().tokenizer.end})
    numbers = [
        engine.submit(Request(tokens=prompt, max_tokens=ANSWER, ends=ends)) for prompt in prompts
    ]
    tokens: dict[int, list[int]] = {number: [] for number in numbers}
    cached = {}
    while engine.has_work:
        for outcome in engine.step():
            if outcome.token is not None and outcome.token not in ends:
                tokens[outcome.number].append(outcome.token)
            cached[outcome.number] = outcome.usage.cached
        engine.check_integrity()
    return [(tokens[number], cached[number]) for number in numbers]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_greedy_tokens_are_the_same_wherever_the_pages_were(tmp_path: Path) -> None:
    """Computed alone in a plain loop, computed by the engine in small chunks, hit on the device, swapped in from
    the host, from the disk, in a batch, and after preemption: one answer to each question."""
    model, tokenizer = smollm2().model, smollm2().tokenizer
    prompts = [prompt_of(question) for question in QUESTIONS]
    alone = [
        greedy(model, pool_for(model, 8), range(8), prompt, tokenizer.end, ANSWER)
        for prompt in prompts
    ]
    assert len({tuple(answer) for answer in alone}) == len(QUESTIONS)

    tiers = Tiers(device=24, host=1, disk=24, disk_path=tmp_path / "pages")
    engine = engine_over(smollm2(), tiers, EngineSettings(step_tokens_max=19))
    shared = (len(prompts[0]) - 1) // 16 * 16

    def ask(which: int) -> int:
        [(tokens, cached)] = answers(engine, [prompts[which]])
        assert tokens == alone[which]
        return cached

    assert ask(0) == 0
    assert ask(0) == shared
    held = engine.pool.census().cached
    assert engine.pool.swap_out(held) == held
    assert {slot.tier for slot in engine.pool.match(prompts[0])} == {1, 2}
    before = engine.pool.counts.swapped_in
    assert ask(0) == shared
    assert engine.pool.counts.swapped_in - before == shared // 16
    # The first page of all prompts is the system message's.
    assert ask(1) >= 16
    assert [tokens for tokens, _ in answers(engine, prompts)] == alone
    assert engine.pool.counts.damaged == 0
    engine.pool.close()

    small = engine_over(smollm2(), Tiers(device=7, host=9))
    assert [tokens for tokens, _ in answers(small, prompts)] == alone
    assert small.preemptions > 0
