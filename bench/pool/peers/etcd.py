"""etcd: one transaction a publish, with the conditions of ours, synced before every answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench import etcd
from bench.machine import process_cpu_s
from bench.processes import BenchError, Cores, end, start

HOW_TO_INSTALL: Final = etcd.HOW_TO_INSTALL
installed = etcd.installed
_PROJECT: Final = Path(__file__).resolve().parents[3]


class EtcdRun(Struct, frozen=True):
    """Publishes a second by requests in flight, and what each end used."""

    version: str
    publish_per_s: dict[str, float]
    publish_p50_ms: dict[str, float]
    server_us: dict[str, float]
    client_busy: dict[str, float]


def measure(
    folder: Path, cores: Cores, row_bytes: int, in_flight: tuple[int, ...], seconds: float
) -> EtcdRun:
    """Start an etcd on a fresh folder, load it, and end it."""
    with etcd.running(folder, cores) as (server, address):
        found = EtcdRun(etcd.version(), {}, {}, {}, {})
        for count in in_flight:
            before_s = process_cpu_s(server.pid)
            said = _load(folder, cores.load, address, row_bytes, count, seconds)
            used_s = process_cpu_s(server.pid) - before_s
            found.publish_per_s[str(count)] = said["publish_per_s"]
            found.publish_p50_ms[str(count)] = said["p50_ms"]
            found.server_us[str(count)] = used_s * 1e6 / (said["publish_per_s"] * seconds)
            found.client_busy[str(count)] = said["client_busy"]
        return found


def _load(
    folder: Path, core: int, address: str, row_bytes: int, in_flight: int, seconds: float
) -> dict[str, float]:
    errors = folder / "etcd-load.log"
    client = start(
        [
            *(sys.executable, "-m", "bench.pool.peers.etcd_load", address),
            *(str(row_bytes), str(in_flight), str(seconds)),
        ],
        core,
        errors=errors,
        folder=_PROJECT,
    )
    try:
        said = client.communicate(timeout=30 + 5 * seconds)[0]
    except subprocess.TimeoutExpired:
        raise BenchError("the load on etcd does not end") from None
    finally:
        end(client)
    if not said:
        raise BenchError(f"the load on etcd: {errors.read_text()[-400:]}")
    found: dict[str, float] = json.loads(said)
    return found
