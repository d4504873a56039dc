"""Keys of the directory: what a worker owns lies together.

::

    d/<region>/<worker>/id                           who the worker is now
    d/<region>/<worker>/lease                        until when it lives
    d/<region>/<worker>/cursor/<stream>              how far a stream of events is applied
    d/<region>/<worker>/pin/<run><pin>               a claim on a run
    d/<region>/<worker>/quota/<tenant>               bytes it may hold for a tenant
    d/<region>/<worker>/run/<run>                    a run of blocks
    n/<namespace>                                    a namespace, never changed
    o/<region>/<task>                                a task: copy, move, drain
    p/<run>                                          who keeps a precious run
    q/<region>/<tenant>/<shard>                      bytes of a tenant that nobody was granted yet

    <run> = namespace (16) · tier (1) · name of the first block (16)      <pin> = 16

Everything of one worker has one prefix, and the store is split between workers only: publish,
acquire, release, evict and fence of one worker are transactions of one partition, in the region where
the worker is. ``id`` comes before ``run/`` in key order, so whoever reads the rows in order knows
the worker before its runs. Names are of ``a-z A-Z 0-9 . _ -``; what is binary has a fixed width
and comes last, so no key can be read in two ways.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Final

from msgspec import Struct

from kv_pool.blocks import NAME_BYTES
from kv_pool.namespace import DIGEST_BYTES

WORKERS: Final = b"d/"
NAMESPACES: Final = b"n/"
TASKS: Final = b"o/"
OWNERS: Final = b"p/"
QUOTAS: Final = b"q/"

ID: Final = b"id"
LEASE: Final = b"lease"
CURSOR: Final = b"cursor/"
PIN: Final = b"pin/"
QUOTA: Final = b"quota/"
RUN: Final = b"run/"

RUN_BYTES: Final = DIGEST_BYTES + 1 + NAME_BYTES
PIN_BYTES: Final = 16

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


class Worker(Struct, frozen=True, order=True, dict=True):
    """A worker: its region and its name there. One row ``id`` says who it is at a time."""

    region: str
    name: str

    def __post_init__(self) -> None:
        check_name(self.region)
        check_name(self.name)

    def __str__(self) -> str:
        return f"{self.region}/{self.name}"

    @cached_property
    def prefix(self) -> bytes:
        """The beginning of every key that the worker owns."""
        return f"d/{self.region}/{self.name}/".encode()


def check_name(name: str) -> str:
    """The name itself; ``ValueError`` when it cannot stand in a key."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no name: 1 to 128 of a-z A-Z 0-9 . _ -, no sign first")
    return name


def identity(worker: Worker) -> bytes:
    """The row that says who a worker is."""
    return worker.prefix + ID


def lease(worker: Worker) -> bytes:
    """The row that says until when a worker lives."""
    return worker.prefix + LEASE


def cursor(worker: Worker, stream: str) -> bytes:
    """How far a stream of events of a worker is applied."""
    return worker.prefix + CURSOR + check_name(stream).encode()


def quota(worker: Worker, tenant: str) -> bytes:
    """What a worker may hold for a tenant."""
    return worker.prefix + QUOTA + check_name(tenant).encode()


def run_id(namespace: bytes, tier: int, first: bytes) -> bytes:
    """The fixed-width part of a run's key, and of the keys of its pins."""
    if len(namespace) != DIGEST_BYTES or len(first) != NAME_BYTES or not 0 <= tier < 256:
        raise ValueError("a run is a namespace of 16 bytes, a tier and a name of 16 bytes")
    return namespace + tier.to_bytes(1, "big") + first


def run(worker: Worker, namespace: bytes, tier: int, first: bytes) -> bytes:
    """The row of a run."""
    return b"".join((worker.prefix, RUN, run_id(namespace, tier, first)))


def pins(worker: Worker, run_part: bytes) -> bytes:
    """The prefix of all pins of a run."""
    return worker.prefix + PIN + run_part


def pin(worker: Worker, run_part: bytes, number: bytes) -> bytes:
    """A pin of a run."""
    if len(number) != PIN_BYTES:
        raise ValueError(f"a pin is named by {PIN_BYTES} bytes, not {len(number)}")
    return worker.prefix + PIN + run_part + number


def namespace(digest: bytes) -> bytes:
    """The row of a namespace."""
    return NAMESPACES + digest


def task(region: str, name: str) -> bytes:
    """A task of a region."""
    return TASKS + f"{check_name(region)}/{check_name(name)}".encode()


def owner(run_part: bytes) -> bytes:
    """Who keeps a precious run."""
    return OWNERS + run_part


def escrow(region: str, tenant: str, shard: int) -> bytes:
    """One of the rows with bytes of a tenant that no worker was granted yet."""
    return (
        QUOTAS + f"{check_name(region)}/{check_name(tenant)}/".encode() + shard.to_bytes(2, "big")
    )


def split_worker(key: bytes) -> tuple[bytes, bytes]:
    """A worker's key as prefix and rest; ``ValueError`` for any other key."""
    if not key.startswith(WORKERS):
        raise ValueError(f"{key!r} belongs to no worker")
    end = key.index(b"/", key.index(b"/", len(WORKERS)) + 1) + 1
    return key[:end], key[end:]


def worker_of(prefix: bytes) -> Worker:
    """The worker with this prefix; ``ValueError`` when there can be none."""
    parts = prefix.split(b"/")
    if len(parts) != 4 or parts[0] != b"d" or parts[3]:
        raise ValueError(f"{prefix!r} is not the prefix of a worker")
    return Worker(parts[1].decode("ascii"), parts[2].decode("ascii"))
