"""`k2 check` on the command line: exact fields, exact exit codes, and never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jepsen_like.cli import COMMANDS, check
from jepsen_like.generate import PERTURBATIONS

FIELDS = {"file", "valid", "anomalies", "not", "ops", "seconds"}


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(check, list(arguments))


def _gen(path: Path, model: str, *more: str) -> Path:
    result = _run("gen", "--model", model, "--out", str(path), "--operations", "120", *more)
    assert result.exit_code == 0, result.output
    return path


def test_one_object_a_file_and_the_worst_exit_code(tmp_path: Path) -> None:
    """Valid is 0, any invalid 5, any unknown 6; each file gives one line with exactly the promised fields."""
    good = _gen(tmp_path / "good.edn", "list-append")
    bad = _gen(tmp_path / "bad.json", "list-append", "--perturb", "double-element")
    empty = tmp_path / "empty.edn"
    empty.write_text("[]")
    for files, code, verdicts in (
        ([good], 0, [True]),
        ([good, bad], 5, [True, False]),
        ([good, empty], 6, [True, "unknown"]),
        ([empty, bad, good], 5, ["unknown", False, True]),
    ):
        result = _run("history", *map(str, files), "--model", "list-append", "--json")
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        assert result.exit_code == code
        assert [line["valid"] for line in lines] == verdicts
        assert [line["file"] for line in lines] == [str(file) for file in files]
        for line in lines:
            assert set(line) == FIELDS
            assert isinstance(line["ops"], int)
            assert isinstance(line["seconds"], float)
    broken = next(line for line in lines if line["valid"] is False)
    assert "duplicate-elements" in broken["anomalies"]
    assert broken["not"] == ["read-uncommitted"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("history", "--model", "register"),
        ("history", "x.edn"),
        ("history", "x.edn", "--model", "no-such"),
        ("history", "/no/such/file", "--model", "register"),
        ("history", "{file}", "--model", "register", "--initial", "{oops"),
        ("history", "{file}", "--model", "list-append", "--consistency", "eventually"),
        ("history", "{file}", "--model", "register", "--timeout", "soon"),
        ("history", "{broken}", "--model", "register", "--json"),
        ("history", "{folder}", "--model", "register"),
        ("gen", "--model", "kv-append", "--out", "{folder}/g", "--perturb", "any"),
        ("gen", "--model", "register", "--out", "{folder}/g", "--perturb", "no-such"),
        ("no-such",),
    ],
)
def test_wrong_use_is_two_with_a_message(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """What cannot be understood or read ends with 2, a message, and no traceback."""
    (tmp_path / "f.edn").write_text("[]")
    (tmp_path / "b.edn").write_text("{:type :invoke")
    filled = [
        a.format(file=tmp_path / "f.edn", broken=tmp_path / "b.edn", folder=tmp_path)
        if a.startswith(("{f", "{b"))
        else a
        for a in arguments
    ]
    result = _run(*filled)
    assert result.exit_code == 2, result.output
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr
    assert not result.stdout.strip()


def test_consistency_and_initial_decide(tmp_path: Path) -> None:
    """Write skew is invalid under serializability and valid under snapshot isolation; initial values count."""
    skew = tmp_path / "skew.edn"
    skew.write_text(
        "{:type :ok, :process 0, :f :txn, :value [[:append :x 1] [:r :y nil]]}\n"
        "{:type :ok, :process 1, :f :txn, :value [[:append :y 1] [:r :x nil]]}\n"
    )
    for consistency, code in (("serializable", 5), ("snapshot-isolation", 0), ("PL-2.99", 5)):
        result = _run(
            "history", str(skew), "--model", "list-append", "--consistency", consistency, "--json"
        )
        assert result.exit_code == code, consistency
    read = tmp_path / "read.json"
    read.write_text(
        '{"type":"invoke","process":0,"f":"read","value":null}\n'
        '{"type":"ok","process":0,"f":"read","value":4}\n'
    )
    assert _run("history", str(read), "--model", "cas-register", "--initial", "4").exit_code == 0
    assert _run("history", str(read), "--model", "cas-register").exit_code == 5


@pytest.mark.parametrize("model", sorted(m for m, names in PERTURBATIONS.items() if names))
def test_generated_files_get_their_verdict(model: str, tmp_path: Path) -> None:
    """`gen` writes what `history` calls valid, and with --perturb what it calls invalid; equal seeds, equal files."""
    for seed in ("1", "2", "3"):
        good = _gen(tmp_path / "good", model, "--seed", seed)
        assert _run("history", str(good), "--model", model).exit_code == 0
        again = _gen(tmp_path / "again", model, "--seed", seed)
        assert good.read_bytes() == again.read_bytes()
    bad = _gen(tmp_path / "bad", model, "--perturb", "any", "--seed", "1")
    assert _run("history", str(bad), "--model", model).exit_code == 5


def test_the_picture_needs_nothing_but_itself(tmp_path: Path) -> None:
    """--explain writes a page with words and a picture, no script and no address, its edges proved again."""
    skew = tmp_path / "skew.edn"
    skew.write_text(
        "{:type :ok, :process 0, :f :txn, :value [[:append :x 1] [:r :y nil]]}\n"
        "{:type :ok, :process 1, :f :txn, :value [[:append :y 1] [:r :x nil]]}\n"
    )
    result = _run(
        "history", str(skew), "--model", "list-append", "--explain", str(tmp_path / "out")
    )
    assert result.exit_code == 5
    assert "T0 < T1" in result.stdout
    assert "contradiction" in result.stdout
    page = (tmp_path / "out" / "skew.edn.html").read_text()
    assert "<svg" in page
    assert "proved again" in page
    assert "<script" not in page
    assert "http" not in page
    stuck = _gen(tmp_path / "stuck.edn", "register", "--perturb", "invent-value")
    _run("history", str(stuck), "--model", "register", "--explain", str(tmp_path / "out"))
    assert "<svg" in (tmp_path / "out" / "stuck.edn.html").read_text()


def test_help_stays_light() -> None:
    """Asking for help imports neither numpy nor scipy, and every command in the table exists."""
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom jepsen_like.cli import check\n"
        "assert CliRunner().invoke(check, ['--help']).exit_code == 0\n"
        "assert 'numpy' not in sys.modules and 'scipy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert _run(name, "--help").exit_code == 0
