#!/usr/bin/env python3
"""Three regions on one host, as plain processes from settings files: make, start, status, stop.

    deploy/local/cluster.py make run/local          # a folder with a settings file a node
    deploy/local/cluster.py start run/local         # returns when they serve as one cluster
    deploy/local/cluster.py status run/local
    deploy/local/cluster.py stop run/local          # every node drains and ends

The folder is everything there is: NAME.toml, NAME.log, NAME.pid and data/NAME for each node, and
the certificates in tls. What `make` has written may be edited; it does not overwrite a file.
`start` starts what does not run, so it also brings back a node that was killed. Standard library
only; `k2` is the one on PATH, or the launcher of this tree.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

REGIONS: Final = ("fra", "iad", "sin")
PORT: Final = 7400
PORTS_PER_NODE: Final = 10
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 90.0
LOOK_INTERVAL_S: Final = 0.1

SETTINGS: Final = """\
[node]
name = "{name}"
region = "{region}"
data = "{data}"
listen = "127.0.0.1:{port}"

[cluster]
# One node keeps the control plane for the others: right on one host, which is one place to fail.
control = "{control}"

[clock]
# Every process of this host reads the same clock, so its bound may be declared.
source = "declared"

[tls]
certificate = "{tls}/{name}.pem"
key = "{tls}/{name}.key"
authority = "{tls}/authority.pem"

[admin]
listen = "127.0.0.1:{admin}"

[logging]
format = "json"

[client]
# For k2 --config THIS_FILE VERB.
endpoint = "k2://127.0.0.1:{port}"
certificate = "{tls}/operator.pem"
key = "{tls}/operator.key"
authority = "{tls}/authority.pem"
"""


class Problem(Exception):
    """Something that the person at the terminal has to know; ends the script with code 1."""


class Node(NamedTuple):
    """One node of a folder, as its settings file has it."""

    name: str
    region: str
    folder: Path
    admin: str
    control: str

    @property
    def settings(self) -> Path:
        """Its settings file."""
        return self.folder / f"{self.name}.toml"

    @property
    def log(self) -> Path:
        """What its process writes."""
        return self.folder / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        """The number of its process."""
        return self.folder / f"{self.name}.pid"

    def process(self) -> int:
        """The number of its process, 0 when it does not run.

        Numbers are given again: a process counts only if its command names the settings file.
        """
        try:
            number = int(self.pid_file.read_text())
            words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return 0
        return number if os.fsencode(self.settings) in words else 0

    def state(self) -> str:
        """What its admin port says of it; `UNREACHABLE` when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.admin}/readyz", timeout=2) as answer:
                return str(answer.read().decode().strip())
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode().strip()
        except OSError:
            return "UNREACHABLE"


def program() -> str:
    """The `k2` to run."""
    found = shutil.which("k2") or str(Path(__file__).resolve().parents[2] / "k2")
    if not Path(found).exists():
        raise Problem("no k2 on PATH, and none in the tree that this script belongs to")
    return found


def nodes(folder: Path) -> list[Node]:
    """The nodes of a folder, by name."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        with path.open("rb") as file:
            tables = tomllib.load(file)
        node, control = tables["node"], tables.get("cluster", {}).get("control", "")
        found.append(Node(node["name"], node["region"], folder, tables["admin"]["listen"], control))
    if not found:
        raise Problem(f"no settings files in {folder}: make them first")
    return found


def make(folder: Path, regions: Sequence[str], port: int) -> None:
    """Write settings and certificates of a node in each region; what is there stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    tls = folder / "tls"
    _certify(tls, [f"{region}-1" for region in regions])
    for place, region in enumerate(regions):
        name = f"{region}-1"
        path = folder / f"{name}.toml"
        if path.exists():
            say(f"{path} is there, and stays as it is")
            continue
        own = port + place * PORTS_PER_NODE
        text = SETTINGS.format(
            name=name,
            region=region,
            control="embedded" if place == 0 else f"k2://127.0.0.1:{port}",
            data=folder / "data" / name,
            port=own,
            admin=own + 1,
            tls=tls,
        )
        path.write_text(text, encoding="utf-8")
        say(f"wrote {path}")


