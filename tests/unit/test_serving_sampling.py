"""The next token and its text, by themselves."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serving.engine.request import Sampling
from serving.engine.sampling import choose, draw, explain
from serving.engine.text import TextStream

LOGITS = torch.tensor([2.0, 0.0, 1.0, 3.0, -1.0])


def test_greedy_is_the_likeliest() -> None:
    """Temperature 0 takes the largest logit, whatever the seed."""
    assert {choose(LOGITS, Sampling(seed=seed), []) for seed in range(20)} == {3}


def test_draws_follow_the_distribution() -> None:
    """Over many tokens the frequencies are the softmax's, within five standard deviations."""
    sampling = Sampling(temperature=1.0, seed=7)
    draws = 4_000
    counts = Counter(choose(LOGITS, sampling, [0] * index) for index in range(draws))
    for token, share in enumerate(LOGITS.softmax(0).tolist()):
        deviation = (share * (1 - share) / draws) ** 0.5
        assert abs(counts[token] / draws - share) < 5 * deviation, token


def test_a_draw_depends_on_seed_and_index_alone() -> None:
    """Equal seeds draw equally at equal places and nowhere else; numbers lie in [0, 1)."""
    drawn = [draw(seed, index) for seed in range(20) for index in range(20)]
    assert drawn == [draw(seed, index) for seed in range(20) for index in range(20)]
    assert len(set(drawn)) == 400
    assert all(0.0 <= number < 1.0 for number in drawn)


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [
        (Sampling(temperature=2.0, top_k=1), {3}),
        (Sampling(temperature=2.0, top_k=2), {3, 0}),
        (Sampling(temperature=1.0, top_p=0.6), {3}),
        (Sampling(temperature=1.0, top_p=0.7), {3, 0}),
        (Sampling(temperature=1.0, top_k=3, top_p=1.0), {3, 0, 2}),
        (Sampling(temperature=2.0), {0, 1, 2, 3, 4}),
    ],
)
def test_only_what_is_left_is_drawn(sampling: Sampling, allowed: set[int]) -> None:
    """Top-k and top-p leave exactly the tokens that they should."""
    seeded = [
        Sampling(
            temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, seed=seed
        )
        for seed in range(300)
    ]
    assert {choose(LOGITS, each, []) for each in seeded} == allowed


def test_penalties_push_away_what_was_said() -> None:
    """A token that was generated loses its presence penalty once and its frequency penalty each time."""
    assert choose(LOGITS, Sampling(presence_penalty=1.5), [3]) == 0
    assert choose(LOGITS, Sampling(presence_penalty=0.5), [3, 3, 3]) == 3
    assert choose(LOGITS, Sampling(frequency_penalty=0.5), [3, 3, 3]) == 0
    assert choose(LOGITS, Sampling(presence_penalty=-2.0), [0]) == 0


def test_logprobs_are_the_models() -> None:
    """The token's logarithm and the likeliest ones', in order, before any temperature."""
    logprob, top = explain(LOGITS, 2, 3)
    expected = LOGITS.log_softmax(0)
    assert logprob == pytest.approx(float(expected[2]))
    assert [one.token for one in top] == [3, 0, 2]
    assert all(before.logprob >= after.logprob for before, after in pairwise(top))
    assert explain(LOGITS, 0, 0)[1] == ()


def bytes_decoder(tokens: object) -> str:
    """A byte-level tokenizer: a token is a byte."""
    return bytes(tokens).decode("utf-8", "replace")  # type: ignore[call-overload]


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_pieces_make_the_text_up_to_the_first_stop(text: str, stops: list[str]) -> None:
    """Byte by byte, the pieces join to the text before the earliest end of a stop string; no piece has a
    broken character or a part of the stop that is taken back later."""
    stream = TextStream(bytes_decoder, stops)
    shown = ""
    seen = ""
    for character in text:
        seen += character
        for byte in character.encode():
            shown += stream.push(byte)
        if stream.stopped:
            break
        assert seen.startswith(shown)
    shown += stream.finish()
    ends = [at for stop in stops if (at := seen.find(stop)) >= 0]
    assert stream.stopped == bool(ends)
    assert shown == (seen[: min(ends)] if ends else text)


def test_a_broken_end_is_shown_as_broken() -> None:
    """A sequence that ends in the middle of a character shows the replacement character, once, at the end."""
    stream = TextStream(bytes_decoder, ())
    pieces = [stream.push(byte) for byte in "é€".encode()[:4]]
    assert "".join(pieces) == "é"
    assert stream.finish() == "\ufffd"
