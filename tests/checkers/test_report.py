"""Records of runs, and the pages made of them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from jepsen_like.cli import check
from jepsen_like.nemesis.nemesis import Applied
from jepsen_like.nemesis.schedule import Fault
from jepsen_like.report import Record, page, read
from jepsen_like.report.record import NAME, BadRecord, Change, Operation, write
from jepsen_like.report.simulated import simulated


def record(**changes: object) -> Record:
    """A small run in which everything there is has happened once."""
    fields: dict[str, object] = {
        "title": "a <run>",
        "duration_ns": 4_000_000_000,
        "hosts": {"fra-1": "fra", "iad-1": "iad"},
        "faults": [
            Applied(Fault(0, "kill", 1, "fra-1"), "effective", "signal 9 & back", 10**9, 2 * 10**9),
            Applied(Fault(0, "pause", 1, "iad-1"), "idle", "", 10**9, 3 * 10**9),
            Applied(Fault(0, "one-way", 1, "", (("fra-1", "iad-1"),)), "skipped", "no", 0, 1),
        ],
        "operations": [
            Operation(1, "bank", 0, 10**8, "ok", 2),
            Operation(2, "bank", 10**9, 2 * 10**9, "fail", 0, "Deadline"),
            Operation(3, "set@fra/", 10**9, 3 * 10**9, "unknown", 1, "OutcomeUnknown"),
            Operation(4, "set@fra/", 2 * 10**9, -1, "open", 1),
        ],
        "leaders": [Change(0, 1, "fra-1"), Change(2 * 10**9, 1, "iad-1")],
        "stalls": [(10**9, 10**8)],
        "verdict": {"valid": False, "anomalies": ["a <lost> write"], "flaws": [], "commits": 1},
    }
    return Record(**(fields | changes))  # type: ignore[arg-type]


class Seen(HTMLParser):
    """What stands in a page, and what it would fetch."""

    def __init__(self, text: str) -> None:
        """Read all of it."""
        super().__init__()
        self.texts: list[str] = []
        self.classes: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Its classes, and what it would fetch."""
        for name, value in attrs:
            if name in ("src", "href") or tag == "script":
                self.fetched.append(value or tag)
            if name == "class":
                self.classes.append(value or "")

    def handle_data(self, data: str) -> None:
        """Text."""
        self.texts.append(data)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """By the name of the file, and by the folder that it is in."""
    write(record(), tmp_path / NAME)
    assert read(tmp_path) == read(tmp_path / NAME) == record()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}'])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    """With the file that it is about."""
    (tmp_path / NAME).write_text(text)
    with pytest.raises(BadRecord, match=NAME):
        read(tmp_path)


def test_a_record_of_another_format_is_refused(tmp_path: Path) -> None:
    """So that nobody reads numbers that mean something else."""
    write(record(format=2), tmp_path / NAME)
    with pytest.raises(BadRecord, match="format 2"):
        read(tmp_path)


def test_a_page_shows_what_happened_and_fetches_nothing() -> None:
    """Faults with their evidence, what failed, who led, the verdict; text is text."""
    seen = Seen(page(record()))
    every = " ".join(seen.texts)
    for told in ("a <run>: NOT VALID", "a <lost> write", "signal 9 & back", "Deadline", "set@fra/"):
        assert told in every
    for kind in ("fault", "idle", "skipped", "fail", "unknown", "open", "lead", "stall", "shade"):
        assert kind in seen.classes
    assert seen.fetched == []


def test_nothing_of_a_picture_lies_outside_of_it() -> None:
    """Also what began before the run or never ended."""
    text = page(record())
    width = float(re.search(r'viewBox="0 0 (\d+)', text)[1])  # type: ignore[index]
    for x, wide in re.findall(r'<rect class=\w+ x="([\d.-]+)" y="[\d.-]+" width="([\d.]+)"', text):
        assert float(x) >= 0
        assert float(x) + float(wide) <= width + 1


def test_an_empty_run_has_a_page() -> None:
    """A run in which nothing happened can be looked at as well."""
    empty = record(operations=[], faults=[], leaders=[], stalls=[], verdict={"valid": True})
    assert "valid" in page(empty)


@pytest.mark.parametrize("cluster", [False, True])
def test_a_simulated_run_has_a_record(cluster: bool) -> None:
    """Its operations, its faults with their evidence, and what it came to."""
    found = simulated(3, cluster=cluster)
    assert found.verdict["valid"] is True
    assert len(found.operations) == found.verdict["transactions"]
    assert any(one.state == "effective" for one in found.faults)
    assert all(0 <= one.began_ns <= found.duration_ns for one in found.faults)
    assert "<svg" in page(found)


def test_the_command_writes_a_page(tmp_path: Path) -> None:
    """Beside the record, or where it is told to; wrong use is told."""
    write(record(), tmp_path / NAME)
    done = CliRunner().invoke(check, ["report", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run.html").read_text().startswith("<!doctype html>")
    assert CliRunner().invoke(check, ["report"]).exit_code == 2
    (tmp_path / NAME).write_text("{}")
    assert CliRunner().invoke(check, ["report", str(tmp_path)]).exit_code == 2
