"""The verbs on data against a node process: what they print, in both forms, and their exit codes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from k2store.cli.group import k2
from k2store.cli.notation import show
from k2store.cli.remote import admin
from k2store.config import load
from k2store.testing import LocalNode, local_node
from truetime.timestamp import describe

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    """One node for the module."""
    with local_node(tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest.fixture
def run(node: LocalNode) -> Run:
    """Run a verb against the node, in this process."""

    def call(*arguments: str, code: int = 0, text: str | None = None) -> Result:
        said = ["--config", str(_no_settings(node.path)), *arguments, "--address", node.address]
        result = CliRunner().invoke(k2, said, input=text)
        assert result.exit_code == code, result.output
        return result

    return call


def _no_settings(folder: Path) -> Path:
    file = folder / "empty.toml"
    file.touch()
    return file


def document(result: Result) -> Any:
    """The one JSON document of a run."""
    return json.loads(result.stdout)


def documents(result: Result) -> list[Any]:
    """The JSON documents of a run, one a line."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_put_get_and_delete(run: Run) -> None:
    """A value comes back until it is deleted; then `get` ends with 1 and says so."""
    at = int(run("put", "pgd", "one").stdout)
    assert run("get", "pgd").stdout == "one\n"
    assert document(run("get", "pgd", "--json")) == {
        "key": "pgd",
        "value": "one",
        "version": at,
        "time": describe(at),
    }
    told = document(run("delete", "pgd", "--json"))
    assert told["key"] == "pgd"
    assert told["at"] > at
    absent = run("get", "pgd", code=1)
    assert (absent.stdout, absent.stderr) == ("", "pgd has no value\n")
    assert document(run("get", "pgd", "--json", code=1)) == {"key": "pgd", "value": None}


def test_conditions_of_put_and_delete(run: Run) -> None:
    """Each condition lets the write through exactly when it holds; else the exit code is 4."""
    first = run("put", "cond", "a", "--if-absent").stdout.strip()
    refused = run("put", "cond", "b", "--if-absent", "--json", code=4)
    assert json.loads(refused.stderr)["error"] == "ConditionFailed"
    run("put", "cond", "b", "--if-value", "z", code=4)
    second = run("put", "cond", "b", "--if-value", "a").stdout.strip()
    run("put", "cond", "c", "--if-version", first, code=4)
    run("put", "cond", "c", "--if-version", second)
    run("delete", "cond", "--if-version", second, code=4)
    run("delete", "cond", "--if-value", "b", code=4)
    assert run("get", "cond").stdout == "c\n"
    run("delete", "cond", "--if-present")
    run("delete", "cond", "--if-present", code=4)


def test_values_from_files(run: Run, tmp_path: Path) -> None:
    """`--file` takes any bytes from a file or the standard input, and `--raw` gives them back."""
    data = bytes(range(256))
    (tmp_path / "value").write_bytes(data)
    run("put", "from-file", "--file", str(tmp_path / "value"))
    assert run("get", "from-file", "--raw").stdout_bytes == data
    run("put", "from-file", "--file", "-", text="typed")
    assert run("get", "from-file", "--raw").stdout_bytes == b"typed"
    run("put", "from-file", code=2)
    run("put", "from-file", "value", "--file", str(tmp_path / "value"), code=2)


@given(key=st.binary(min_size=1, max_size=40), value=st.binary(max_size=80))
def test_any_bytes_in_every_form(key: bytes, value: bytes) -> None:
    """What a form shows, the same form reads: text with escapes, hexadecimal, Base64."""
    # The store is not needed for this: the forms are what is judged.
    import click

    from k2store.cli.reach import bytes_of, text_of

    for form in ("text", "hex", "base64"):
        with click.Context(click.Command("x")) as context:
            context.meta["k2store.form"] = form
            assert (bytes_of(text_of(key)), bytes_of(text_of(value))) == (key, value)


def test_forms_of_bytes(run: Run) -> None:
    """Keys and values that are no text go in and come out in the form that was asked for."""
    run("put", r"bin\x00\xff", r"\x01é\\")
    assert run("get", r"bin\x00\xff").stdout == "\\x01é\\\\\n"
    assert run("get", "--hex", b"bin\x00\xff".hex()).stdout == "01c3a95c\n"
    assert run("get", "YmluAP8=", "--base64").stdout == "AcOpXA==\n"
    assert document(run("scan", "--hex", b"bin".hex(), "--json"))["key"] == "62696e00ff"
    run("get", "xyz", "--hex", code=2)
    run("get", "00", "--hex", "--base64", code=2)
    run("get", r"\q", code=2)


