"""The pool's load on real processes: `k2 check pool --processes`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from jepsen_like.cli import check
from jepsen_like.history import Recorder
from jepsen_like.pool.member import events_of, merged


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_workers_nodes_and_leaders_are_killed() -> None:
    """Over a kill -9 of a worker that comes back in its place, one that stands still for longer than its lease, a
    node, a leader and a region cut off: nothing claimed goes, nothing is lost or left over, learners are the store."""
    done = CliRunner().invoke(check, ["pool", "--processes", "25", "--seed", "1", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["anomalies"] == []
    assert result["valid"]
    assert len(result["faults"]) >= 4
    assert all(result["done"].get(f, 0) > 0 for f in ("register", "publish", "acquire", "evict"))
    assert result["compared"] > 0


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
    """Seeds and processes together are refused, and so is a trace without a seed."""
    for words in (["--processes", "5", "--seeds", "1..2"], ["--trace", "--seeds", "1..2"], []):
        assert CliRunner().invoke(check, ["pool", *words]).exit_code == 2
