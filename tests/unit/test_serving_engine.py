"""The engine by example, on a tiny model: what is shared, cut, moved or given back changes no token."""

from __future__ import annotations

from collections.abc import Sequence as Several

import pytest

import k2store
from kv_pool.blocks import Names, split_names
from serving.engine.assembly import block_cost
from serving.engine.engine import Engine
from serving.engine.request import Finish, Request, Sampling, Usage
from serving.engine.sequence import Phase, Sequence
from serving.engine.settings import EngineSettings
from tests.unit.serving_engines import (
    PAGE_TOKENS,
    answer_of,
    ask,
    engine_of,
    finish_of,
    lively,
    pool_of,
    prompt_of,
    run,
    text_of,
    tokens_of,
)


def test_an_answer_is_that_of_the_model_alone() -> None:
    """One request gives the greedy tokens of a plain loop, as text as well, and gives its pages back."""
    engine = engine_of()
    prompt = prompt_of(40)
    outcomes = ask(engine, prompt, 20)
    assert tokens_of(outcomes) == answer_of(prompt, 20)
    assert "".join(outcome.text for outcome in outcomes) == text_of(answer_of(prompt, 20))
    assert finish_of(outcomes) is Finish.LENGTH
    assert engine.pool.census().held + engine.pool.census().taken == 0
    assert engine.sequences()[Phase.RUNNING] == 0
    assert engine.counts.finished[Finish.LENGTH] == 1


def test_answers_of_the_tests_depend_on_every_token() -> None:
    """The model of these tests would betray a wrong page: its answer turns on the prompt's first token."""
    prompt = prompt_of(40)
    other = ((prompt[0] + 1) % 97, *prompt[1:])
    assert answer_of(prompt, 20) != answer_of(other, 20)
    assert len(set(answer_of(prompt, 20))) > 10


def test_a_known_prefix_is_not_computed_again() -> None:
    """The second turn of a conversation computes what is new, down to whole pages; its answer is that of
    a full prefill."""
    engine = engine_of()
    prompt = prompt_of(40)
    first = ask(engine, prompt, 20)
    turn = (*prompt, *tokens_of(first), 5, 6, 7)
    before = engine.counts.computed_tokens
    second = ask(engine, turn, 10)
    # 40 + 20 tokens of which the last has no keys: 59 // 16 pages of 16 were kept.
    assert second[-1].usage.cached == 48
    assert engine.counts.computed_tokens - before == len(turn) - 48 + 9
    assert tokens_of(second) == answer_of(turn, 10)


def test_the_last_token_of_a_known_prompt_is_computed() -> None:
    """A prompt of whole pages that are all known still gets its logits: one page is computed anew."""
    engine = engine_of()
    prompt = prompt_of(48)
    first, second = ask(engine, prompt), ask(engine, prompt)
    assert [one[-1].usage.cached for one in (first, second)] == [0, 32]
    assert tokens_of(first) == tokens_of(second) == answer_of(prompt, 8)


def test_a_host_page_comes_up_with_the_same_tokens() -> None:
    """What was swapped out is swapped in, counted as cached, and leads to the same answer."""
    engine = engine_of(pool_of(8, host=8))
    prompt = prompt_of(64)
    ask(engine, prompt)
    assert engine.pool.swap_out(8) == 4
    again = ask(engine, prompt)
    assert again[-1].usage.cached == 48
    assert engine.pool.counts.swapped_in == 3
    assert tokens_of(again) == answer_of(prompt, 8)


def test_requests_at_a_time_do_not_disturb_each_other() -> None:
    """Prompts of all lengths, in chunks of 24 tokens beside the decoding of others: each answer is its own."""
    engine = engine_of(pool_of(64), EngineSettings(step_tokens_max=24, sequences_max=5))
    prompts = [prompt_of(length, seed) for seed, length in enumerate((1, 15, 16, 17, 70, 33, 2))]
    numbers = [engine.submit(Request(tokens=prompt, max_tokens=12)) for prompt in prompts]
    found = run(engine)
    for number, prompt in zip(numbers, prompts, strict=True):
        assert tokens_of(found[number]) == answer_of(prompt, 12)


def test_a_beginning_that_many_share_is_computed_once() -> None:
    """Prompts that come together wait for the pages that the first of them computes; another passes them."""
    engine = engine_of(pool_of(64), EngineSettings(step_tokens_max=40, sequences_max=8))
    beginning = prompt_of(64)
    prompts = [(*beginning, *range(seed, seed + 5)) for seed in range(4)]
    numbers = [engine.submit(Request(tokens=prompt, max_tokens=4)) for prompt in prompts]
    other = engine.submit(Request(tokens=prompt_of(9, 5), max_tokens=1))
    engine.step()
    assert engine.sequences()[Phase.WAITING] == 4
    found = run(engine)
    assert tokens_of(found[other]) == answer_of(prompt_of(9, 5), 1)
    for number, prompt in zip(numbers, prompts, strict=True):
        assert tokens_of(found[number]) == answer_of(prompt, 4)
        assert found[number][-1].usage.cached == (0 if number == numbers[0] else 64)
    assert engine.counts.computed_tokens == 64 + 4 * (5 + 3) + 9


