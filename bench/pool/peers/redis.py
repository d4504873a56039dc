"""Redis, the append-only file synced before every answer, under its own load generator.

A publish is a script that does what the directory's transaction does: the worker is who it was, takes
blocks, was not cleared, its lease runs, the block before is there, the run is not; then the row is
written, as many bytes as ours. Beside it the bare `SET` of the same row, which checks nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench.machine import process_cpu_s
from bench.processes import BenchError, Cores, end, free_port, last_words, start

HOW_TO_INSTALL: Final = (
    "redis is not installed, so nothing is compared with it. "
    "On Debian and Ubuntu, as root: apt-get install redis-server redis-tools"
)
START_S: Final = 10.0
PILOT: Final = 2_000
_SCRIPT: Final = """
local id = redis.call('HMGET', KEYS[1], 'incarnation', 'state', 'epoch')
if id[1] ~= ARGV[1] or id[2] ~= 'LIVE' or id[3] ~= ARGV[2] then return 0 end
local lease = redis.call('GET', KEYS[2])
if not lease or tonumber(lease) <= tonumber(redis.call('TIME')[1]) then return 0 end
local parent = redis.call('HMGET', KEYS[3], 'generation', 'phase', 'epoch', 'live')
if parent[1] ~= ARGV[3] or parent[2] ~= 'READY' or parent[3] ~= ARGV[2] then return 0 end
if tonumber(parent[4]) < tonumber(ARGV[4]) then return 0 end
if redis.call('EXISTS', KEYS[4]) == 1 then return 0 end
redis.call('SET', KEYS[4], ARGV[5])
return 1
"""


class RedisRun(Struct, frozen=True):
    """Publishes and bare writes a second, by requests in flight, and server CPU time of a publish."""

    version: str
    publish_per_s: dict[str, float]
    set_per_s: dict[str, float]
    publish_p50_ms: dict[str, float]
    server_us: dict[str, float]


def installed() -> bool:
    """Whether both programs can be found."""
    return shutil.which("redis-server") is not None and shutil.which("redis-benchmark") is not None


def measure(
    folder: Path, cores: Cores, row_bytes: int, in_flight: tuple[int, ...], seconds: float
) -> RedisRun:
    """Start a redis on a fresh folder, load it, and end it."""
    folder.mkdir(parents=True)
    errors = folder / "redis.log"
    port = free_port()
    server = start(
        [
            *("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
        ],
        cores.server,
        errors=errors,
        folder=folder,
        talk=False,
    )
    try:
        _wait_ready(server, port, errors)
        script = _ask(port, "SCRIPT", "LOAD", _SCRIPT)
        _ask(port, "HSET", "id", "incarnation", "1", "state", "LIVE", "epoch", "0")
        _ask(port, "SET", "lease", "9999999999")
        _ask(
            *(port, "HSET", "parent", "generation", "7", "phase", "READY"),
            *("epoch", "0", "live", "1"),
        )
        row = "x" * row_bytes
        key = "run:__rand_int__"
        publish = ["EVALSHA", script, "4", "id", "lease", "parent", key, *("1", "0", "7", "1", row)]
        load = _Load(folder, cores.load, port)
        rates: dict[str, float] = {}
        sets: dict[str, float] = {}
        p50: dict[str, float] = {}
        cpu_us: dict[str, float] = {}
        for count in in_flight:
            before_s = process_cpu_s(server.pid)
            rates[str(count)], p50[str(count)], requests = load.run(publish, count, seconds)
            cpu_us[str(count)] = (process_cpu_s(server.pid) - before_s) * 1e6 / requests
            sets[str(count)], _, _ = load.run(["SET", key, row], count, seconds)
        written = int(_ask(port, "DBSIZE"))
        if written < PILOT:
            raise BenchError(f"redis holds {written} rows: the script refuses")
        return RedisRun(_version(), rates, sets, p50, cpu_us)
    finally:
        end(server)
        shutil.rmtree(folder)


class _Load:
    """redis-benchmark on its core."""

    def __init__(self, folder: Path, core: int, port: int) -> None:
        self._folder = folder
        self._core = core
        self._port = port

    def run(self, command: list[str], in_flight: int, seconds: float) -> tuple[float, float, int]:
        """Rate, median latency in ms, and how many requests; a short run says how many it takes."""
        rate, _ = self._some(command, in_flight, PILOT, seconds)
        count = max(PILOT, int(rate * seconds))
        rate, p50_ms = self._some(command, in_flight, count, seconds)
        return rate, p50_ms, PILOT + count

    def _some(
        self, command: list[str], in_flight: int, count: int, seconds: float
    ) -> tuple[float, float]:
        client = start(
            [
                *("redis-benchmark", "-p", str(self._port), "-c", str(in_flight), "-n", str(count)),
                *("-r", "2000000000", "--csv", *command),
            ],
            self._core,
            errors=self._folder / "redis-benchmark.log",
            folder=self._folder,
        )
        try:
            said = client.communicate(timeout=60 + 10 * seconds)[0]
        except subprocess.TimeoutExpired:
            raise BenchError("redis-benchmark does not end") from None
        finally:
            end(client)
        return read_rate(said)


def read_rate(said: str) -> tuple[float, float]:
    """Requests a second and median latency in ms, of what redis-benchmark prints with ``--csv``."""
    lines = [line for line in said.replace("\r", "\n").splitlines() if line.startswith('"')]
    if len(lines) < 2:
        raise BenchError(f"redis-benchmark gave no rate: {said.strip()[-300:]!r}")
    names = lines[-2].replace('"', "").split(",")
    # The command itself comes first, and may hold commas.
    values = lines[-1].replace('"', "").split(",")[-(len(names) - 1) :]
    found = dict(zip(names[1:], values, strict=True))
    return float(found["rps"]), float(found["p50_latency_ms"])


def _wait_ready(server: subprocess.Popen[str], port: int, errors: Path) -> None:
    until_s = time.monotonic() + START_S
    while True:
        done = subprocess.run(
            ["redis-cli", "-p", str(port), "PING"], capture_output=True, text=True, check=False
        )
        if done.stdout.strip() == "PONG":
            return
        if server.poll() is not None or time.monotonic() > until_s:
            raise BenchError(f"redis does not start: {last_words(errors)}")
        time.sleep(0.05)


def _ask(port: int, *words: str) -> str:
    done = subprocess.run(
        ["redis-cli", "-p", str(port), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _version() -> str:
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True)
    return said.stdout.partition("v=")[2].partition(" ")[0]
