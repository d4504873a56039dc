"""The swarm itself: its numbering, its canary, and what it makes of seeds that do not end."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from jepsen_like.nemesis import BadSchedule, Fault, Schedule, read, write
from jepsen_like.sim.scheduled import schedule_of, with_schedule
from jepsen_like.sim.swarm import Summary
from jepsen_like.swarm import Ledger, Line, Record, swarm
from jepsen_like.swarm.campaign import CANARY_EVERY, DECLARED, FIRST_SEED, MIXTURE, total_of
from jepsen_like.swarm.crew import Stuck, Task, Worker
from jepsen_like.swarm.reach import OUT_OF_REACH
from jepsen_like.swarm.worker import KINDS, NODE, Answer, plan_of

SEEDS = 3


def answer(seed: int, trace: str, *failures: str) -> Answer:
    """A seed that was run."""
    summary = Summary(seed, trace, failures, failures, (), 10, 5, 0, 1, {"kill": 1}, {}, 2, 1, 0.1)
    return Answer(NODE, summary)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_small_swarm_sums_up_and_numbers_on(tmp_path: Path) -> None:
    """Seeds hold, one of them twice with the same trace, and the next swarm goes on behind them."""
    ledger = Ledger(tmp_path / "ledger")
    first = FIRST_SEED // CANARY_EVERY * CANARY_EVERY
    report = swarm(seeds=SEEDS, jobs=1, ledger=ledger, first=first, kinds=(NODE,))
    assert report.holds, report
    assert report.vacuous_seeds == []
    assert (report.seeds, report.canaries, report.trace_mismatches) == (SEEDS, 1, 0)
    assert report.transactions >= report.commits >= 100 * SEEDS
    assert report.fault_kinds
    assert report.virtual_hours > 0
    assert report.probes_hit + len(report.probes_missed) == len(DECLARED)
    lines = list(ledger.lines())
    assert len(lines) == SEEDS + 1
    assert {line.verdict for line in lines} == {"holds"}
    assert ledger.next_seed(0) == first + SEEDS


@pytest.mark.timeout(120)
def test_a_seed_that_does_not_end_is_told_and_its_worker_replaced() -> None:
    """A worker that says nothing in time is ended; the next seed gets a new one."""
    worker = Worker(random.Random(1), stuck_s=0.05)
    try:
        stuck = worker.run(Task(NODE, 1_000))
        assert isinstance(stuck, Stuck)
        assert (stuck.kind, stuck.seed) == (NODE, 1_000)
        assert "no answer" in stuck.what
        worker.stuck_s = 90.0
        assert isinstance(worker.run(Task(NODE, 1_000)), Answer)
    finally:
        worker.close()


def test_a_second_run_with_another_trace_is_a_mismatch() -> None:
    """The canary compares both runs, whichever ends first, and counts the seed once."""
    total = total_of([])
    seed = CANARY_EVERY
    total.take(Task(NODE, seed, again=True), answer(seed, "one"))
    line = total.take(Task(NODE, seed), answer(seed, "two"))
    assert line.verdict == "trace"
    assert (total.mismatches, total.canaries, total.answers) == (1, 1, 1)


def test_failures_and_stuck_seeds_are_named() -> None:
    """Each has its kind and number, in the sum and in the ledger."""
    came: list[tuple[Task, Answer | Stuck]] = [
        (Task(NODE, 1), answer(1, "a", "lost a write")),
        (Task(NODE, 2), Stuck(NODE, 2, "no answer")),
        (Task(NODE, 3), answer(3, "c")),
        (Task(NODE, 4), answer(4, "d", "vacuous: no conflict")),
    ]
    total = total_of(came)
    assert (total.failed, total.stuck, total.anomalies) == (["node 1"], ["node 2"], 1)
    assert (total.answers, total.vacuous) == (2, ["node 4"])


def test_a_ledger_is_only_added_to(tmp_path: Path) -> None:
    """Lines come back in order; without a file there are none."""
    path = tmp_path / "ledger"
    lines = [Line(NODE, seed, "holds", "trace", 1, 1, 1) for seed in (7, 9)]
    for line in lines:
        Ledger(path).add(line)
    assert list(Ledger(path).lines()) == lines
    assert Ledger(path).next_seed(1) == 10
    assert Ledger(None).next_seed(1) == 1


def test_a_swarm_is_a_line_of_the_record(tmp_path: Path) -> None:
    """What is kept of it says where the next one begins."""
    path = tmp_path / "record"
    assert Record(path).next_seed(7) == 7
    report = swarm(seeds=1, ledger=Ledger(None), first=31, kinds=(NODE,))
    Record(path).add(report.run("1.0"))
    (run,) = Record(path).runs()
    assert (run.first_seed, run.next_seed, run.seeds, run.failed) == (31, 32, 1, 0)
    assert run.transactions == report.transactions
    assert Record(path).next_seed(7) == 32


def test_the_record_that_is_kept_can_be_read() -> None:
    """Each line of it, and no seed was begun twice."""
    runs = Record(Path(__file__).parents[2] / "jepsen_like" / "seeds.jsonl").runs()
    assert runs
    for before, after in pairwise(runs):
        assert before.first_seed < before.next_seed <= after.first_seed


def test_what_is_out_of_reach_is_declared_somewhere() -> None:
    """An exemption for a probe that is no more would hide nothing but itself."""
    from jepsen_like.sim.swarm import SWARM_PROBES

    assert set(OUT_OF_REACH) <= set(SWARM_PROBES)
    assert set(DECLARED).isdisjoint(OUT_OF_REACH)


def test_the_mixture_has_every_kind_and_the_canary_visits_all() -> None:
    """No kind of plan is left out of a swarm, or of its second runs."""
    assert set(MIXTURE) == set(KINDS)
    visited = {MIXTURE[seed % len(MIXTURE)] for seed in range(0, CANARY_EVERY * 40, CANARY_EVERY)}
    assert visited == set(KINDS)


def test_the_command_knows_all_kinds() -> None:
    """It names them by itself, so that it need not load the simulator to tell its options."""
    from jepsen_like.cli.swarm import KINDS as OFFERED

    assert OFFERED == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_wrong_in_a_plan_is_a_schedule(kind: str) -> None:
    """It can be written, read back, and put into the plan again, and is then the same plan."""
    for seed in range(12):
        plan = plan_of(kind, seed)
        schedule = schedule_of(plan)
        assert read(write(schedule)) == schedule
        assert with_schedule(plan, schedule) == plan


def test_a_schedule_of_other_hosts_is_refused() -> None:
    """A fault at a host that a run does not have would do nothing and prove nothing."""
    plan = plan_of("node", 1)
    foreign = Schedule(duration_ns=9, hosts={"x": "y"}, faults=(Fault(0, "kill", 1, "x"),))
    with pytest.raises(BadSchedule, match="no host x"):
        with_schedule(plan, foreign)


def test_an_unknown_kind_is_refused() -> None:
    """It is not taken for another."""
    with pytest.raises(ValueError, match="no kind of plan"):
        plan_of("dream", 1)
