"""The peer: an etcd of the distribution, under its own load generator.

`etcdctl check perf --load=xl` has 1,000 clients put new keys for 60 s, at most 15,000 a second:
keys of 276 bytes (a prefix of 20 and 256 random ones) and values of 1,024 bytes, as the generator's
source says (etcd 3.4, etcdctl/ctlv3/command/check.go). It prints the rate it has reached.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from bench.machine import process_cpu_s
from bench.processes import BenchError, Cores, end, free_port, last_words, start

HOW_TO_INSTALL = (
    "etcd is not installed, so nothing is compared with it. "
    "On Debian and Ubuntu, as root: apt-get install etcd-server etcd-client"
)
START_S = 20.0
PERF_S = 60.0
LIMIT_PER_S = 15_000

_RATE = re.compile(r"Throughput(?: is| too low:) (\d+) writes/s")
_SLOWEST = re.compile(r"Slowest request took(?: too long:)? ([0-9.]+)s")


class EtcdRun(Struct, frozen=True):
    """One run of etcd's own load generator against a fresh etcd."""

    version: str
    per_s: float
    slowest_s: float
    server_us: float


def installed() -> bool:
    """Whether both programs can be found."""
    return shutil.which("etcd") is not None and shutil.which("etcdctl") is not None


@contextlib.contextmanager
def running(folder: Path, cores: Cores) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """An etcd on a fresh folder, which is gone afterwards: the process, and its host and port."""
    folder.mkdir(parents=True)
    errors = folder / "etcd.log"
    address = f"127.0.0.1:{free_port()}"
    clients, peers = f"http://{address}", f"http://127.0.0.1:{free_port()}"
    server = start(
        [
            *("etcd", "--name", "bench", "--data-dir", str(folder / "data")),
            *("--listen-client-urls", clients, "--advertise-client-urls", clients),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"bench={peers}", "--quota-backend-bytes", str(8 << 30)),
        ],
        cores.server,
        errors=errors,
        folder=folder,
        talk=False,
    )
    try:
        _wait_healthy(server, clients, errors)
        yield server, address
    finally:
        end(server)
        shutil.rmtree(folder)


def measure(folder: Path, cores: Cores) -> EtcdRun:
    """Start an etcd on a fresh folder, load it, and end it."""
    with running(folder, cores) as (server, address):
        before_s = process_cpu_s(server.pid)
        arguments = ["check", "perf", "--load=xl"]
        said = _ask(arguments, f"http://{address}", cores.load, folder, PERF_S * 3)
        used_s = process_cpu_s(server.pid) - before_s
        per_s = read_rate(said)
        if per_s is None:
            raise BenchError(f"etcdctl check perf gave no rate: {said.strip()[-400:]!r}")
        return EtcdRun(
            version=version(),
            per_s=per_s,
            slowest_s=read_slowest_s(said),
            server_us=used_s * 1e6 / (per_s * PERF_S),
        )


def read_rate(said: str) -> float | None:
    """The rate that `check perf` prints, whether it is content with it or not."""
    found = _RATE.search(said)
    return None if found is None else float(found[1])


def read_slowest_s(said: str) -> float:
    """The longest latency that it prints, seconds; 0 when it prints none."""
    found = _SLOWEST.search(said)
    return 0.0 if found is None else float(found[1])


def _wait_healthy(server: subprocess.Popen[str], clients: str, errors: Path) -> None:
    until_s = time.monotonic() + START_S
    while True:
        done = subprocess.run(
            ["etcdctl", "--endpoints", clients, "endpoint", "health"],
            capture_output=True,
            check=False,
            env=_environment(),
        )
        if done.returncode == 0:
            return
        if server.poll() is not None or time.monotonic() > until_s:
            raise BenchError(f"etcd does not start: {last_words(errors)}")
        time.sleep(0.1)


def _ask(arguments: list[str], clients: str, core: int, folder: Path, limit_s: float) -> str:
    """Run etcdctl on a core; gives what it printed, whatever it thought of the result."""
    client = start(
        ["etcdctl", "--endpoints", clients, *arguments],
        core,
        errors=folder / "etcdctl.log",
        folder=folder,
        environment=_environment(),
    )
    try:
        return client.communicate(timeout=limit_s)[0]
    except subprocess.TimeoutExpired:
        raise BenchError(f"etcdctl {' '.join(arguments)} takes longer than {limit_s} s") from None
    finally:
        end(client)


def version() -> str:
    """Which etcd is installed."""
    said = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout
    return said.partition("\n")[0].removeprefix("etcd Version: ")


def _environment() -> dict[str, str]:
    return {**os.environ, "ETCDCTL_API": "3"}
