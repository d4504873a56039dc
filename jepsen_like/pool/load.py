"""What workers and routers do to a directory, and the history of what they were told.

The history is in the words of the checker (`jepsen_like.invariants.kv_directory`). A run of blocks is called by its
tier and the first of its blocks; of some prompts there are always the same blocks, so that everybody's
copies compete for the same rows.

A worker's tier of the pool has few slots, which it fills again as soon as the directory lets it; so a claim
that did not hold would be seen by who reads the bytes, too (`Memory`).
"""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
import random
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

import k2store
from jepsen_like.history import Recorder
from kv_pool import keys
from kv_pool.blocks import NAME_BYTES, ROOT_NAME
from kv_pool.directory.publishing import RUN_BLOCKS_MAX
from kv_pool.records import Phase, Run, Tier
from kv_pool.shots import Refused

if TYPE_CHECKING:
    from kv_pool.edge.following import Tree
    from kv_pool.keys import Worker

T = TypeVar("T")

NAMESPACE: Final = hashlib.sha256(b"jepsen_like.pool").digest()[:16]
PROMPTS: Final = 5
STRETCHES: Final = (4, 3)
"""A prompt is two runs: blocks behind each other, the second behind the first."""
ENGINE, POOL = int(Tier.DEVICE), int(Tier.HOST)
"""The tier from which an engine drops what it likes, and the one that the directory guards."""
SLOTS: Final = 20
"""Blocks for which a worker's tier of the pool has room: less than all prompts need."""
assert max(STRETCHES) < RUN_BLOCKS_MAX, "a stretch is one run"
_LIFE: Final = struct.Struct("<QQ")
PAGE_BYTES: Final = _LIFE.size + SLOTS * NAME_BYTES