def test_who_waits_for_a_page_goes_on_when_its_maker_is_gone() -> None:
    """If the sequence that computes the shared beginning is cancelled, the next one computes it."""
    engine = engine_of(pool_of(64), EngineSettings(step_tokens_max=20))
    prompt = prompt_of(64)
    numbers = [engine.submit(Request(tokens=prompt, max_tokens=4)) for _ in range(3)]
    engine.step()
    assert engine.cancel(numbers[0])
    found = run(engine)
    assert sorted(found) == numbers[1:]
    assert all(tokens_of(outcomes) == answer_of(prompt, 4) for outcomes in found.values())


def test_what_was_generated_elsewhere_is_never_counted_as_prompt() -> None:
    """A request that goes on behind tokens from elsewhere finds them cached, but says no more than its prompt."""
    engine = engine_of()
    prompt = prompt_of(20)
    ask(engine, prompt, 30)
    generated = answer_of(prompt, 30)[:25]
    number = engine.submit(Request(tokens=prompt, max_tokens=30), generated)
    outcomes = run(engine)[number]
    assert tokens_of(outcomes) == answer_of(prompt, 30)[25:]
    assert outcomes[-1].usage == Usage(prompt=20, cached=20, completion=30)


def test_no_step_exceeds_its_tokens_and_decoding_goes_first() -> None:
    """While a long prompt is read in chunks, the sequence that decodes gets a token in every step."""
    engine = engine_of(pool_of(64), EngineSettings(step_tokens_max=20, sequences_max=4))
    short = engine.submit(Request(tokens=prompt_of(4), max_tokens=30))
    engine.step()
    engine.submit(Request(tokens=prompt_of(100, 1), max_tokens=1))
    for _ in range(5):
        before = engine.counts.computed_tokens
        outcomes = engine.step()
        assert engine.counts.computed_tokens - before <= 20
        assert short in {outcome.number for outcome in outcomes}


@pytest.mark.parametrize("host", [0, 16])
def test_who_came_last_gives_way_and_loses_nothing(host: int) -> None:
    """When decoding outgrows the pages, the youngest is preempted and later goes on: recomputed without
    a host tier, swapped in with one; nobody's tokens change."""
    engine = engine_of(pool_of(9, host), EngineSettings(sequences_max=4))
    prompts = [prompt_of(40, seed) for seed in range(3)]
    numbers = [engine.submit(Request(tokens=prompt, max_tokens=30)) for prompt in prompts]
    found = run(engine)
    assert engine.preemptions > 0
    assert (engine.pool.counts.swapped_in > 0) == bool(host)
    for number, prompt in zip(numbers, prompts, strict=True):
        assert tokens_of(found[number]) == answer_of(prompt, 30)
        assert found[number][-1].usage.cached == 0


def test_without_keeping_nothing_is_found() -> None:
    """An engine that keeps no prefixes computes every prompt, and says so."""
    engine = engine_of(settings=EngineSettings(keeps_prefixes=False))
    prompt = prompt_of(50)
    first, second = ask(engine, prompt), ask(engine, prompt)
    assert tokens_of(first) == tokens_of(second) == answer_of(prompt, 8)
    assert engine.counts.computed_tokens == 2 * (50 + 7)
    assert engine.pool.census().free == engine.pool.census().total


def test_cancelling_gives_everything_back() -> None:
    """A sequence that waits, runs or parks can be cancelled; a second time there is nothing to cancel."""
    engine = engine_of(settings=EngineSettings(sequences_max=2))
    running = engine.submit(Request(tokens=prompt_of(30), max_tokens=50))
    parked = engine.submit(Request(tokens=prompt_of(30, 1), max_tokens=50, parks=True))
    engine.step()
    waiting = engine.submit(Request(tokens=prompt_of(30, 2), max_tokens=50))
    assert engine.sequences()[Phase.PARKED] == 1
    assert [engine.cancel(number) for number in (running, parked, waiting)] == [True] * 3
    assert [engine.cancel(number) for number in (running, parked, waiting)] == [False] * 3
    engine.check_integrity()
    assert not engine.has_work
    assert engine.counts.finished[Finish.CANCELLED] == 3


