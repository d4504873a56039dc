"""`k2 doctor`: whether this machine suits a node, in findings that say what to do."""

from __future__ import annotations

import importlib
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

import click

from k2store.cli.exits import Exit
from k2store.cli.verb import Verb, output, settings
from k2store.config import Duration, Settings
from k2store.errors import ClockUncertain

MODULES: Final = {
    "grpc": "grpcio",
    "google.protobuf": "protobuf",
    "msgspec": "msgspec",
    "rocksdict": "rocksdict",
    "uvloop": "uvloop",
}
"""Modules with native code, and the distribution that brings each."""

SYNCS: Final = 64
SYNC_BYTES: Final = 4096
SLOW_SYNC_NS: Final = 2_000_000
FILES_MIN: Final = 4096
FREE_MIN: Final = 1 << 30


class Finding(NamedTuple):
    """One thing looked at. ``state`` is ok, warning or failed."""

    subject: str
    state: str
    finding: str


@click.command("doctor", cls=Verb)
@click.option("--data", metavar="FOLDER", help="Where the data would lie; default: node.data.")
def doctor(data: str | None) -> None:
    """Examine this machine: versions, native libraries, clock, disk, limits.

    Exit code 5 when something stands in the way of a node.
    """
    loaded = settings({"node.data": data}).settings
    findings = [
        *_versions(),
        _clock(loaded),
        *_disk(Path(loaded.node.data)),
        _open_files(),
    ]
    output().table("findings", Finding._fields, findings)
    if any(finding.state == "failed" for finding in findings):
        click.get_current_context().exit(Exit.INVALID)


def _versions() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    yield Finding("machine", "ok", f"{platform.machine()}, {cores} cores, {platform.release()}")
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield Finding("python", "ok" if sys.maxsize > 1 << 32 else "failed", python)
    yield Finding("k2store", "ok", metadata.version("k2store"))
    for module, distribution in MODULES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            needed = "pip install 'k2store[server]'"
            yield Finding(distribution, "failed", f"{error}; a node needs it: {needed}")
        else:
            yield Finding(distribution, "ok", metadata.version(distribution))


def _clock(loaded: Settings) -> Finding:
    from k2store.clock import open_clock

    clock = loaded.clock
    path = Path(clock.file) if clock.file else None
    try:
        source = open_clock(clock.source, bound_ns=clock.bound, path=path).source
    except ClockUncertain as error:
        return Finding("clock", "failed", error.message)
    if source.bound_ns is None:
        return Finding("clock", "failed", f"{source.name}: {source.detail}")
    bound = Duration(source.bound_ns)
    text = f"{source.name}, bound {bound}{' (assumed)' if source.assumed else ''}: {source.detail}"
    if bound > clock.bound_max:
        return Finding("clock", "failed", f"{text}; wider than clock.bound_max {clock.bound_max}")
    return Finding("clock", "ok", text)


def _disk(data: Path) -> Iterator[Finding]:
    """Free space and sync time of the folder, or of the nearest one that exists above it."""
    folder = data.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    enough = "ok" if free >= FREE_MIN else "warning"
    yield Finding("disk space", enough, f"{free / (1 << 30):.1f} GiB free at {folder}")
    try:
        times = _sync_times_ns(folder)
    except OSError as error:
        yield Finding("disk sync", "failed", f"cannot write and sync in {folder}: {error.strerror}")
        return
    middle, worst = statistics.median(times) / 1e6, times[-1] / 1e6
    text = (
        f"fdatasync of {SYNC_BYTES} bytes: median {middle:.3f} ms, worst of {SYNCS} {worst:.3f} ms"
    )
    state = "ok" if times[len(times) // 2] <= SLOW_SYNC_NS else "warning"
    yield Finding("disk sync", state, text)


def _sync_times_ns(folder: Path) -> list[int]:
    """Sorted times of small appends to a preallocated file, each made durable."""
    block = os.urandom(SYNC_BYTES)
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        descriptor = file.fileno()
        os.posix_fallocate(descriptor, 0, SYNC_BYTES * SYNCS)
        os.fsync(descriptor)
        for index in range(SYNCS):
            began = time.perf_counter_ns()
            os.pwrite(descriptor, block, index * SYNC_BYTES)
            os.fdatasync(descriptor)
            times.append(time.perf_counter_ns() - began)
    return sorted(times)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} open files allowed (up to {hard})"
    if soft < FILES_MIN:
        return Finding("open files", "warning", f"{text}; raise it: ulimit -n {FILES_MIN}")
    return Finding("open files", "ok", text)