def block(prompt: int, place: int) -> bytes:
    """The name of a block."""
    return bytes((prompt, place)) * (NAME_BYTES // 2)


def stretch_names(prompt: int, part: int) -> bytes:
    """The names of one of a prompt's two runs."""
    start = sum(STRETCHES[:part])
    return b"".join([block(prompt, start + place) for place in range(STRETCHES[part])])


def prompt_names(prompt: int) -> bytes:
    """All of a prompt."""
    return b"".join([stretch_names(prompt, part) for part in range(len(STRETCHES))])


def run_name(part: bytes) -> str:
    """How the history calls a run, by its part of the key."""
    return f"{part[16]}/{part[17]}.{part[18]}"


def parent_name(prompt: int, part: int) -> bytes:
    """The block before a stretch."""
    return block(prompt, sum(STRETCHES[:part]) - 1) if part else ROOT_NAME


class Memory:
    """A worker's slots, as somebody with a claim may read them, in the epoch of one of its lives.

    Another one, after a restart or a clear, voids claims without asking: `life` changes. Where workers are
    processes their slots lie in a file that readers map, so who reads asks for the life once more afterwards.
    """

    def __init__(self, page: bytearray | mmap.mmap) -> None:
        """`page`: of `PAGE_BYTES`."""
        self._page = page
        self._free = list(range(SLOTS))

    @property
    def life(self) -> tuple[int, int]:
        """The incarnation and the epoch whose slots these are; zeros while they are nobody's."""
        incarnation, epoch = _LIFE.unpack_from(self._page)
        return incarnation, epoch

    def begin(self, incarnation: int, epoch: int) -> None:
        """Empty slots, for this epoch of this life."""
        _LIFE.pack_into(self._page, 0, 0, 0)
        self._page[_LIFE.size :] = bytes(PAGE_BYTES - _LIFE.size)
        self._free = list(range(SLOTS))
        _LIFE.pack_into(self._page, 0, incarnation, epoch)

    def read(self, slot: int) -> bytes:
        """The block in a slot."""
        start = _LIFE.size + slot * NAME_BYTES
        return bytes(self._page[start : start + NAME_BYTES])

    def take(self, names: bytes) -> list[int] | None:
        """Fill slots with these blocks; None where there is no room."""
        count = len(names) // NAME_BYTES
        if len(self._free) < count:
            return None
        taken = [self._free.pop(0) for _ in range(count)]
        for place, slot in enumerate(taken):
            start = _LIFE.size + slot * NAME_BYTES
            self._page[start : start + NAME_BYTES] = names[
                place * NAME_BYTES : (place + 1) * NAME_BYTES
            ]
        return taken

    def free(self, slots: list[int]) -> None:
        """Their next blocks come soon: what was freed last is filled first."""
        self._free = [*slots, *self._free]


class Memories:
    """The slots of all workers, by worker: in this process, or in files of a folder that all processes share."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, Memory] = {}

    def mine(self, worker: Worker) -> Memory:
        """The slots of a worker that runs here."""
        page: bytearray | mmap.mmap = bytearray(PAGE_BYTES)
        if self._folder is not None:
            path = self._path(str(worker))
            if not path.exists():
                path.with_suffix(".new").write_bytes(page)
                path.with_suffix(".new").replace(path)
            page = _mapped(path)
        self._known[str(worker)] = memory = Memory(page)
        return memory

    def of(self, worker: Worker) -> Memory | None:
        """The slots of a worker anywhere; None while it has never been there."""
        name = str(worker)
        if name not in self._known and self._folder is not None and self._path(name).exists():
            self._known[name] = Memory(_mapped(self._path(name)))
        return self._known.get(name)

    def _path(self, worker: str) -> Path:
        assert self._folder is not None, "there are files"
        return self._folder / f"{worker.replace('/', '-')}.memory"


def _mapped(path: Path) -> mmap.mmap:
    file = os.open(path, os.O_RDWR)
    try:
        return mmap.mmap(file, PAGE_BYTES)
    finally:
        os.close(file)


class Load:
    """What all workers and routers of a run share: the history, and the bytes."""

    def __init__(
        self, recorder: Recorder, name: str = "", memories: Memories | None = None
    ) -> None:
        """`name` begins all process names, for histories that are merged."""
        self.recorder = recorder
        self.problems: list[str] = []
        self.counts: dict[str, int] = {}
        self.memories = memories or Memories()
        self.trees: dict[str, Tree] = {}
        """By region: what a router knows, for workers beside it. It may be that of a dead router, and stale."""
        self._name = name
        self._process = 0

    def count(self, what: str) -> None:
        """Note that something has happened."""
        self.counts[what] = self.counts.get(what, 0) + 1

    async def told(
        self,
        f: str,
        asked: Mapping[str, object],
        call: Awaitable[T | Refused],
        answer: Callable[[T], Mapping[str, object]] | None = None,
        stamp: Callable[[T], int] | None = None,
    ) -> T | None:
        """Do something, and note what was asked and what came of it; None unless it was done.

        Raises `k2store.OutcomeUnknown` where nobody knows; other errors are noted as refusals.
        """
        self._process += 1
        process = f"{self._name}{self._process}"
        recorder = self.recorder
        recorder.invoke(process, f, asked)
        try:
            outcome = await call
        except k2store.OutcomeUnknown as error:
            self.count("unknown")
            recorder.info(process, type(error).__name__)
            raise
        except k2store.K2Error as error:
            reason = getattr(error, "reason", None)
            recorder.fail(process, type(error).__name__ if reason is None else reason.name)
            if reason is not None:
                self.count(f"{f} {reason.name}")
            return None
        if isinstance(outcome, Refused):
            recorder.fail(process, outcome.reason.name)
            self.count(f"{f} {outcome.reason.name}")
            return None
        self.count(f)
        at: int = outcome.at if stamp is None else stamp(outcome)  # type: ignore[attr-defined]
        recorder.ok(process, asked if answer is None else answer(outcome), stamp=at)
        return outcome


def published(
    worker: Worker, incarnation: int, part: bytes, generation: int, blocks: int, slots: list[int]
) -> dict[str, object]:
    """The history's words for a run that is there."""
    tier = part[16]
    return {
        "worker": str(worker),
        "incarnation": incarnation,
        "run": run_name(part),
        "tier": tier,
        "content": run_name(part).partition("/")[2],
        "generation": generation,
        "blocks": blocks,
        # Addresses are of a life: what an earlier one had there is void.
        "slots": [f"{tier}:{slot}" for slot in slots] if tier == POOL else [],
    }


async def all_rows(
    database: k2store.Database, where: k2store.KeyRange
) -> tuple[int, dict[bytes, bytes]]:
    """Rows of a range now, and the stamp at which they are so."""
    async with database.snapshot(strong=True) as view:
        rows = {row.key: row.value for row in await view.scan(where).all()}
        return view.at, rows


async def finish(database: k2store.Database, load: Load) -> list[str]:
    """Note what is there in the end, when everything that can be swept has been; gives what is left over."""
    at, rows = await all_rows(database, k2store.KeyRange(b"d/", b"e"))
    runs: list[dict[str, object]] = []
    claims: list[str] = []
    left: list[str] = []
    identities = {
        key[: -len(keys.ID)]: msgspec.msgpack.decode(value)
        for key, value in rows.items()
        if key.endswith(b"/" + keys.ID)
    }
    for key, value in rows.items():
        prefix, rest = keys.split_worker(key)
        if rest.startswith(keys.RUN):
            part, run = rest[len(keys.RUN) :], msgspec.msgpack.decode(value, type=Run)
            identity = identities[prefix]
            counts = (run.incarnation, run.epoch) == (identity[0], identity[3 + part[16]])
            if run.phase == Phase.RESERVED or not counts:
                left.append(f"leaked: {key!r} is there in the end and counts for nothing")
                continue
            runs.append(
                {
                    "worker": str(keys.worker_of(prefix)),
                    "run": run_name(part),
                    "generation": run.generation,
                    "blocks": run.live,
                }
            )
        elif rest.startswith(keys.PIN):
            claims.append(key[-keys.PIN_BYTES :].hex())
            left.append(f"leaked: the claim {claims[-1]} is there in the end")
    _, tasks = await all_rows(database, k2store.prefix(keys.TASKS))
    left += [f"leaked: the task {key!r} is there in the end" for key in tasks]
    process = "final"
    load.recorder.invoke(process, "final")
    load.recorder.ok(process, {"runs": runs, "claims": claims}, stamp=at)
    return left


async def paused(rng: random.Random, pause_s: float) -> None:
    """Wait a while, most often a short one."""
    await asyncio.sleep(min(4 * pause_s, rng.expovariate(1) * pause_s))
