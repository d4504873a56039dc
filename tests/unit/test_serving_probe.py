"""The probe: its task is what it says, its recipe trains, and its checkpoint is as good as stated."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.model import Llama
from serving.model.probe import CHECKPOINT, CONFIG, load_probe
from serving.model.probe.evaluation import accuracy
from serving.model.probe.task import (
    BEGIN,
    BIT,
    COUNTER,
    COUNTERS,
    KEY,
    KEYS,
    PROMPT_TOKENS,
    START,
    VALUE,
    bits,
    block_tokens,
    draw,
)
from serving.model.probe.train import (
    BLOCKS,
    RECENT_LEAST,
    RECENT_MOST,
    RECIPE,
    WATCHED,
    Phase,
    Progress,
    run_phase,
    train,
    visibility,
)
from serving.sparse.experiment import run_chains
from serving.sparse.policies import Dense, RaaS, Window

torch.set_num_threads(1)


@given(blocks=st.integers(1, 8), steps=st.integers(1, COUNTERS), seed=st.integers(0, 999))
def test_chains_follow_from_their_prompts(blocks: int, steps: int, seed: int) -> None:
    """From the table and the start alone, by hand, every token of a chain can be told."""
    drawn = draw(3, blocks, steps, torch.Generator().manual_seed(seed))
    known = bits()
    for chain in drawn.tokens.tolist():
        assert (chain[0], chain[PROMPT_TOKENS - 2]) == (BEGIN, START)
        pairs = chain[1 : 1 + 2 * KEYS]
        table = {
            key - KEY: value - VALUE for key, value in zip(pairs[::2], pairs[1::2], strict=True)
        }
        assert sorted(table) == list(range(KEYS))
        key = chain[PROMPT_TOKENS - 1] - KEY
        wanted = []
        for _ in range(blocks):
            value = table[key]
            wanted += [KEY + key, VALUE + value]
            for counter in range(COUNTERS - steps, COUNTERS):
                wanted += [COUNTER + counter, BIT + int(known[value, counter])]
            key = (key + value) % KEYS
        assert chain[PROMPT_TOKENS:] == wanted
    lemmas = drawn.lemma.nonzero()[:, 0].tolist()
    assert len(lemmas) == 2 * blocks
    assert all(second - first == block_tokens(steps) for first, second in pairwise(lemmas[::2]))


def test_hidden_steps_are_hidden_and_nothing_else() -> None:
    """The prompt and the block's own lemma are always seen; older steps only where nothing is hidden."""
    generator = torch.Generator().manual_seed(3)
    drawn = draw(64, 4, COUNTERS, generator)
    seen = visibility(drawn, COUNTERS, 0.75, generator)
    at = torch.arange(drawn.length)
    assert not seen[:, at[:, None] < at[None, :]].any()
    query = PROMPT_TOKENS + 3 * block_tokens(COUNTERS) + 40
    row = seen[:, query, : query + 1]
    assert row[:, :PROMPT_TOKENS].all()
    own = PROMPT_TOKENS + 3 * block_tokens(COUNTERS)
    assert row[:, own : own + 2].all()
    assert row[:, query - RECENT_LEAST + 1 :].all()
    old = row[:, own + 2 : query - RECENT_MOST]
    whole = old.all(dim=1)
    assert (whole | ~old.any(dim=1)).all()
    assert 5 <= int(whole.sum()) <= 30
    earlier = row[:, PROMPT_TOKENS : PROMPT_TOKENS + 2].all(dim=1)
    assert 10 <= int((~whole & earlier).sum()) <= 50
    assert visibility(drawn, COUNTERS, 0.0, generator)[:, query, : query + 1].all()


def test_training_learns_and_repeats() -> None:
    """A few steps lower the loss, and the same seed gives the same weights."""
    recipe = (Phase("short", 12, 16, 2, 2, hidden=0.0), Phase("end", 3, 4, 2, 3, 0.5, settles=True))
    outcomes = []
    for _ in range(2):
        told: list[Progress] = []
        outcomes.append((train(5, told.append, recipe), told))
    (first, told), (second, again) = outcomes
    assert told == again
    assert [each.phase for each in told] == ["short"] * 12 + ["end"] * 3
    assert told[11].loss < told[0].loss - 0.5
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    assert not any(weight.requires_grad for weight in first.weights.values())


