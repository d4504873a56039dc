"""The parts of `k2 demo` with real workers that decide what it says: what is asked, counters, samples."""

from __future__ import annotations

import pytest

from bench.demo.course import Fault
from bench.demo.real.counters import Counted
from bench.demo.real.people import Turn
from bench.demo.real.reference import Sameness, sample
from bench.demo.real.talks import PASSAGE_CHARACTERS, TURNS, passage, talks

REGIONS = ("fra", "iad", "sin")


def turn(talk: int, number: int = 0, region: str = "fra", before: str = "", at: int = 0) -> Turn:
    """An answer that began at a moment and took ten."""
    return Turn(
        talk=talk,
        number=number,
        is_lookup=False,
        region=region,
        before=before,
        messages=(),
        began_ns=at,
        ended_ns=at + 10,
    )


@pytest.mark.parametrize("prompts", [1, 2, 5, 6, 9, 24, 60, 100])
def test_talks_are_as_many_prompts_as_were_asked_for(prompts: int) -> None:
    """All turns counted; the same seed says the same, another one something else."""
    found = talks(prompts, REGIONS, 0)
    assert sum(len(talk.asks) for talk in found) == prompts
    assert found == talks(prompts, REGIONS, 0)
    assert [talk.number for talk in found] == list(range(len(found)))
    assert {len(talk.asks) for talk in found} <= {1, TURNS}
    if prompts >= 24:
        assert found != talks(prompts, REGIONS, 1)


def test_two_conversations_in_three_go_elsewhere_and_stay_there() -> None:
    """The second turn is asked in another region, the third one where the second was; the rest stay at home."""
    conversations = [talk for talk in talks(90, REGIONS, 0) if not talk.is_lookup]
    moved = 0
    for talk in conversations:
        first, second, third = [region for _, region in talk.asks]
        assert third == second
        moved += first != second
    assert (len(conversations), moved) == (18, 12)
    assert {talk.home for talk in conversations} == set(REGIONS)
    assert turn(0, 1, "iad", "fra").is_elsewhere
    assert not turn(0, 1, "fra", "fra").is_elsewhere
    assert not turn(0, 2, "iad", "fra").is_elsewhere


def test_a_passage_is_whole_sentences_of_a_topic() -> None:
    """It is text without lines drawn under titles, no longer than stated, and ends with a sentence."""
    said = passage("with")
    assert 200 < len(said) <= PASSAGE_CHARACTERS + 1
    assert said.endswith(".")
    assert "***" not in said
    assert "context manager" in said


def test_counters_of_an_earlier_life_are_not_lost() -> None:
    """A counter that has gone back, or has not come up again, adds to what was; a gauge is what it is now."""
    counted = Counted()
    counted.take({'a_total{by="tcp"}': 5.0, 'a_total{by="shm"}': 1.0, "gauge": 7.0})
    counted.take({'a_total{by="tcp"}': 2.0, "gauge": 3.0})
    assert counted.sum("a_total") == 8.0
    assert counted.sum("a_total", 'by="tcp"') == 7.0
    assert counted.by_label("a_total", "by") == {"tcp": 7, "shm": 1}
    assert counted.sum("gauge") == 3.0
    counted.take({'a_total{by="tcp"}': 4.0})
    assert counted.sum("a_total") == 10.0


def test_a_sample_has_what_a_fault_fell_into_and_what_moved() -> None:
    """Those come first, none twice, and no more than wanted; without any, answers of all times."""
    turns = [turn(number, at=100 * number) for number in range(20)]
    moved = turn(20, 1, "iad", "fra", at=2_000)
    fault = Fault(kind="worker", what="", began_ns=305)
    found = sample([*turns, moved], [fault], 4)
    assert found[0] == turns[3]
    assert moved in found
    assert len(found) == len({(one.talk, one.number) for one in found}) == 4
    assert [one.talk for one in sample(turns, [], 4)] == [0, 5, 10, 15]
    assert sample([], [], 4) == []


def test_nothing_compared_is_not_the_same() -> None:
    """A run that has compared no answer does not say that answers are identical."""
    assert not Sameness().identical
    assert Sameness(1).identical
    assert not Sameness(2, (("asked", "ours", "theirs"),)).identical
