"""`k2 clock`: what it prints, in both forms, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from k2store.cli.clock import of_node, page
from k2store.cli.group import k2
from k2store.clock import ClockFile

ANSWER = {
    "source": "declared",
    "assumed": True,
    "lo_ns": 1_780_000_000_000_000_000,
    "hi_ns": 1_780_000_000_000_500_000,
    "ahead_ns_max": 1_500_000,
    "refusal": "",
    "commits": 4,
    "commit_wait_ns_total": 1_000_000,
    "commit_wait_ns_max": 700_000,
}


def run(folder: Path, *arguments: str) -> Result:
    """Run `k2` with an empty settings file."""
    file = folder / "k2.toml"
    file.touch()
    return CliRunner().invoke(k2, ("--config", str(file), *arguments))


def test_the_default_source_is_shown_as_assumed(tmp_path: Path) -> None:
    """The page names the source, its bound, D and the commit wait they imply."""
    result = run(tmp_path, "clock")
    assert result.exit_code == 0, result.output
    for expected in ("declared (assumed)", "500us (at most 700us)", "1500us ahead", "commit wait"):
        assert expected in result.output


def test_the_json_form_has_figures(tmp_path: Path) -> None:
    """One document with the interval and the two commit waits."""
    result = run(tmp_path, "--set", "clock.bound=300us", "clock", "--json")
    document = json.loads(result.output)
    assert document["hi_ns"] - document["lo_ns"] == document["bound_ns"] == 300_000
    assert document["commit_wait_node_ns"] == 300_000
    assert document["commit_wait_batch_ns"] == 800_000
    assert document["assumed"] is True
    assert document["refusal"] is None


def test_watching_prints_one_record_a_look(tmp_path: Path) -> None:
    """Each look is a line of JSON of its own, and time goes on between them."""
    result = run(tmp_path, "clock", "--watch", "--count", "3", "--interval", "0", "--json")
    looks = [json.loads(text) for text in result.output.splitlines()]
    assert len(looks) == 3
    assert looks[0]["lo_ns"] <= looks[1]["lo_ns"] <= looks[2]["lo_ns"]


def test_watching_for_people_prints_one_line_a_look(tmp_path: Path) -> None:
    """The text form of a record is one line with the bound."""
    result = run(tmp_path, "clock", "--watch", "--count", "2", "--interval", "0")
    assert len(result.output.splitlines()) == 2
    assert "bound 500us" in result.output


def test_a_clock_wider_than_allowed_ends_with_code_3(tmp_path: Path) -> None:
    """The page still shows the clock, says why no stamp is given, and the code says unavailable."""
    path = tmp_path / "time"
    ClockFile.create(path, 2_000_000).close()
    chosen = ("--set", "clock.source=file", "--set", f"clock.file={path}")
    result = run(tmp_path, *chosen, "clock")
    assert result.exit_code == 3
    assert "2ms is wider than clock.bound_max 700us" in result.output
    line = run(tmp_path, *chosen, "clock", "--watch", "--count", "1")
    assert line.exit_code == 3
    assert "refused: 2ms is wider" in line.output


def test_a_clock_file_that_is_missing_ends_with_code_3(tmp_path: Path) -> None:
    """The failure is told once, with the path."""
    path = tmp_path / "nowhere"
    result = run(tmp_path, "--set", "clock.source=file", "--set", f"clock.file={path}", "clock")
    assert result.exit_code == 3
    assert str(path) in result.stderr


def test_a_nodes_answer_is_shown_with_the_wait_it_paid() -> None:
    """The same page takes a node's answer, with the mean and the longest commit wait."""
    status = of_node("node-1:7400", ANSWER)
    assert status.bound_ns == status.commit_wait_node_ns == 500_000
    assert status.commit_wait_ns_mean == 250_000
    text = page(status)
    assert "node-1:7400" in text
    assert "4 commits, mean 250us, longest 700us" in text


def test_a_node_that_refuses_says_why() -> None:
    """Without an interval there is no bound, and the refusal stands on the page."""
    told = ANSWER | {"lo_ns": 0, "hi_ns": 0, "refusal": "not synchronised", "commits": 0}
    status = of_node("node-1:7400", told)
    assert status.bound_ns is None
    assert status.commit_wait_ns_mean == 0
    assert "not synchronised" in page(status)


@pytest.mark.parametrize("broken", [{"lo_ns": "soon"}, {"assumed": None}])
def test_an_answer_of_the_wrong_shape_is_refused(broken: dict[str, object]) -> None:
    """A field of another type raises instead of being printed."""
    with pytest.raises(msgspec.ValidationError):
        of_node("node-1:7400", ANSWER | broken)