def test_a_phase_ends_when_its_task_is_mastered() -> None:
    """The trained probe masters a phase as soon as there is enough to judge by."""
    weights = {name: weight.clone() for name, weight in load_probe().weights.items()}
    told: list[Progress] = []
    run_phase(Llama(CONFIG, weights), Phase("all", 60, 2, 24, 24, 0.75), 1, told.append)
    assert WATCHED <= len(told) < 60


def test_the_checkpoint_is_as_good_as_stated() -> None:
    """Its notes name the recipe that stands here, and it is as accurate on new chains as they say."""
    notes = json.loads(CHECKPOINT.with_suffix(".json").read_text(encoding="utf-8"))
    assert notes["recipe"] == [phase._asdict() for phase in RECIPE]
    assert notes["curve"][0]["loss"] > 1 > notes["curve"][-1]["loss"]
    stated = notes["accuracy"]
    for hidden, name in ((False, "all_visible"), (True, "older_steps_hidden")):
        found = accuracy(load_probe(), chains=8, seed=99, hidden=hidden)
        assert stated[name]["all"] > 0.999
        assert found.worst >= 0.999


def test_the_checkpoint_comes_from_the_recipe() -> None:
    """The recipe, begun with the seed of the notes, goes where their loss curve says; another machine rounds a little
    differently."""
    notes = json.loads(CHECKPOINT.with_suffix(".json").read_text(encoding="utf-8"))
    told: list[Progress] = []
    train(notes["seed"], told.append, [RECIPE[0]._replace(steps=20)])
    for stated in notes["curve"][:2]:
        assert told[stated["step"] - 1].loss == pytest.approx(stated["loss"], abs=0.02)
    ends = {each["phase"]: each["step"] for each in notes["curve"]}
    for phase in RECIPE:
        # Told every tenth step; what is to be mastered was, before the steps ran out.
        assert (ends[phase.name] == phase.steps) == phase.settles


@settings(max_examples=3)
@given(seed=st.integers(0, 99))
def test_accuracy_of_guessing_is_low(seed: int) -> None:
    """An untrained probe is judged as such: the measure does not flatter."""
    found = accuracy(Llama.random(CONFIG, seed), chains=2, seed=seed)
    assert found.values < 0.5
    assert found.all < 0.3


def test_a_chain_is_longer_than_any_budget() -> None:
    """A block spans more tokens than the largest budget that policies are compared at."""
    assert block_tokens(COUNTERS) == 50 > 48
    assert BLOCKS * block_tokens(COUNTERS) == 400
    assert pytest.approx(0.8, abs=0.05) == sum(
        weight.numel() / 1e6 for weight in load_probe().weights.values()
    )


@pytest.mark.slow
def test_raas_reaches_the_end_where_a_window_does_not() -> None:
    """At equal memory, below the length of a block: RaaS ends chains without a mistake, a window hardly any."""
    probe = load_probe()
    found = {
        policy.name: run_chains(probe, policy, chains=8, seed=1)
        for policy in (RaaS(48), Window(48))
    }
    raas, window = found["raas alpha=0.1 max"], found["window"]
    assert raas.exact >= 0.4
    assert window.exact <= 0.15
    assert raas.first_error > window.first_error
    assert max(raas.resident_pages) == max(window.resident_pages) == 12


@pytest.mark.slow
def test_dense_probe_never_errs_and_has_milestones() -> None:
    """Free-running over whole chains the probe is exact, and most of its heads attend as RaaS expects."""
    dense = run_chains(load_probe(), Dense(), chains=8, seed=1, count_milestones=True)
    assert dense.exact == 1.0
    assert dense.milestones is not None
    assert dense.milestones.heads == 16
    assert dense.milestones.heads_with >= 4