def _certify(tls: Path, names: Sequence[str]) -> None:
    """Make the certificates that are missing, of the nodes and of one client, the operator."""
    missing = [name for name in names if not (tls / f"{name}.pem").exists()]
    command = [program(), "certificates", "make", str(tls), "--quiet"]
    for name in missing:
        command += ["--node", f"{name}=127.0.0.1"]
    if not (tls / "operator.pem").exists():
        command += ["--client", "operator"]
    elif not missing:
        return
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise Problem("k2 made no certificates; its message stands above")
    say(f"certificates in {tls}")


def start(folder: Path) -> None:
    """Start every node that does not run, and wait until all of them serve as one cluster."""
    started = {}
    for node in nodes(folder):
        if node.process():
            continue
        command = [program(), "--config", str(node.settings), "node", "run"]
        with node.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        node.pid_file.write_text(f"{process.pid}\n", encoding="utf-8")
        started[node.name] = process
    deadline_s = time.monotonic() + START_TIMEOUT_S
    for node in nodes(folder):
        while node.state() != "SERVING":
            mine = started.get(node.name)
            if mine is not None and mine.poll() is not None:
                raise Problem(f"{node.name} ended with code {mine.returncode}: see {node.log}")
            if time.monotonic() > deadline_s:
                raise Problem(f"{node.name} is {node.state()}: see {node.log}")
            time.sleep(LOOK_INTERVAL_S)
    _make_keyspaces(folder)
    status(folder)


def _make_keyspaces(folder: Path) -> None:
    """One keyspace for all keys, which survives the loss of a region; nothing if it is there."""
    keeper = _keeper(folder)
    if keeper is None:
        return
    command = [program(), "--config", str(keeper.settings), "regions", "init", "--quiet"]
    command += ["--nodes", str(len(nodes(folder))), "--keyspace", f"default:region:{keeper.region}"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise Problem("the keyspaces were not made; the message of k2 stands above")


def _keeper(folder: Path) -> Node | None:
    """The node that keeps the control plane; None where every node is alone, or etcd keeps it."""
    kept = [node for node in nodes(folder) if node.control == "embedded"]
    return kept[0] if kept else None


def status(folder: Path) -> bool:
    """Say what each node does; whether all of them serve."""
    states = {node: node.state() if node.process() else "STOPPED" for node in nodes(folder)}
    for node, state in states.items():
        number = node.process()
        say(f"{node.name:12}  {state:12}  {f'process {number}' if number else '-'}")
    return set(states.values()) == {"SERVING"}


def stop(folder: Path) -> None:
    """Make every node drain, all at once, and wait until they have ended."""
    running = {node: number for node in nodes(folder) if (number := node.process())}
    for number in running.values():
        os.kill(number, signal.SIGTERM)
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    for node in running:
        while node.process():
            if time.monotonic() > deadline_s:
                raise Problem(f"{node.name} still drains; a second stop ends it at once")
            time.sleep(LOOK_INTERVAL_S)
        node.pid_file.unlink(missing_ok=True)
        say(f"{node.name:12}  ended")


def say(text: str) -> None:
    """One line for the person at the terminal."""
    print(text, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run one verb; 0 done, 1 failed or not everything serves, 2 usage."""
    parser = argparse.ArgumentParser(description="three regions on one host")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (
        ("make", "write the settings files"),
        ("start", "start what does not run, and wait until all serve"),
        ("status", "say what each node does"),
        ("stop", "drain all nodes and wait for their end"),
    ):
        one = verbs.add_parser(verb, help=text)
        one.add_argument("folder", type=Path, help="folder of the cluster")
        if verb == "make":
            one.add_argument("--regions", default=",".join(REGIONS), help="names, by commas")
            one.add_argument("--port", type=int, default=PORT, help="gRPC port of the first node")
    given = parser.parse_args(arguments)
    folder = given.folder.resolve()
    try:
        match given.verb:
            case "make":
                make(folder, given.regions.split(","), given.port)
            case "start":
                start(folder)
            case "status":
                return 0 if status(folder) else 1
            case "stop":
                stop(folder)
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