def test_an_end_token_and_a_stop_string_end_the_text() -> None:
    """The answer ends with the token that ends it, or before the string that does; both say stop."""
    prompt = prompt_of(20)
    answer = answer_of(prompt, 20)
    ends = next(token for token in answer[3:] if token not in answer[:3])
    engine = engine_of()
    number = engine.submit(Request(tokens=prompt, max_tokens=20, ends=frozenset({ends})))
    outcomes = run(engine)[number]
    assert tokens_of(outcomes) == answer[: answer.index(ends) + 1]
    assert finish_of(outcomes) is Finish.STOP
    assert "".join(one.text for one in outcomes) == text_of(answer[: answer.index(ends)])
    stop = text_of(answer)[5:8]
    number = engine.submit(Request(tokens=prompt, max_tokens=20, stop=("zzzz", stop)))
    outcomes = run(engine)[number]
    assert finish_of(outcomes) is Finish.STOP
    whole = text_of(answer)
    assert "".join(one.text for one in outcomes) == whole[: whole.index(stop)]


def test_what_cannot_be_served_is_refused_by_name() -> None:
    """A request out of bounds is rejected with its field, one too many is told to come later."""
    engine = engine_of(pool_of(4), EngineSettings(waiting_max=1))
    for wrong, name in (
        (Request(tokens=()), "prompt"),
        (Request(tokens=(97,)), "prompt"),
        (Request(tokens=(-1,)), "prompt"),
        (Request(tokens=prompt_of(64)), "prompt"),
        (Request(tokens=(1,), max_tokens=0), "max_tokens"),
        (Request(tokens=(1,), logprobs=21), "logprobs"),
        (Request(tokens=(1,), stop=("",)), "stop"),
        (Request(tokens=(1,), sampling=Sampling(temperature=float("nan"))), "temperature"),
        (Request(tokens=(1,), sampling=Sampling(top_p=0.0)), "top_p"),
    ):
        with pytest.raises(k2store.Rejected) as refused:
            engine.submit(wrong)
        assert refused.value.field == name
    engine.submit(Request(tokens=(1,)))
    with pytest.raises(k2store.Overloaded) as full:
        engine.submit(Request(tokens=(1,)))
    assert full.value.limit == "waiting_max"
    with pytest.raises(k2store.Rejected):
        engine_of(settings=EngineSettings(step_tokens_max=4, sequences_max=5))


def test_the_longest_sequence_fills_the_device() -> None:
    """A sequence may have all pages of the device; it ends when they are full."""
    engine = engine_of(pool_of(4))
    outcomes = ask(engine, prompt_of(60), 100)
    assert finish_of(outcomes) is Finish.LENGTH
    assert len(tokens_of(outcomes)) == 4


class Told:
    """Hooks that note what they are told, and the pages at that moment."""

    def __init__(self) -> None:
        self.prefilled: list[tuple[int, int]] = []
        self.finished: list[tuple[int, Finish, int]] = []

    def on_prefill_done(self, sequence: Sequence) -> None:
        """A prompt is computed."""
        self.prefilled.append((sequence.number, len(sequence.pages)))

    def on_finish(self, sequence: Sequence, finish: Finish) -> None:
        """A sequence is through; its pages are still there."""
        self.finished.append((sequence.number, finish, len(sequence.pages)))


@pytest.mark.parametrize("keeps", [True, False])
def test_another_engine_goes_on_where_one_parked(keeps: bool) -> None:
    """Prefill here, decode there: the pages are copied, the sequence adopted, the tokens are the same; the
    part of the prompt that the other side has already is not copied."""
    prompt = prompt_of(52)
    told = Told()
    settings = EngineSettings(keeps_prefixes=keeps)
    source = engine_of(settings=settings, hooks=told)
    target = engine_of(settings=settings)
    if keeps:
        ask(target, prompt[:20])
    request = Request(tokens=prompt, max_tokens=20)
    number = source.submit(Request(tokens=prompt, max_tokens=20, parks=True))
    [first] = run(source)[number]
    assert told.prefilled == [(number, 4)]
    [parked] = source._sequences.values()
    held = target.pool.acquire(prompt) if keeps else None
    known = list(held.pages) if held else []
    fresh = target.pool.alloc_mem(4 - len(known))
    for page, copy in zip(parked.pages[len(known) :], fresh, strict=True):
        target.pool.stores[0].write(copy.number, source.pool.stores[0].read(page.number))
    source.release(number)
    source.check_integrity()
    chain = held.chain if held else target.pool.empty_chain
    assert len(known) == (1 if keeps else 0)
    assert first.token is not None
    adopted = target.adopt(request, [first.token], chain, [*known, *fresh], cached=3)
    outcomes = run(target)[adopted]
    assert tokens_of(outcomes) == answer_of(prompt, 20)
    assert outcomes[-1].usage.cached == 3
    if keeps:
        again = ask(target, (*prompt, *tokens_of(outcomes), 1))
        assert again[-1].usage.cached == 64


