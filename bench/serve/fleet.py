"""Workers and a router as processes on this machine, over a node of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.processes import BenchError, end, last_words, own_folder, start
from k2store.testing import local_node

REGION: Final = "fra"
SCRAPE_S: Final = 30.0


@dataclass
class Fleet:
    """What runs: addresses of the router (empty without one) and of each worker by name, and the workers' processes."""

    router: str = ""
    workers: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def counted(self, metric: str, *, only: str = "", **labels: str) -> float:
        """A figure, summed over workers (or of one only) and over labels that are not named."""
        found = [self.workers[only]] if only else self.workers.values()
        return sum([sum(_values(address, metric, labels)) for address in found])


@contextlib.contextmanager
def fleet(
    model: str, workers: Sequence[tuple[str, Sequence[str]]], policy: str | None = None
) -> Iterator[Fleet]:
    """A node, workers (name and further options of `k2 fleet worker`), and a router with a policy, if one is named.

    Each worker computes on one thread: they share the machine's cores, and all of them compute the same bits.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(own_folder("k2-fleet-", Path(tempfile.gettempdir())))
        node = stack.enter_context(local_node(clock__bound="500us"))
        found = Fleet()
        started = []
        for name, options in workers:
            said = ["worker", "--worker", f"{REGION}/{name}", "--threads", "1", *options]
            started.append(
                (name, stack.enter_context(_started(folder, name, node.address, model, said)))
            )
        for name, process in started:
            found.workers[name] = _address(folder, name, process)
            found.processes[name] = process
        if policy is not None:
            said = ["router", "--region", REGION, "--policy", policy, "--listen", "127.0.0.1:0"]
            process = stack.enter_context(_started(folder, "router", node.address, model, said))
            found.router = _address(folder, "router", process)
        yield found


@contextlib.contextmanager
def _started(
    folder: Path, name: str, store: str, model: str, options: Sequence[str]
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", "from k2store.cli import main; main()", "fleet", *options]
    command += ["--address", store, "--model", model, "--json"]
    errors = folder / f"{name}.log"
    process = start(command, None, errors=errors, folder=folder, environment=_environment())
    try:
        yield process
    finally:
        end(process)


def _address(folder: Path, name: str, process: subprocess.Popen[str]) -> str:
    """What a process says of where it answers."""
    assert process.stdout is not None, "its output is a pipe"
    line = process.stdout.readline()
    if not line:
        raise BenchError(f"{name} ended: {last_words(folder / f'{name}.log')}")
    return str(json.loads(line)["http"]).removeprefix("http://")


def _environment() -> dict[str, str]:
    """Ours, with one thread for what computes."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _values(address: str, metric: str, labels: dict[str, str]) -> Iterator[float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=SCRAPE_S) as page:
        for line in page.read().decode().splitlines():
            name, _, value = line.rpartition(" ")
            bare, _, said = name.partition("{")
            if bare == metric and all(f'{key}="{text}"' in said for key, text in labels.items()):
                yield float(value)
