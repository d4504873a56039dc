"""The pool's load on real processes: `k2 check pool --processes`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from jepsen_like.cli import check
from jepsen_like.formats import load
from jepsen_like.history import Recorder
from jepsen_like.pool.campaign import NEEDED, READS_MIN, Result, thin
from jepsen_like.pool.load import SLOTS, Memories
from jepsen_like.pool.member import events_of, merged
from k2store.testing.child import K2
from kv_pool.keys import Worker
from tests.integration.families import command_of, descendants, remaining

WORKER = "jepsen_like.pool.member"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_workers_nodes_and_leaders_are_killed(tmp_path: Path) -> None:
    """Over a kill -9 of a worker that comes back in its place, one that stands still for longer than its lease, a
    node, a leader and a region cut off: nothing claimed goes, nothing is lost or left over, bytes under claims are
    those that were claimed, learners are the store after every fault; and the history that is kept says the same."""
    options = ["--processes", "25", "--seed", "1", "--json", "--record", str(tmp_path)]
    done = CliRunner().invoke(check, ["pool", *options])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["anomalies"], result["flaws"]) == ([], [])
    assert result["valid"]
    assert result["seed"] == 1
    assert len(result["faults"]) >= 3
    assert len(result["evidence"]) == sum(result["faults"].values())
    assert result["compared"] >= 3 * len(result["evidence"])
    kept = load(tmp_path / "run-1" / "history.k2h")
    assert len(kept.operations) == result["operations"]
    told = {str(one.process).partition("-w")[0].partition(".")[0] for one in kept.operations}
    assert told == {"fra", "iad", "sin", "router", "final"}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_nothing_outlives_a_killed_campaign() -> None:
    """kill -9 of it while a worker stands still: workers, nodes and the network end, that one too."""
    words = ["check", "pool", "--processes", "60", "--seed", "1"]
    process = subprocess.Popen([*K2, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        family = _until_working(process)
        worker = next(one for one in family if WORKER in command_of(one))
        os.kill(worker, signal.SIGSTOP)
    finally:
        process.kill()
    process.wait()
    assert remaining(family) == set()


def _until_working(process: subprocess.Popen[bytes]) -> set[int]:
    """Wait until all workers are there; gives everybody who came from the campaign."""
    end_s = time.monotonic() + 60.0
    while time.monotonic() < end_s:
        family = descendants(process.pid)
        if sum(WORKER in command_of(one) for one in family) == 4:
            return family
        time.sleep(0.1)
    raise AssertionError(f"no workers came: {process.poll()}")


def test_a_run_in_which_little_happened_proves_nothing() -> None:
    """What is missing is named; with all of it there nothing is."""
    kinds = dict.fromkeys((*NEEDED, "land"), 20)
    full = Result(10.0, done=kinds, faults={"kill-node": 1}, compared=1, reads=READS_MIN)
    assert thin(full, 10.0) == []
    assert full.valid
    for change, said in (
        ({"faults": {}}, "no fault"),
        ({"done": kinds | {"evict": 0}}, "evict"),
        ({"done": kinds | {"land": 0}}, "migrate or land"),
        ({"done": dict.fromkeys(kinds, 1)}, "only 9 operations"),
        ({"compared": 0}, "no learner"),
        ({"reads": 0}, "only 0 looks"),
    ):
        (flaw,) = thin(replace(full, **change), 10.0)
        assert said in flaw
    assert not replace(full, flaws=["kill-node left no evidence"]).valid


def test_slots_are_read_from_another_process(tmp_path: Path) -> None:
    """Blocks and the life they belong to are seen through the file; a new life begins with empty slots."""
    worker = Worker("fra", "w1")
    there = Memories(tmp_path)
    assert there.of(worker) is None
    mine = Memories(tmp_path).mine(worker)
    mine.begin(3, 1)
    names = bytes(16) + b"x" * 16
    assert mine.take(names) == [0, 1]
    seen = there.of(worker)
    assert seen is not None
    assert (seen.life, seen.read(0), seen.read(1)) == ((3, 1), bytes(16), b"x" * 16)
    again = Memories(tmp_path).mine(worker)
    assert seen.read(1) == b"x" * 16
    again.begin(4, 0)
    assert (seen.life, seen.read(1)) == ((4, 0), bytes(16))
    assert again.take(names * SLOTS) is None


def test_what_a_kill_leaves_of_a_history_is_read(tmp_path: Path) -> None:
    """Every whole line counts; the one that was being written does not, and what has no answer is unknown."""
    from msgspec import json as fast

    times = iter(range(100))
    file = tmp_path / "w.jsonl"
    with file.open("ab") as sink:
        told = Recorder(lambda: next(times), lambda event: sink.write(fast.encode(event) + b"\n"))
        told.invoke("w.1", "publish", {"worker": "w"})
        told.ok("w.1", stamp=7)
        told.invoke("w.2", "publish", {"worker": "w"})
        sink.write(b'{"index":3,"type":"o')
    assert [event.type for event in events_of(file)] == ["invoke", "ok", "invoke"]
    assert events_of(tmp_path / "none.jsonl") == []
    own = Recorder(lambda: next(times))
    own.invoke("router.1", "acquire", {})
    own.fail("router.1")
    history = merged(own, [file, tmp_path / "none.jsonl"])
    outcomes = [(one.process, one.outcome) for one in history.operations]
    assert outcomes == [("w.1", "ok"), ("w.2", "info"), ("router.1", "fail")]
    assert history.operations[0].stamp == 7


def test_a_verb_runs_one_kind_of_thing() -> None:
    """Seeds and processes together are refused, a trace without a seed, and runs and records of seeds."""
    for words in (
        ["--processes", "5", "--seeds", "1..2"],
        ["--trace", "--seeds", "1..2"],
        ["--seed", "1", "--runs", "2"],
        ["--seed", "1", "--record", "folder"],
        [],
    ):
        assert CliRunner().invoke(check, ["pool", *words]).exit_code == 2
