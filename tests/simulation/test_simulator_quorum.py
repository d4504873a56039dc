"""A small replicated register under the simulator's faults: right when right, caught when wrong."""

from __future__ import annotations

import functools
from collections import Counter

import pytest

from k2store.testing.simulation import SECOND_NS, Fault, decode, encode, shrink
from tests.simulation import quorum

SEEDS = range(100, 124)


@functools.cache
def outcome(seed: int) -> quorum.Outcome:
    """The run of a seed, made once."""
    return quorum.run(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_register_stays_right(seed):
    """No operation sees less than an earlier one ensured, and all operations end."""
    run = outcome(seed)
    assert len(run.history) == 90
    assert quorum.violations(run.history) == []


def test_faults_take_effect():
    """Over the seeds every kind of fault happened and left evidence, most times it was tried."""
    tried: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for seed in SEEDS:
        for applied in outcome(seed).applied:
            tried[applied.fault.name] += 1
            shown[applied.fault.name] += applied.evidence is not None
    assert set(tried) == set(quorum.KINDS)
    assert [kind for kind in tried if not shown[kind]] == []
    assert shown.total() > tried.total() / 2


def test_runs_reach_the_unpleasant_endings():
    """The seeds together lose windows, writes and syncs, reset streams and wake processes late."""
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        counts.update(outcome(seed).probes)
    wanted = {
        "disk.lost_write",
        "disk.sync_failed",
        "disk.torn_write",
        "network.connect_refused",
        "network.cut_stopped",
        "network.reset_by_reborn",
        "network.silence_reset",
        "network.window_lost",
        "process.killed",
        "process.power_cut",
        "process.woke_late",
    }
    assert sorted(name for name in wanted if not counts[name]) == []


def blackout(seed: int) -> list[Fault]:
    """Noise of the seed's own, and a power cut of three servers of five at one moment."""
    cut = [Fault(2 * SECOND_NS, "power-cut", SECOND_NS, f"server-{n}") for n in range(3)]
    return sorted(cut + outcome(seed).schedule, key=lambda fault: fault.at_ns)


def wrong(seed: int, schedule: list[Fault], *, careless: bool) -> bool:
    """Whether the run violates the register's promise."""
    run = quorum.run(seed, operations=15, schedule=schedule, careless=careless)
    return quorum.violations(run.history) != []


def test_answers_before_the_sync_are_caught_and_the_schedule_shrinks_to_what_matters():
    """Servers that answer before they sync lose writes in a blackout, and ddmin finds just that.

    The same schedule leaves honest servers right, so it is the missing sync that is caught; and
    of what ddmin leaves nothing can be left out.
    """
    seed = next(seed for seed in SEEDS if wrong(seed, blackout(seed), careless=True))
    assert not wrong(seed, blackout(seed), careless=False)
    least = shrink(blackout(seed), lambda part: wrong(seed, part, careless=True))
    assert len(least) < len(blackout(seed))
    assert "power-cut" in {fault.name for fault in least}
    for left_out in least:
        rest = [fault for fault in least if fault is not left_out]
        assert not wrong(seed, rest, careless=True)


def test_a_schedule_written_down_runs_again():
    """A schedule read back from its JSON gives the very same trace."""
    run = outcome(SEEDS[0])
    text = encode(run.schedule)
    assert decode(text) == run.schedule
    assert quorum.run(SEEDS[0], schedule=decode(text)).trace == run.trace


def test_a_schedule_with_an_unknown_fault_is_refused():
    """A misspelt fault is an error when read, not a fault that never happens."""
    with pytest.raises(ValueError, match="unknown fault"):
        decode(b'[{"at_ns": 0, "name": "kil"}]')