def test_scan(run: Run, node: LocalNode) -> None:
    """A prefix or a range, forward or backward, limited, with or without values, in both forms."""
    with node.blocking() as db:
        db.transact(writes=[(b"scan/%d" % number, b"v%d" % number) for number in range(5)])
    lines = [f"scan/{number}\tv{number}\n" for number in range(5)]
    assert run("scan", "scan/").stdout == "".join(lines)
    assert run("scan", "scan/", "--reverse", "--limit", "2").stdout == lines[4] + lines[3]
    assert run("scan", "--start", "scan/1", "--end", "scan/3").stdout == lines[1] + lines[2]
    assert run("scan", "scan/", "--keys-only", "--limit", "1").stdout == "scan/0\n"
    rows = documents(run("scan", "scan/", "--json"))
    assert [(row["key"], row["value"]) for row in rows] == [
        (f"scan/{number}", f"v{number}") for number in range(5)
    ]
    assert len({row["version"] for row in rows}) == 1
    run("scan", "scan/", "--start", "a", code=2)
    run("scan", "--start", "b", "--end", "a", code=2)


def test_a_reader_that_has_enough(node: LocalNode) -> None:
    """`k2 scan | head` ends quietly when nobody reads any more."""
    with node.blocking() as db:
        db.transact(writes=[(b"many/%04d" % number, b"x" * 1_000) for number in range(500)])
    script = "from k2store.cli import main; main()"
    arguments = [sys.executable, "-c", script, "scan", "many/", "--address", node.address]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"many/0000")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


def test_the_past(run: Run) -> None:
    """`--at` reads as of a stamp, given as a number or in its form for people; history lists all."""
    first = int(run("put", "past", "one").stdout)
    second = int(run("put", "past", "two").stdout)
    third = int(run("delete", "past").stdout)
    assert run("get", "past", "--at", str(first)).stdout == "one\n"
    assert run("get", "past", "--at", describe(second)).stdout == "two\n"
    assert run("scan", "past", "--at", str(second - 1)).stdout == "past\tone\n"
    run("get", "past", "--at", str(first - 1), code=1)
    versions = documents(run("history", "past", "--json"))
    assert [(one["at"], one["value"]) for one in versions] == [
        (third, None),
        (second, "two"),
        (first, "one"),
    ]
    assert len(documents(run("history", "past", "--json", "--limit", "2"))) == 2
    assert documents(run("history", "past", "--json", "--at", str(first)))[0]["value"] == "one"
    assert "(deleted)" in run("history", "past").stdout
    assert run("history", "never").stdout == ""


def test_stamps_that_cannot_be_read(run: Run) -> None:
    """Nonsense, the future and what is no longer kept are refused, each with its code."""
    run("get", "k", "--at", "yesterday", code=2)
    run("get", "k", "--at", "0", code=2)
    assert "future" in run("get", "k", "--at", "2055-01-01T00:00:00Z", code=2).stderr
    old = run("get", "k", "--at", "2020-01-02T00:00:00Z", "--json", code=1)
    assert json.loads(old.stderr)["error"] == "TooOld"


def test_watch_goes_on_from_a_stamp(run: Run) -> None:
    """Commits since a stamp come whole and in order; the last one's stamp is where to go on."""
    begin = run("put", "watch/a", "1").stdout.strip()
    run("txn", text="put watch/b 2\nput watch/c 3\nput elsewhere 4\n")
    last = run("delete", "watch/a").stdout.strip()
    events = documents(run("watch", "watch/", "--since", begin, "--limit", "2", "--json"))
    assert [event["records"] for event in events] == [
        [{"key": "watch/b", "value": "2"}, {"key": "watch/c", "value": "3"}],
        [{"key": "watch/a", "value": None}],
    ]
    middle = str(events[0]["at"])
    assert run("watch", "watch/", "--since", middle, "--limit", "1").stdout == (
        f"{last}  delete watch/a\n"
    )


def test_watch_waits_for_what_comes(run: Run, node: LocalNode) -> None:
    """A watch that has nothing to tell yet tells what is committed while it runs."""
    since = run("put", "live/0", "x").stdout.strip()
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(
            run, "watch", "live/", "--since", since, "--limit", "1", "--resolved", "--json"
        )
        with node.blocking() as db:
            db.put(b"live/1", b"y")
        events = documents(watching.result(30))
    changes = [event for event in events if event["type"] == "changes"]
    assert [event["records"] for event in changes] == [[{"key": "live/1", "value": "y"}]]


