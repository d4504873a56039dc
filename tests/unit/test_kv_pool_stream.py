"""Streams of batches: order, gaps, restarts, and that nothing goes on silently."""

from __future__ import annotations

import random

import pytest

from kv_pool.events.stream import Mark, Passed, Stream


def said(stream: Stream) -> list[object]:
    """Numbers of the batches that passed, and marks, since the last time."""
    return [one.sequence if isinstance(one, Passed) else one for one in stream.ready().steps]


def feed(stream: Stream, *sequences: int, now_ns: int = 0) -> None:
    """Batches of the live stream."""
    for sequence in sequences:
        stream.receive(sequence, b"%d" % sequence, now_ns)


def test_in_order() -> None:
    """Batches in order pass as they come."""
    stream = Stream(can_replay=True)
    feed(stream, 0, 1, 2)
    assert said(stream) == [0, 1, 2]
    assert stream.ready().replay_from is None
    feed(stream, -1)
    assert said(stream) == []


def test_a_gap_is_repaired() -> None:
    """Missing batches are asked for; until they are there the worker is suspect and later ones wait;
    then all pass in order, each once."""
    stream = Stream(can_replay=True)
    feed(stream, 0, 3, 4)
    ready = stream.ready()
    assert ready.replay_from == 1
    assert [one if isinstance(one, Mark) else one.sequence for one in ready.steps] == [
        0,
        Mark.SUSPECT,
    ]
    assert stream.is_repairing
    for sequence in (0, 1, 2, 3, 4):
        stream.replayed(sequence, b"%d" % sequence)
    stream.replay_ended()
    assert said(stream) == [1, 2, Mark.SOUND, 3, 4]
    feed(stream, 5)
    assert said(stream) == [5]


def test_a_gap_that_stays() -> None:
    """Without a replay, with one that does not reach, or out of time: what is known is forgotten,
    and only then do later batches pass."""
    forgotten = [Mark.SUSPECT, Mark.FORGET, Mark.SOUND, 3]
    none = Stream(can_replay=False)
    feed(none, 3)
    assert said(none) == forgotten
    short = Stream(can_replay=True)
    feed(short, 3)
    short.replayed(1, b"1")
    short.replay_ended()
    assert said(short) == forgotten
    late = Stream(can_replay=True, repair_ns=10)
    feed(late, 3, now_ns=100)
    late.tick(109)
    assert said(late) == [Mark.SUSPECT]
    late.tick(110)
    assert said(late) == forgotten[1:]
    full = Stream(can_replay=True, held_max=2)
    feed(full, 3, 4, 5)
    assert said(full) == [*forgotten, 4, 5]


def test_a_replay_that_does_not_reach_back() -> None:
    """Whoever joins late gets what the replay still has, after a clean beginning; what does not meet
    the live stream is worth nothing."""
    stream = Stream(can_replay=True)
    feed(stream, 9)
    assert said(stream) == [Mark.SUSPECT]
    for sequence in (5, 6, 7, 8, 9, 10):
        stream.replayed(sequence, b"%d" % sequence)
    feed(stream, 10)
    stream.replay_ended()
    assert said(stream) == [Mark.FORGET, Mark.SOUND, 5, 6, 7, 8, 9, 10]
    broken = Stream(can_replay=True)
    feed(broken, 9)
    for sequence in (3, 4, 6, 7):
        broken.replayed(sequence, b"%d" % sequence)
    broken.replay_ended()
    assert said(broken) == [Mark.SUSPECT, Mark.FORGET, Mark.SOUND, 9]


def test_a_second_hole_while_repairing() -> None:
    """A hole among batches that waited is known to be for good when its turn comes."""
    stream = Stream(can_replay=True)
    feed(stream, 1, 3)
    stream.replayed(0, b"0")
    assert said(stream) == [Mark.SUSPECT, 0, Mark.SOUND, 1, Mark.FORGET, 3]
    assert stream.gaps == 2


def test_a_number_going_backwards_is_a_new_life() -> None:
    """A publisher that starts anew begins a new life, also when the beginning was missed, also in the
    middle of a repair."""
    stream = Stream(can_replay=True)
    feed(stream, 0, 1, 0)
    assert said(stream) == [Mark.NEW_LIFE, 0]
    feed(stream, 5)
    said(stream)
    feed(stream, 2)
    ready = stream.ready()
    assert ready.replay_from == 0
    assert list(ready.steps) == [Mark.NEW_LIFE, Mark.SUSPECT]
    feed(stream, 0)
    assert said(stream) == [Mark.NEW_LIFE, 0]
    assert stream.lives == 4


@pytest.mark.parametrize("seed", range(30))
def test_what_passes_is_whole_or_said_to_be_not(seed: int) -> None:
    """However batches are lost, replayed and repeated, between two marks that void what came before
    the numbers that pass follow on each other without a gap."""
    rng = random.Random(seed)
    stream = Stream(can_replay=rng.random() < 0.7, repair_ns=50, held_max=rng.choice([2, 1_000]))
    kept: list[int] = []
    out: list[object] = []
    sequence = 0
    for now in range(400):
        if rng.random() < 0.02:
            sequence, kept = 0, []
        kept.append(sequence)
        if rng.random() < 0.85:
            stream.receive(sequence, b"", now)
        sequence += 1
        stream.tick(now)
        ready = stream.ready()
        out += ready.steps
        if ready.replay_from is not None and rng.random() < 0.8:
            for one in kept[-rng.choice([3, 1_000]) :]:
                if one >= ready.replay_from:
                    stream.replayed(one, b"")
            stream.replay_ended()
            out += stream.ready().steps
    expected: int | None = 0
    suspect = False
    for step in out:
        match step:
            case Passed(number):
                assert expected is None or number == expected
                expected = number + 1
            case Mark.NEW_LIFE:
                expected, suspect = 0, False
            case Mark.FORGET:
                expected = None
            case Mark.SUSPECT:
                assert not suspect
                suspect = True
            case Mark.SOUND:
                suspect = False
    assert suspect == stream.is_repairing
