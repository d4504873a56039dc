"""Watchers: programs that follow the commits of a range, and what must hold of what they were told.

A *stream* is what one cursor has led through: across lost connections, restarts of the node and of
the watcher, and watches that were ended because their reader was slow. In a stream

- commits come in order of their stamps, each once, each whole;
- nothing comes at or below a mark that was given before;
- no commit between its beginning and its last mark is missing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

import k2store
from jepsen_like.history import Recorder
from jepsen_like.sim.journal import Entry, Journal
from jepsen_like.workloads.judging import judged

LEASES: Final = b"lease/"
"""What the keys begin with that the client library writes by itself."""
Place = TypeVar("Place")
"""What says where a watcher stands, and is enough to connect from there."""
Commit = tuple[int, tuple[tuple[bytes, bytes | None], ...]]


class Watched(msgspec.Struct):
    """What one stream has been told. `since`: everything above it must be in it."""

    where: k2store.KeyRange
    since: int
    cursor: int = 0
    commits: list[Commit] = []
    marks: int = 0
    told_at: list[str] = []


class Watcher(Generic[Place]):
    """Follows a range and keeps its cursor, as an application would keep it in the store."""

    def __init__(
        self,
        where: k2store.KeyRange,
        rng: random.Random,
        connect: Callable[[Place], k2store.Database],
    ) -> None:
        self.streams: list[Watched] = []
        self.goal = 0
        """Once set, the watcher ends when its cursor has reached this stamp."""
        self._where = where
        self._random = rng
        self._connect = connect
        self._lazy = rng.random() < 0.4

    async def main(self, environment: Place) -> None:
        """What a process of the simulator runs, for one; a further incarnation goes on at the cursor."""
        while True:
            try:
                async with self._connect(environment) as database:
                    while not self._done():
                        await self._follow(database)
                    return
            except k2store.K2Error:
                await asyncio.sleep(0.1)

    def _done(self) -> bool:
        return bool(self.goal and self.streams and self.streams[-1].cursor >= self.goal)

    async def _follow(self, database: k2store.Database) -> None:
        stream = self.streams[-1] if self.streams else None
        since = stream.cursor if stream is not None and stream.cursor else None
        if stream is None or (since is None and (stream.commits or stream.marks)):
            stream = Watched(self._where, 0, commits=[], told_at=[])
            self.streams.append(stream)
        try:
            async with database.watch(self._where, since=since) as watch:
                while not self._done():
                    try:
                        async with asyncio.timeout(0.2):
                            event = await anext(watch)
                    except TimeoutError:
                        continue
                    _take(stream, event)
                    if self._lazy and not self.goal and self._random.random() < 0.05:
                        await asyncio.sleep(self._random.random())
        except k2store.TooOld:
            # The store has forgotten what comes next; an application would read a snapshot now.
            self.streams.append(Watched(self._where, 0, commits=[], told_at=[]))
        except k2store.Overloaded:
            await asyncio.sleep(0.05)


def _take(stream: Watched, event: k2store.Changes | k2store.Resolved) -> None:
    if isinstance(event, k2store.Resolved):
        if event.at < stream.marks:
            stream.told_at.append(f"the mark went back from {stream.marks} to {event.at}")
        stream.marks = max(stream.marks, event.at)
    else:
        if event.at <= stream.marks:
            stream.told_at.append(f"a commit at {event.at} came after the mark {stream.marks}")
        if event.at <= stream.cursor:
            stream.told_at.append(f"a commit at {event.at} came after {stream.cursor}")
        changes = tuple((change.key, change.value) for change in event.records)
        stream.commits.append((event.at, changes))
    if not stream.since:
        # "Now" was somewhere before the first thing that was told.
        stream.since = event.at
    stream.cursor = max(stream.cursor, event.at)


def check_streams(
    journal: Journal, streams: list[Watched], ignored: frozenset[bytes] = frozenset()
) -> list[str]:
    """What is wrong with what watchers were told; `ignored` keys, and leases, are left out."""
    committed = {
        entry.at: entry
        for entry in journal.entries
        if entry.outcome == "ok" and entry.at and entry.writes
    }
    problems: list[str] = []
    for number, stream in enumerate(streams):
        where = f"watch {number}: "
        problems += [where + told for told in stream.told_at]
        problems += [where + told for told in _whole(committed, stream, ignored)]
        problems += [where + told for told in _gaps(committed, stream)]
    recorder = _recorded(committed, streams, ignored)
    if any(operation.f == "watch" for operation in recorder.history().operations):
        problems += judged(recorder, "watch")
    return problems


def _mine(
    stream: Watched, entry: Entry, ignored: frozenset[bytes] = frozenset()
) -> dict[bytes, bytes | None]:
    return {
        key: value
        for key, value in entry.writes.items()
        if stream.where.contains(key) and key not in ignored
    }


def _left_out(key: bytes, ignored: frozenset[bytes]) -> bool:
    return key.startswith(LEASES) or key in ignored


def _whole(committed: dict[int, Entry], stream: Watched, ignored: frozenset[bytes]) -> list[str]:
    problems: list[str] = []
    for at, changes in stream.commits:
        told = {key: value for key, value in changes if not _left_out(key, ignored)}
        if not told:
            continue
        entry = committed.get(at)
        if entry is None:
            problems.append(f"told of {sorted(told)} at {at}, which nobody committed")
        elif told != (mine := _mine(stream, entry, ignored)):
            problems.append(f"told of {told} at {at}, committed was {mine}")
    return problems


def _gaps(committed: dict[int, Entry], stream: Watched) -> list[str]:
    told = {at for at, _ in stream.commits}
    return [
        f"not told of the commit at {at}, between {stream.since} and the mark {stream.marks}"
        for at, entry in committed.items()
        if stream.since < at <= stream.marks and at not in told and _mine(stream, entry)
    ]


def _recorded(
    committed: dict[int, Entry], streams: list[Watched], ignored: frozenset[bytes]
) -> Recorder:
    """The same as a history for the watch checker: one write a key, one watch a stream."""
    recorder = Recorder()
    names: dict[tuple[int, bytes], str] = {}
    process = 0
    for at, entry in sorted(committed.items()):
        for key, value in entry.writes.items():
            if key in ignored:
                continue
            # Deletions carry no mark of their own.
            names[at, key] = value.hex() if value is not None else f"deleted at {at}"
            process += 1
            recorder.invoke(process, "write", names[at, key], key=key.decode())
            recorder.ok(process, names[at, key], stamp=at)
    for stream in streams:
        events: list[object] = [
            [at, key.decode(), names.get((at, key), "nothing")]
            for at, changes in stream.commits
            for key, _ in changes
            if not _left_out(key, ignored)
        ]
        if events and stream.where == k2store.EVERYTHING:
            process += 1
            recorder.invoke(process, "watch", None)
            recorder.ok(process, events)
    return recorder