def test_an_adopted_sequence_may_be_at_its_end() -> None:
    """If the first token was the last, adopting tells it and keeps nothing."""
    engine = engine_of()
    pages = engine.pool.alloc_mem(1)
    request = Request(tokens=prompt_of(5), max_tokens=1)
    number = engine.adopt(request, [9], engine.pool.empty_chain, pages, cached=0)
    [outcome] = run(engine)[number]
    assert (outcome.token, outcome.finish) == (9, Finish.LENGTH)
    engine.check_integrity()


class Elsewhere:
    """A provider that has every prompt in another engine and copies its pages when told to."""

    def __init__(self, source: Engine) -> None:
        self.source = source
        self.asked: list[tuple[int, tuple[int, ...], int, int]] = []

    def wants(self, number: int, tokens: tuple[int, ...], names: Names, held: int) -> bool:
        """Always worth it where blocks are missing."""
        self.asked.append((number, tokens, len(split_names(names)), held))
        return held < len(split_names(names))

    def wants_chunks(self, number: int, chunks: Several[tuple[int, ...]]) -> bool:
        """Nobody here links."""
        raise AssertionError(number, chunks)

    def bring(self, target: Engine, tokens: tuple[int, ...], held: int) -> None:
        """Pull, check, insert: visible only when complete."""
        there = self.source.pool.acquire(tokens)
        here = target.pool.acquire(tokens[: 16 * held])
        fresh = target.pool.alloc_mem(len(there.pages) - held)
        for page, copy in zip(there.pages[held:], fresh, strict=True):
            target.pool.stores[0].write(copy.number, self.source.pool.stores[0].read(page.number))
            seal = self.source.pool.seal_of(page)
            assert seal is not None
            assert seal.checksum == target.pool.stores[0].checksum(copy.number)
        behind = tokens[16 * held : 16 * len(there.pages)]
        _, pages = target.pool.insert(here.chain, behind, fresh)
        target.pool.release([*here.pages, *pages])
        self.source.pool.release(there.pages)


def test_a_sequence_waits_for_pages_that_are_elsewhere() -> None:
    """The provider is asked once; others run meanwhile; what arrives is used like any cached page."""
    source = engine_of()
    prompt = prompt_of(70)
    ask(source, prompt)
    elsewhere = Elsewhere(source)
    engine = engine_of(remote=elsewhere)
    number = engine.submit(Request(tokens=prompt, max_tokens=8))
    other = engine.submit(Request(tokens=prompt_of(10, 3), max_tokens=3))
    found = run(engine)
    assert set(found) == {other}
    assert engine.sequences()[Phase.FETCHING] == 1
    assert elsewhere.asked[0] == (number, prompt, 4, 0)
    elsewhere.bring(engine, prompt, 0)
    engine.arrived(number)
    outcomes = run(engine)[number]
    assert outcomes[-1].usage.cached == 64
    assert tokens_of(outcomes) == answer_of(prompt, 8)
    assert [one[0] for one in elsewhere.asked] == [number, other]
    engine.arrived(number)


def test_what_never_arrived_is_computed() -> None:
    """A provider that gives up lets the sequence go on alone; a fetching sequence can be cancelled."""
    source = engine_of()
    elsewhere = Elsewhere(source)
    engine = engine_of(remote=elsewhere)
    numbers = [
        engine.submit(Request(tokens=prompt_of(70, seed), max_tokens=4)) for seed in range(2)
    ]
    run(engine)
    assert engine.cancel(numbers[1])
    for number in numbers:
        engine.arrived(number)
    found = run(engine)
    assert tokens_of(found[numbers[0]]) == answer_of(prompt_of(70), 4)
    assert numbers[1] not in found


def test_hooks_hear_of_the_end_while_pages_are_there() -> None:
    """On finish the pages of prompt and answer are still held; the reason is told."""
    told = Told()
    engine = engine_of(hooks=told)
    outcomes = ask(engine, prompt_of(30), 5)
    number = outcomes[0].number
    assert told.finished == [(number, Finish.LENGTH, 3)]
    assert told.prefilled == [(number, 2)]


def test_a_block_costs_more_the_more_it_attends_to() -> None:
    """What eviction by cost goes by: all weights for each token, and a share that grows with the depth."""
    cost = block_cost(lively(), PAGE_TOKENS)
    weights = sum(weight.numel() for weight in lively().weights.values())
    assert cost(0) == 16 * (weights + 2 * 3 * 48 * 8)
    assert cost(5) - cost(4) == cost(1) - cost(0) == 16 * 2 * 3 * 48 * 16
