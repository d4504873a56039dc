"""deploy/local: a cluster of plain processes is made, started, mended and stopped by its script."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2store.config import load
from tests.architecture.tree import ROOT
from tests.integration.deployed_node import CLEAN, PROGRAM, k2

SCRIPT = ROOT / "deploy/local/cluster.py"
NAMES = ("fra-1", "iad-1", "sin-1")


def cluster(folder: Path, verb: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a verb of the script on a folder; `k2` on PATH is this environment's."""
    tools = folder.parent / "tools"
    if not tools.exists():
        tools.mkdir()
        words = f"{PROGRAM[0]} {PROGRAM[1]} '{PROGRAM[2]}'"
        (tools / "k2").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (tools / "k2").chmod(0o755)
    return subprocess.run(
        [sys.executable, str(SCRIPT), verb, str(folder), *options],
        env=CLEAN | {"PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def moved_to_free_ports(folder: Path) -> None:
    """Give every address in the settings files a port that nobody has now."""
    text = {path: path.read_text() for path in sorted(folder.glob("*.toml"))}
    ports = sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", "".join(text.values()))))
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in ports]
    other = {old: str(one.getsockname()[1]) for old, one in zip(ports, sockets, strict=True)}
    for one in sockets:
        one.close()
    for path, content in text.items():
        path.write_text(
            re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{other[found[1]]}", content)
        )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with three settings files; whatever runs from it is stopped at the end."""
    folder = tmp_path / "cluster"
    made = cluster(folder, "make")
    assert made.returncode == 0, made.stderr
    moved_to_free_ports(folder)
    yield folder
    for path in folder.glob("*.pid"):
        try:
            os.kill(int(path.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            pass


def states(folder: Path) -> dict[str, str]:
    """State by node, as `status` prints it."""
    lines = cluster(folder, "status").stdout.splitlines()
    return {words[0]: words[1] for words in (line.split() for line in lines)}


def client(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the operator, at one of the nodes."""
    return k2(folder, ("k2", "--config", f"{folder}/{name}.toml", *words))


def test_a_cluster_lives_from_its_folder(folder: Path) -> None:
    """Made and started it is one cluster; it goes on without a node, which `start` brings back."""
    started = cluster(folder, "start")
    assert started.returncode == 0, started.stderr
    assert states(folder) == dict.fromkeys(NAMES, "SERVING")
    stranger = {"K2_CLIENT__CERTIFICATE": "", "K2_CLIENT__KEY": ""}
    refused = k2(folder, ("k2", "--config", f"{folder}/fra-1.toml", "status"), stranger)
    assert refused.returncode == 3, "without a certificate nobody gets in"
    assert client(folder, "fra-1", "put", "key", "value").returncode == 0
    assert client(folder, "sin-1", "get", "key").stdout.strip() == "value"
    number = int((folder / "sin-1.pid").read_text())
    os.kill(number, signal.SIGKILL)
    while (
        Path(f"/proc/{number}").exists() and b"k2" in Path(f"/proc/{number}/cmdline").read_bytes()
    ):
        pass
    assert states(folder) == dict.fromkeys(NAMES, "SERVING") | {"sin-1": "STOPPED"}
    assert cluster(folder, "status").returncode == 1
    written = client(folder, "iad-1", "put", "key", "newer")
    assert written.returncode == 0, written.stderr
    again = cluster(folder, "start")
    assert again.returncode == 0, again.stderr
    read = client(folder, "sin-1", "get", "key")
    assert (read.returncode, read.stdout.strip()) == (0, "newer")
    stopped = cluster(folder, "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout.count("ended") == len(NAMES)
    assert states(folder) == dict.fromkeys(NAMES, "STOPPED")
    assert not list(folder.glob("*.pid"))


def test_settings_are_made_once_and_are_settings(folder: Path) -> None:
    """Names and regions differ from node to node; making again overwrites nothing."""
    loaded = [load(folder / f"{name}.toml", env={}).settings for name in NAMES]
    assert [one.node.region for one in loaded] == ["fra", "iad", "sin"]
    keeper, *others = loaded
    assert keeper.cluster.control == "embedded"
    assert {one.cluster.control for one in others} == {f"k2://{keeper.node.listen}"}
    assert len({one.node.data for one in loaded}) == len(NAMES)
    path = folder / "fra-1.toml"
    path.write_text(path.read_text() + "\n# mine\n")
    before = {file.name: file.read_bytes() for file in (folder / "tls").iterdir()}
    assert {"authority.pem", "fra-1.key", "iad-1.pem", "operator.pem"} <= before.keys()
    (folder / "tls/iad-1.pem").unlink()
    assert cluster(folder, "make").returncode == 0
    assert path.read_text().endswith("# mine\n")
    after = {file.name: file.read_bytes() for file in (folder / "tls").iterdir()}
    changed = {name for name, content in after.items() if before[name] != content}
    assert changed == {"iad-1.pem", "iad-1.key"}


def test_what_cannot_start_says_why(folder: Path, tmp_path: Path) -> None:
    """A node whose settings are refused ends the start with its code and the place of its log."""
    path = folder / "sin-1.toml"
    path.write_text(path.read_text().replace("[clock]", "[clock]\nbuond = 1"))
    started = cluster(folder, "start")
    assert started.returncode == 1
    assert "sin-1 ended with code 2" in started.stderr
    assert "bound" in (folder / "sin-1.log").read_text()
    assert cluster(folder, "stop").returncode == 0
    empty = cluster(tmp_path / "nothing", "start")
    assert (empty.returncode, "make them first" in empty.stderr) == (1, True)


def test_a_number_that_was_given_again_is_not_ours(folder: Path) -> None:
    """A stale pid file that names somebody else's process neither counts nor gets a signal."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (folder / "fra-1.pid").write_text(str(stranger.pid))
        assert states(folder)["fra-1"] == "STOPPED"
        assert cluster(folder, "stop").returncode == 0
        assert stranger.poll() is None
        stranger.kill()
