"""The same seed gives the same run: in one process, in two, under any hash seed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

from tests.simulation import quorum

ROOT = Path(__file__).parents[2]
SEEDS = (5, 7, 9)


def run_module(module: str, hash_seed: str, *arguments: str) -> list[str]:
    """Output lines of a module run in a fresh interpreter with that hash seed."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_seed_gives_one_trace_in_every_process():
    """Processes with different hash seeds, and this one, agree on every event of three runs."""
    arguments = [str(seed) for seed in SEEDS]
    here = [quorum.run(seed).trace for seed in SEEDS]
    assert run_module("tests.simulation.quorum", "1", *arguments) == here
    assert run_module("tests.simulation.quorum", "4242", *arguments) == here
    assert len(set(here)) == len(SEEDS)


def test_sets_of_tasks_and_futures_have_one_order_and_sets_of_words_do_not():
    """asyncio.wait, task groups and sets of futures are tamed; a set of words would be noticed."""
    runs = [run_module("tests.simulation.pitfalls", seed) for seed in ("0", "1", "2", "random")]
    distinct = {lines[0].split()[0]: len(set(lines)) for lines in zip(*runs, strict=True)}
    assert distinct.pop("words_in_order") > 1
    assert distinct == {"wait_in_order": 1, "abort_in_order": 1, "futures_in_order": 1}


def test_a_run_repeats_line_by_line_in_one_process():
    """Running a seed again after others writes the same trace, so nothing leaks between runs."""
    first, again = io.StringIO(), io.StringIO()
    quorum.run(7, trace_sink=first)
    quorum.run(8)
    quorum.run(7, trace_sink=again)
    assert first.getvalue() == again.getvalue()
    assert first.getvalue().count("\n") > 1_000


def test_a_shorter_run_begins_like_the_longer_one():
    """Streams of chance do not disturb one another: more operations change nothing before."""
    short, long = io.StringIO(), io.StringIO()
    quorum.run(3, operations=5, schedule=[], trace_sink=short)
    quorum.run(3, operations=10, schedule=[], trace_sink=long)
    lines = short.getvalue().splitlines()[:300]
    assert len(lines) == 300
    assert long.getvalue().splitlines()[:300] == lines
