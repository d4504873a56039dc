"""Peers that are Python packages: Dynamo's `RadixTree` in its process, Mooncake's master with its client.

They need an environment of their own, since they bring libraries that have no place in this one::

    python3 -m venv ~/k2-peers
    ~/k2-peers/bin/pip install ai-dynamo-runtime mooncake-transfer-engine-non-cuda
    export K2_BENCH_PEERS=~/k2-peers
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib import util
from pathlib import Path
from typing import Final

from bench.processes import BenchError, Cores, end, free_port, last_words, start

VARIABLE: Final = "K2_BENCH_PEERS"
HOW_TO_INSTALL: Final = (
    "{package} is not installed, so nothing is compared with it. Make an environment for the peers: "
    "python3 -m venv ~/k2-peers && ~/k2-peers/bin/pip install {package} "
    f"&& export {VARIABLE}=~/k2-peers"
)
DYNAMO: Final = "ai-dynamo-runtime"
MOONCAKE: Final = "mooncake-transfer-engine-non-cuda"
_MODULES: Final = {DYNAMO: "dynamo", MOONCAKE: "mooncake"}
_FOLDER: Final = Path(__file__).resolve().parent
_START_S: Final = 20.0
_LIMIT_S: Final = 300.0


def interpreter(package: str) -> Path | None:
    """The Python that has a package: this one, or that of the peers' environment; None for none."""
    module = _MODULES[package]
    if util.find_spec(module) is not None:
        return Path(sys.executable)
    folder = os.environ.get(VARIABLE)
    if folder is None:
        return None
    python = Path(folder).expanduser() / "bin" / "python"
    if not python.exists():
        return None
    probe = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    done = subprocess.run([python, "-c", probe], capture_output=True, check=False)
    return python if done.returncode == 0 else None


def dynamo(python: Path, chains: Path, rounds: int, cores: Cores, folder: Path) -> dict[str, float]:
    """One run of Dynamo's tree, on the core where ours is measured."""
    return _run(
        [str(python), str(_FOLDER / "dynamo_tree.py"), str(chains), str(rounds)],
        cores.load,
        folder,
        "dynamo",
    )


def mooncake(
    python: Path, chains: Path, seconds: float, cores: Cores, folder: Path
) -> dict[str, float]:
    """Mooncake's master on one core, its client on the other."""
    errors = folder / "mooncake.log"
    master, metadata = free_port(), free_port()
    server = start(
        [
            *(str(python.parent / "mooncake_master"), f"-rpc_port={master}"),
            *("-enable_http_metadata_server=true", "-http_metadata_server_host=127.0.0.1"),
            *(f"-http_metadata_server_port={metadata}", f"-metrics_port={free_port()}"),
        ],
        cores.server,
        errors=errors,
        folder=folder,
        talk=False,
    )
    try:
        _wait_listening(server, metadata, errors)
        return _run(
            [
                *(str(python), str(_FOLDER / "mooncake_store.py"), str(chains), str(seconds)),
                *(f"127.0.0.1:{master}", f"http://127.0.0.1:{metadata}/metadata"),
            ],
            cores.load,
            folder,
            "mooncake",
        )
    finally:
        end(server)


def _run(command: list[str], core: int, folder: Path, who: str) -> dict[str, float]:
    errors = folder / f"{who}-client.log"
    client = start(command, core, errors=errors, folder=folder)
    try:
        said = client.communicate(timeout=_LIMIT_S)[0]
    except subprocess.TimeoutExpired:
        raise BenchError(f"{who} does not end") from None
    finally:
        end(client)
    lines = [line for line in said.splitlines() if line.startswith("{")]
    if not lines:
        raise BenchError(f"{who} gave no figures: {last_words(errors)}")
    found: dict[str, float] = json.loads(lines[-1])
    return found


def _wait_listening(server: subprocess.Popen[str], port: int, errors: Path) -> None:
    listening = f":{port:04X} "
    until_s = time.monotonic() + _START_S
    while not any(
        listening in line and " 0A " in line
        for line in Path("/proc/net/tcp").read_text().splitlines()
    ):
        if server.poll() is not None or time.monotonic() > until_s:
            raise BenchError(f"mooncake_master does not start: {last_words(errors)}")
        time.sleep(0.1)
