"""The frame of `k2`: settings as options, JSON, exit codes, failures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from k2store import errors
from k2store.cli.exits import Exit, describe
from k2store.cli.group import k2, main
from k2store.cli.notation import parse, show
from k2store.cli.verb import KEY, Verb, output
from kv_pool.edge.refusals import Denied
from kv_pool.shots import Reason, Refused


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where no `k2.toml` lies about."""
    monkeypatch.chdir(tmp_path)


def run(command: click.Command, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of one run."""
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


@given(st.binary(max_size=40))
def test_notation_is_exact(data: bytes) -> None:
    """Any bytes shown as text read back as the same bytes, and the text is printable."""
    assert parse(show(data)) == data
    assert show(data).isprintable()


@given(st.text(max_size=20))
def test_any_text_is_bytes_or_refused(text: str) -> None:
    """Any text names bytes, or is refused for a stray backslash."""
    try:
        data = parse(text)
    except errors.Rejected:
        assert "\\" in text
    else:
        assert parse(show(data)) == data


def test_origin_of_a_flag_is_shown() -> None:
    """`config show --origin --json` names the flag that set a value."""
    code, out, _ = run(
        k2, "--set", "clock.bound=300us", "config", "show", "clock.bound", "--origin", "--json"
    )
    assert code == Exit.OK
    assert json.loads(out) == {
        "settings": [{"setting": "clock.bound", "value": "300us", "origin": "flag"}]
    }


def test_config_check_judges_a_file(tmp_path: Path) -> None:
    """`config check` accepts a sound file with 0 and refuses a wrong one with 2 and a hint."""
    (tmp_path / "good.toml").write_text('[node]\nname = "a"\n')
    (tmp_path / "bad.toml").write_text('[node]\nnam = "a"\n')
    assert run(k2, "config", "check", "good.toml")[0] == Exit.OK
    code, _, err = run(k2, "config", "check", "bad.toml", "--json")
    assert code == Exit.USAGE
    assert json.loads(err)["field"] == "node.nam"
    assert "did you mean node.name" in json.loads(err)["message"]


def test_doctor_reports_the_disk(tmp_path: Path) -> None:
    """`doctor --json` measures a sync in the folder it was given, and creates nothing there."""
    code, out, _ = run(k2, "doctor", "--data", str(tmp_path / "later"), "--json")
    findings = {each["subject"]: each for each in json.loads(out)["findings"]}
    assert "median" in findings["disk sync"]["finding"]
    assert list(tmp_path.iterdir()) == []
    assert code in {Exit.OK, Exit.INVALID}


def test_doctor_fails_on_an_unusable_clock() -> None:
    """A clock wider than allowed is a failed finding and exit code 5."""
    Path("clock.json").write_text("nonsense")
    code, out, _ = run(
        k2, "--set", "clock.source=file", "--set", "clock.file=clock.json", "doctor", "--json"
    )
    assert code == Exit.INVALID
    states = {each["subject"]: each["state"] for each in json.loads(out)["findings"]}
    assert states["clock"] == "failed"


def failing(error: Exception) -> click.Command:
    """A verb that fails in a given way."""

    @click.command("fail", cls=Verb)
    def fail() -> None:
        """Fail."""
        raise error

    return fail


@pytest.mark.parametrize("kind", errors.CLASSES, ids=lambda kind: kind.__name__)
def test_each_failure_ends_with_its_code(kind: type[errors.K2Error]) -> None:
    """Each class of failure ends a verb with its own code and tells its name and retry class."""
    code, out, err = run(failing(kind("it went wrong")), "--json")
    assert (code, out) == (kind.exit_code, "")
    told = json.loads(err)
    assert told["error"] == kind.__name__
    assert told["retry"] == kind.retry.value
    assert code in set(Exit)


def test_failure_in_text_is_one_line() -> None:
    """Without `--json` a failure is one line on the error stream."""
    code, out, err = run(failing(errors.Unavailable("nobody answers at x")))
    assert (code, out, err) == (3, "", "k2: Unavailable: nobody answers at x\n")


def test_bytes_of_a_failure_are_shown_in_the_notation() -> None:
    """A key in a failure's fields comes out as text that can be typed again."""
    told = describe(errors.Conflict("lost", rule="read_by", key=b"a\x00b"))
    assert told["key"] == "a\\x00b"
    assert told["rule"] == "read_by"


def test_a_missing_extra_is_named() -> None:
    """A verb whose package a light install leaves out says which extra brings it."""
    code, _, err = run(failing(ModuleNotFoundError("No module", name="rocksdict")))
    assert code == Exit.USAGE
    assert "k2store[server]" in err


def test_a_missing_extra_is_named_at_import(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A verb whose module cannot be imported for want of an extra says which one, too."""

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name}", name="scipy.sparse")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == Exit.USAGE
    assert "k2store[check]" in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    """An error that is no K2Error is not dressed up."""
    with pytest.raises(ZeroDivisionError):
        run(failing(ZeroDivisionError()))


def test_table_in_text_and_json() -> None:
    """A table prints columns in text, records under `--json`, and bytes in the notation."""

    @click.command("list", cls=Verb)
    @click.argument("key", type=KEY)
    def rows_of(key: bytes) -> None:
        """List."""
        output().note("looking")
        output().table("rows", ("key", "live"), [(key, True)])

    code, out, err = run(rows_of, "a\\xff")
    assert (code, out.split(), err) == (0, ["key", "live", "a\\xff", "yes"], "looking\n")
    code, out, err = run(rows_of, "a\\xff", "--json", "-q")
    assert (json.loads(out), err) == ({"rows": [{"key": "a\\xff", "live": True}]}, "")
    assert run(rows_of, "a\\q")[0] == Exit.USAGE


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["nonsense"], 2), (["--set", "novalue", "config", "show"], 2)],
)
def test_main_ends_with_the_code(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """`main` ends the process with the exit code of what happened."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == code
    capsys.readouterr()


def test_a_refusal_with_a_reason_is_told_as_json() -> None:
    """A field that is a reason of an enumeration is its value, so that `--json` can say it."""
    denied = Denied("acquire", Refused(Reason.UNKNOWN, 7))
    told = json.loads(json.dumps(describe(denied)))
    assert told["reason"] == Reason.UNKNOWN.value
    assert told["error"] == "Denied"
