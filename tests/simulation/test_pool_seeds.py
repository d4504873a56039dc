"""The pool's own sessions and transactions on simulated regions: some seeds of `k2 check pool`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import json

from jepsen_like.cli import check
from jepsen_like.mutants import named
from jepsen_like.mutants.campaign import pursue
from jepsen_like.pool import swarm
from jepsen_like.pool.scene import run
from jepsen_like.pool.truth import NAME, depths, held

SEEDS = tuple(
    int(line.split()[0])
    for line in (Path(__file__).parent / "pool_seeds.txt").read_text().splitlines()
    if line and not line.startswith("#")
)
NOTICED = ("evict-looks-at-no-pin", "learner-misses-clears")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_seeds_hold_and_reach_what_they_should() -> None:
    """No claim is on what is not there, nothing claimed goes, no copy is lost, nothing is left over, and every
    learner is the store at its stamp; and in so many seeds all of it was tried."""
    report = swarm.summed([swarm.one(seed) for seed in SEEDS], 1.0)
    assert report.failed_seeds == []
    assert report.vacuous == 0
    wanted = (
        *("register", "publish", "extend", "acquire", "renew", "release", "evict", "report"),
        *("retire", "migrate", "land", "moved", "fence", "clear", "drain", "sweep", "abort"),
        *("evict PINNED", "evict LAST_COPY", "acquire TOO_SHORT", "publish FENCED", "fence ALIVE"),
        *("voided", "evicted behind claims"),
    )
    assert [what for what in wanted if not report.counts.get(what)] == []
    assert report.reads > 100
    assert report.compared > 50
    assert {"kill", "pause", "power-cut", "cut-region"} <= set(report.fault_kinds)


def test_a_seed_is_the_same_twice() -> None:
    """Everything that happens in a run follows from its seed."""
    assert run(SEEDS[0]).trace == run(SEEDS[0]).trace


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NOTICED)
def test_a_mistake_of_the_directory_is_noticed(name: str) -> None:
    """A rule that is left out shows within some seeds, which hold with it."""
    (catch,) = pursue([named(name)], 30)
    assert catch.by, catch


def test_the_verb_says_what_was_done() -> None:
    """One JSON object at the end, exit status 0."""
    done = CliRunner().invoke(check, ["pool", "--seed", str(SEEDS[0]), "--json"])
    assert done.exit_code == 0, done.output
    report = json.decode(done.stdout.splitlines()[-1])
    assert (report["seeds"], report["failures"]) == (1, 0)
    assert report["counts"]["acquire"] > 0


def test_the_twin_reads_rows_by_itself() -> None:
    """Rows that count, and those that do not: of another life, another epoch, on their way, shortened."""
    from msgspec import msgpack

    namespace, worker = b"n" * NAME, b"d/fra/w/"
    names = [bytes([number]) * NAME for number in range(5)]

    def run_row(
        first: int, count: int, live: int, *, life: int = 3, epoch: int = 1, phase: int = 1
    ):
        packed = b"".join(names[first : first + count])
        row = [life, epoch, b"p" * NAME, first, packed, live, phase, 9]
        return worker + b"run/" + namespace + b"\x01" + names[first], msgpack.encode(row)

    identity = msgpack.encode([3, b"b" * 16, 0, 7, 1, 0, 0])
    rows = dict([(worker + b"id", identity), run_row(0, 2, 2), run_row(2, 2, 1)])
    there = held(rows)
    assert there == {("fra/w", 1, namespace): frozenset({names[0] + names[1], names[2]})}
    assert depths(there, namespace, b"".join(names)) == {("fra/w", 1): 3}
    assert depths(there, b"m" * NAME, b"".join(names)) == {}
    for fields in ({"life": 2}, {"epoch": 0}, {"phase": 0}, {"phase": 2}):
        other = dict([(worker + b"id", identity), run_row(0, 2, 2, **fields)])
        assert held(other) == {}
    assert held(dict([run_row(0, 2, 2)])) == {}
    fenced = msgpack.encode([3, b"b" * 16, 2, 7, 1, 0, 0])
    assert held(rows | {worker + b"id": fenced}) == {}
