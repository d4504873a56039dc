"""What the journals of a run say of blocks: who published them when, and when they were gone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct

from kv_pool.blocks import NAME_BYTES
from kv_pool.edge.journal import FAIL, INVOKE, OK, Note, names_of

NEVER_NS = 1 << 63


class Publish(NamedTuple):
    """A publish that was acknowledged: by whom, asked and acknowledged when, at which stamp."""

    worker: str
    asked_ns: int
    known_ns: int
    stamp: int
    blocks: int


class Copy(Struct):
    """A block at a worker: from the acknowledgement of its publish on, until it was gone, and why."""

    worker: str
    since_ns: int
    stamp: int
    until_ns: int = NEVER_NS
    gone: str = ""


class Timeline:
    """Made from all notes of a run; what was published before `since_ns` is no prompt's."""

    def __init__(self, notes: Iterable[Note], since_ns: int = 0) -> None:
        self._since_ns = since_ns
        self.publishes: list[Publish] = []
        self.copies: dict[bytes, list[Copy]] = {}
        self.asked: dict[str, int] = {}
        self.failed: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.took_ns: dict[str, list[int]] = {}
        self._runs: dict[tuple[str, object], tuple[object, list[tuple[bytes, Copy]]]] = {}
        began: dict[str, int] = {}
        for note in sorted(notes, key=lambda note: note.time_ns):
            if note.kind == INVOKE:
                began[note.process] = note.time_ns
                self.asked[note.f] = self.asked.get(note.f, 0) + 1
            elif note.kind == OK:
                self.done[note.f] = self.done.get(note.f, 0) + 1
                took_ns = note.time_ns - began[note.process]
                self.took_ns.setdefault(note.f, []).append(took_ns)
                self._take(note, began[note.process])
            elif note.kind == FAIL:
                self.failed[note.f] = self.failed.get(note.f, 0) + 1

    def _take(self, note: Note, asked_ns: int) -> None:
        worker = str(note.value.get("worker", ""))
        match note.f:
            case "publish":
                self._publish(note, worker, asked_ns)
            case "evict":
                place = worker, note.value["run"]
                generation, run = self._runs.get(place, (None, []))
                keep = note.value["keep"]
                assert isinstance(keep, int), "a number of blocks"
                if generation == note.value["generation"]:
                    # From the question on nobody is served with it.
                    self._gone(run[keep:], asked_ns, "evicted")
                    self._runs[place] = generation, run[:keep]
            case "register" | "fence":
                for place in [place for place in self._runs if place[0] == worker]:
                    self._gone(self._runs.pop(place)[1], note.time_ns, "lost")

    def _publish(self, note: Note, worker: str, asked_ns: int) -> None:
        blocks = len(note.names) // NAME_BYTES
        if asked_ns >= self._since_ns:
            self.publishes.append(Publish(worker, asked_ns, note.time_ns, note.stamp, blocks))
        run = []
        for name in names_of(note):
            copy = Copy(worker, note.time_ns, note.stamp)
            self.copies.setdefault(name, []).append(copy)
            run.append((name, copy))
        self._runs[worker, note.value["run"]] = note.value["generation"], run

    @staticmethod
    def _gone(run: list[tuple[bytes, Copy]], at_ns: int, why: str) -> None:
        for _, copy in run:
            if copy.until_ns == NEVER_NS:
                copy.until_ns, copy.gone = at_ns, why
