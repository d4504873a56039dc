"""`k2 dev` as a user runs it: regions come up, tell what they do, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from k2store.cli.group import k2
from k2store.testing.wan import namespaces

REFUSAL = namespaces.refusal()
WAYS = [
    pytest.param(
        ("--wan", "namespaces"),
        marks=[
            pytest.mark.root,
            pytest.mark.skipif(
                REFUSAL is not None, reason=f"NOT TESTED, k2 dev between namespaces: {REFUSAL}"
            ),
        ],
    ),
    ("--wan", "proxy"),
    ("--no-wan",),
]
END_S = 30
K2 = (sys.executable, "-c", "from k2store.cli import main; main()")


@contextlib.contextmanager
def dev(tmp_path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`k2 dev --json` with options, and its first line; killed at the end if it is still there."""
    environment = {name: one for name, one in os.environ.items() if not name.startswith("K2_")}
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(
            [*K2, "dev", "--json", *options],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (tmp_path / "err").read_text()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def run(config: str, *words: str) -> str:
    """What a verb prints that is told where the cluster is."""
    done = CliRunner().invoke(k2, ["--config", config, *words])
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def looks(process: subprocess.Popen[str], count: int) -> Iterator[dict[str, dict[str, Any]]]:
    """The next looks at all nodes, by name."""
    assert process.stdout is not None
    while True:
        records = [json.loads(process.stdout.readline()) for _ in range(count)]
        yield {one["node"]: one for one in records}


@pytest.mark.parametrize("way", WAYS)
def test_regions_come_up_and_go(tmp_path: Path, way: Sequence[str]) -> None:
    """Nodes of all regions serve, a client in a region writes and reads, and Ctrl-C ends it all."""
    options = ("--regions", "fra,sin", "--interval", "0.1")
    with dev(tmp_path, *options, *way) as (process, ready):
        names = [(one["node"], one["region"]) for one in ready["nodes"]]
        assert names == [("fra-1", "fra"), ("sin-1", "sin")]
        assert ready["wan"] == (way[1] if way[0] == "--wan" else None)
        serving = {"fra-1": "SERVING", "sin-1": "SERVING"}
        seen = looks(process, 2)
        found = next(seen)
        while {name: one["state"] for name, one in found.items()} != serving:
            found = next(seen)
        assert [one["peers"] for one in found.values()] == [1, 1]
        led = [partition for one in found.values() for partition in one["leads"]]
        assert sorted(led) == list(range(1, found["fra-1"]["partitions"] + 1))
        run(ready["configs"]["sin"], "put", "fra/hello", "world")
        for config in ready["configs"].values():
            assert run(config, "get", "fra/hello") == "world"
        os.kill(ready["nodes"][1]["process"], signal.SIGKILL)
        while next(seen)["sin-1"]["state"] != "DOWN":
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(END_S) == 0
        assert not Path(ready["config"]).parent.exists()
    assert not any(Path(f"/proc/{one['process']}").exists() for one in ready["nodes"])


def test_data_can_be_kept(tmp_path: Path) -> None:
    """With --data the folder stays, and the next run finds what the last one wrote."""
    options = ("--regions", "fra", "--no-wan", "--data", str(tmp_path / "kept"))
    for words, expected in ((("put", "k", "v"), None), (("get", "k"), "v")):
        with dev(tmp_path, *options) as (process, ready):
            printed = run(ready["config"], *words)
            assert expected is None or printed == expected
            process.send_signal(signal.SIGTERM)
            assert process.wait(END_S) == 0
    assert (tmp_path / "kept" / "fra-1" / "k2.toml").exists()


def test_a_table_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal a table of the nodes is drawn, and again and again."""
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [*K2, "dev", "--regions", "fra,iad", "--no-wan", "--interval", "0.1"],
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    )
    os.close(terminal)
    try:
        drawn = ""
        patience = time.monotonic() + END_S
        while drawn.count("clock ms") < 3 or "SERVING" not in drawn:
            assert time.monotonic() < patience, drawn
            drawn += os.read(screen, 1 << 16).decode("utf-8", "replace")
        assert "fra-1" in drawn
        assert "iad-1" in drawn
        process.send_signal(signal.SIGINT)
        # What it still says has to be read, or it waits for that.
        with contextlib.suppress(OSError):
            while os.read(screen, 1 << 16):
                pass
        assert process.wait(END_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(screen)


@pytest.mark.parametrize(
    "options",
    [
        ("--listen", "127.0.0.1:0"),
        ("--admin", "127.0.0.1:0"),
        ("--wan", "proxy", "--no-wan"),
        ("--regions", "fra,moon"),
        ("--regions", ""),
        ("--nodes-per-region", "15"),
    ],
)
def test_wrong_options_start_nothing(options: Sequence[str]) -> None:
    """Options that do not go together, and regions that nobody knows, are wrong usage."""
    assert CliRunner().invoke(k2, ["dev", *options]).exit_code == 2