def test_transaction_script(run: Run, tmp_path: Path) -> None:
    """A script reads its own writes and takes effect at one stamp; quotes and comments work."""
    script = tmp_path / "script"
    script.write_text(
        "# a comment\n\nrequire t/a absent\nput t/a 'two words'\nget t/a\n"
        'require t/a == "two words"\nput t/b \\x00#\ndelete t/none\n'
    )
    told = document(run("txn", str(script), "--json"))
    assert told["committed"] is True
    assert [one["operation"] for one in told["results"]] == [
        "require",
        "put",
        "get",
        "require",
        "put",
        "delete",
    ]
    assert told["results"][2] == {"operation": "get", "key": "t/a", "value": "two words"}
    rows = documents(run("scan", "t/", "--json"))
    assert {row["version"] for row in rows} == {told["at"]}
    assert [row["value"] for row in rows] == ["two words", "\\x00#"]
    page = run("txn", text="get t/a\nget t/none\nrequire t/b present\n").stdout
    assert page.startswith("t/a\ttwo words\nt/none\ncommitted at ")


def test_a_requirement_that_does_not_hold(run: Run) -> None:
    """Nothing of the script takes effect, the line is named, and the exit code is 4."""
    run("put", "req", "1")
    refused = run("txn", text="put req/other 1\nrequire req == 2\n", code=4)
    assert "line 2" in refused.stderr
    run("get", "req/other", code=1)
    run("txn", text="require req absent\n", code=4)
    run("txn", text="require req/other present\n", code=4)


def test_a_script_that_conflicts(run: Run, node: LocalNode) -> None:
    """With one attempt, a script that loses to another transaction ends with 4 and no effect."""

    settings = load(env={}, overrides={"client.endpoint": node.address}).settings

    def open_count() -> int:
        # Not by a verb: two of them in one process would share their output streams.
        with admin(settings) as remote:
            return remote.status().transactions

    async def scene() -> Result:
        async with node.connect() as db:
            async for txn in db.transactions(attempts=1):
                async with txn:
                    # So many writes leave before the commit: whoever reads one of them waits.
                    for number in range(db.session.early_write_count):
                        txn.put(b"held/%d" % number, b"x")
                    await txn.get(b"held/none")
                    before = await asyncio.to_thread(open_count)
                    script = asyncio.create_task(
                        asyncio.to_thread(
                            run,
                            *("txn", "--attempts", "1", "--json"),
                            text="get held/0\nput held/mine 1\n",
                            code=4,
                        )
                    )
                    while await asyncio.to_thread(open_count) == before:
                        assert not script.done()
                    # The script has its stamp and waits; a later reader decides against its write.
                    assert await db.get(b"held/mine") is None
            return await script

    told = json.loads(asyncio.run(scene()).stderr)
    assert (told["error"], told["exit_code"]) == ("Conflict", 4)
    run("get", "held/mine", code=1)


@pytest.mark.parametrize(
    "script",
    ["", "# nothing\n", "frob k\n", "put k\n", "require k == \n", "get 'open\n", "get \\q\n"],
)
def test_a_script_that_is_none(run: Run, script: str) -> None:
    """A statement that does not exist is refused before anything is sent, with its line."""
    assert "Rejected" in run("txn", text=script, code=2).stderr


def test_nobody_answers() -> None:
    """Without a node every verb ends with 3 and says where it looked."""
    for arguments in (["get", "k"], ["put", "k", "v"], ["scan"], ["history", "k"], ["watch"]):
        result = CliRunner().invoke(
            k2, [*arguments, "--address", "127.0.0.1:1", "--timeout", "300ms"]
        )
        assert result.exit_code == 3, result.output
        assert "127.0.0.1:1" in result.stderr


def test_credentials_are_read(run: Run) -> None:
    """A token or authority that cannot be read is refused before anybody is asked."""
    run("get", "k", "--token", "/nonexistent", code=2)
    run("get", "k", "--ca", "/nonexistent", code=2)
    run("get", "k", "--timeout", "soon", code=2)


def test_clock_of_a_node(run: Run) -> None:
    """`k2 clock --address` shows the node's own clock and the commit wait that it has paid."""
    run("put", "clock", "1")
    told = document(run("clock", "--json"))
    assert (told["source"], told["assumed"], told["bound_ns"]) == ("declared", True, 500_000)
    assert told["commits"] >= 1
    assert "commits, mean" in run("clock").stdout


def test_keys_are_shown_as_the_notation_says(run: Run) -> None:
    """A failure names its key in the notation of the command line."""
    run("put", r"k\x00", "1")
    refused = run("put", r"k\x00", "2", "--if-absent", "--json", code=4)
    assert json.loads(refused.stderr)["key"] == show(b"k\x00")
