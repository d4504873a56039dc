"""The simulator's workloads by clients of real nodes, and every judgement on what they saw.

::

    observed = Observed([connect_in_fra, connect_in_sin], Random(1))
    findings = await observed.run(faults)  # faults(): what happens meanwhile

Clients of every connection run every workload while the faults happen, and watchers follow all
commits. Then everything is read once more, and judged: the histories by their checkers, all of it
together by the serial replay in order of stamps, the watches for order, gaps and repetition.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final

from msgspec import Struct, field

import k2store
from jepsen_like.history import Recorder
from jepsen_like.sim.actor import Actor
from jepsen_like.sim.agreement import outcomes_agree, store_agrees
from jepsen_like.sim.journal import Entry, Journal
from jepsen_like.sim.replay import Shown, place_unknown, replay
from jepsen_like.sim.stage import patiently, persistently
from jepsen_like.sim.watching import Watcher, check_streams
from jepsen_like.workloads import WORKLOADS
from k2store.testing.simulation.node import stamp_time_ns

NAMES: Final = ("append", "bank", "register", "watch")
PAUSE_S: Final = 0.02
QUIET_S: Final = 60.0

Connect = Callable[[], k2store.Database]


class Findings(Struct):
    """What was seen; `problems` breaks a promise."""

    transactions: int = 0
    commits: int = 0
    failed: int = 0
    unknown: int = 0
    watched: int = 0
    problems: list[str] = field(default_factory=list)


class Observed:
    """One run.

    connections  each has a client of every workload, and a watcher
    prefix       of all keys
    """

    def __init__(
        self,
        connections: Sequence[Connect],
        random: Random,
        *,
        prefix: bytes = b"",
        names: Sequence[str] = NAMES,
    ) -> None:
        self._connections = connections
        self._random = random
        self._prefix = prefix
        self.journal = Journal(time.time_ns, stamp_time_ns)
        self._workloads = {
            name: WORKLOADS[name](Recorder(time.time_ns), random, prefix) for name in names
        }
        where = k2store.prefix(prefix)
        self._watchers = [Watcher(where, random, _from(connect)) for connect in connections]
        self._outcomes: list[tuple[Entry, k2store.Outcome]] = []
        self._shown: list[Shown] = []
        self._final: dict[bytes, tuple[int, bytes | None]] = {}
        self._over = False

    async def run(self, faults: Callable[[], Awaitable[None]]) -> Findings:
        """Work while the faults happen, then judge."""
        async with await patiently(self._connections[0]) as db:
            for name, workload in self._workloads.items():
                await workload.open(self._actor(db, name))
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(watcher.main(None)) for watcher in self._watchers]
            working = [group.create_task(self._work(connect)) for connect in self._connections]
            await faults()
            self._over = True
            await asyncio.wait(working)
            await self._close()
            goal = max((entry.at for entry in self.journal.entries), default=0)
            for watcher in self._watchers:
                watcher.goal = goal
            _, late = await asyncio.wait(watching, timeout=QUIET_S)
            for task in late:
                task.cancel()
        return self._judge([f"a watch had not come so far after {QUIET_S:g} s" for _ in late])

    async def _work(self, connect: Connect) -> None:
        async with await patiently(connect) as db, asyncio.TaskGroup() as group:
            for name in self._workloads:
                group.create_task(self._steps(db, name))

    async def _steps(self, db: k2store.Database, name: str) -> None:
        actor = self._actor(db, name)
        while not self._over:
            await self._workloads[name].step(actor)
            await asyncio.sleep(actor.random.expovariate(1) * PAUSE_S)

    def _actor(self, db: k2store.Database, name: str) -> Actor:
        own = Random(self._random.getrandbits(64))
        return Actor(db, self.journal, self._workloads[name].recorder, own, name)

    async def _close(self) -> None:
        """Ask for what is unknown, and read everything once more."""
        async with await patiently(self._connections[0]) as db:
            for entry in self.journal.entries:
                if entry.outcome in ("open", "unknown") and entry.writes and entry.txn:

                    async def ask(entry: Entry = entry) -> k2store.Outcome:
                        return await db.outcome(entry.txn, anchor=entry.anchor, at=entry.at)

                    self._outcomes.append((entry, await persistently(ask)))
            for name, workload in self._workloads.items():
                await workload.close(self._actor(db, name))

            async def read() -> tuple[int, list[k2store.Record]]:
                async with db.snapshot(strong=True) as view:
                    rows = await view.scan(k2store.prefix(self._prefix)).all()
                    return view.at, rows

            at, rows = await persistently(read)
            self._final = {row.key: (row.version, row.value) for row in rows}
            self._shown += [Shown(row.key, row.version, row.value) for row in rows]
            for key in sorted({key for entry in self.journal.entries for key in entry.writes}):

                async def versions(key: bytes = key) -> list[k2store.Version]:
                    return await db.history(key, at=at)

                for version in await persistently(versions):
                    self._shown.append(Shown(key, version.at, version.value))

    def _judge(self, problems: list[str]) -> Findings:
        streams = [stream for watcher in self._watchers for stream in watcher.streams]
        told = [
            Shown(key, at, value)
            for stream in streams
            for at, changes in stream.commits
            for key, value in changes
        ]
        found = [*problems, *place_unknown(self.journal, [*self._shown, *told])]
        found += outcomes_agree(self._outcomes, keeps_history=True)
        found += self.journal.broken_time
        found += replay(self.journal)
        found += store_agrees(self.journal, self._shown, self._final, keeps_history=True)
        for name, workload in self._workloads.items():
            found += [f"{name}: {what}" for what in workload.check()]
        found += check_streams(self.journal, streams)
        entries = self.journal.entries
        return Findings(
            transactions=len(entries),
            commits=self.journal.commits_so_far,
            failed=sum(entry.outcome == "fail" for entry in entries),
            unknown=sum(entry.error == "OutcomeUnknown" for entry in entries),
            watched=sum(len(stream.commits) for stream in streams),
            problems=found,
        )


def _from(connect: Connect) -> Callable[[None], k2store.Database]:
    return lambda _: connect()
