"""One run: load and faults for some time, then rest, and the judgement."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

import k2store
from jepsen_like.history import Recorder
from jepsen_like.regions.nemesis import Nemesis
from jepsen_like.sim.actor import Actor
from jepsen_like.sim.agreement import outcomes_agree, store_agrees
from jepsen_like.sim.journal import Entry, Journal
from jepsen_like.sim.replay import Shown, place_unknown, replay
from jepsen_like.sim.stage import persistently
from jepsen_like.workloads import WORKLOADS, Workload
from k2store.testing.simulation.node import stamp_time_ns

if TYPE_CHECKING:
    from k2store.testing.cluster import LocalCluster

LOADS: Final = ("append", "bank", "register", "skew")
PAUSE_S: Final = 0.02
RECOVERY_LIMIT_S: Final = 60.0
FINISH_S: Final = 60.0
FOUND_MAX: Final = 20
_RECOVERED: Final = b"recovered/"


class Result(msgspec.Struct):
    """What one run came to. `anomalies` are sentences."""

    seconds: float
    transactions: int = 0
    commits: int = 0
    txn_per_s: float = 0.0
    """Committed transactions that wrote, a second of the time under load and faults."""
    unknown: int = 0
    faults: dict[str, int] = {}
    """Of each kind how many took effect."""
    idle_faults: dict[str, int] = {}
    recovery_s: float = 0.0
    """From the end of the last fault until clients of every region had written again."""
    anomalies: list[str] = []

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong, and enough has happened to prove anything."""
        return not self.anomalies and self.commits > 0 and bool(self.faults)


class Campaign:
    """Clients and their journal on one cluster."""

    def __init__(self, cluster: LocalCluster, rng: random.Random, clients: int = 2) -> None:
        """`clients`: how many stand in each region."""
        self._clients = clients
        self._cluster = cluster
        self._rng = rng
        self._journal = Journal(time.time_ns, stamp_time_ns)
        self._workloads: dict[str, Workload] = {
            name: WORKLOADS[name](Recorder(time.time_ns), random.Random(rng.random()))
            for name in LOADS
        }
        self._calm = False

    async def run(self, seconds: float) -> Result:
        """Load and faults for so long, then everything else."""
        nemesis = Nemesis(self._cluster, random.Random(self._rng.random()))
        async with AsyncExitStack() as stack:
            regions = self._cluster.regions
            databases = {
                region: [
                    await stack.enter_async_context(self._cluster.connect(region))
                    for _ in range(self._clients)
                ]
                for region in regions
            }
            first = databases[regions[0]][0]
            for name, workload in self._workloads.items():
                await workload.open(self._actor(first, name))
            tasks = [
                asyncio.ensure_future(self._work(database, name))
                for some in databases.values()
                for database in some
                for name in LOADS
            ]
            began_s = time.monotonic()
            await nemesis.run(seconds)
            took_s = time.monotonic() - began_s
            result = Result(round(took_s, 3), anomalies=[])
            commits = self._journal.commits_so_far
            healed_s = time.monotonic()
            await asyncio.gather(*(self._recovered(some[0]) for some in databases.values()))
            result.recovery_s = round(time.monotonic() - healed_s, 3)
            self._calm = True
            await asyncio.wait_for(asyncio.gather(*tasks), FINISH_S)
            self._judge(result, *await self._read(first))
            result.anomalies += await self._compare(databases)
        result.commits = commits
        result.txn_per_s = round(commits / took_s, 1)
        result.transactions = len(self._journal.entries)
        result.unknown = sum(one.error == "OutcomeUnknown" for one in self._journal.entries)
        result.faults = dict(sorted(nemesis.applied.items()))
        result.idle_faults = dict(sorted(nemesis.idle.items()))
        return result

    # ------------------------------------------------------------------------------ clients

    def _actor(self, database: k2store.Database, name: str) -> Actor:
        rng = random.Random(self._rng.random())
        return Actor(database, self._journal, self._workloads[name].recorder, rng, name)

    async def _work(self, database: k2store.Database, name: str) -> None:
        actor = self._actor(database, name)
        while not self._calm:
            await self._workloads[name].step(actor)
            await asyncio.sleep(actor.random.expovariate(1 / PAUSE_S))

    async def _recovered(self, database: k2store.Database) -> None:
        """Return when a write from here has taken."""
        until_s = time.monotonic() + RECOVERY_LIMIT_S
        key = _RECOVERED + b"%x" % self._rng.getrandbits(64)
        while True:
            try:
                await database.put(key, b"here")
            except k2store.K2Error:
                if time.monotonic() > until_s:
                    raise
            else:
                return

    # ------------------------------------------------------------------------------ judgement

    async def _read(
        self, database: k2store.Database
    ) -> tuple[list[tuple[Entry, k2store.Outcome]], list[Shown], dict[bytes, Row]]:
        """Ask for what is unknown, then read everything, with all its versions."""
        outcomes = []
        for entry in self._journal.entries:
            if entry.outcome in ("open", "unknown") and entry.writes and entry.txn:
                ask = partial(database.outcome, entry.txn, anchor=entry.anchor, at=entry.at)
                outcomes.append((entry, await persistently(ask)))
        for name, workload in self._workloads.items():
            await workload.close(self._actor(database, name))
        at, rows = await persistently(partial(_rows, database, 0))
        mine = [row for row in rows if not row.key.startswith(_RECOVERED)]
        shown = [Shown(row.key, row.version, row.value) for row in mine]
        for key in sorted({key for entry in self._journal.entries for key in entry.writes}):
            versions = await persistently(partial(database.history, key, at=at))
            shown += [Shown(key, version.at, version.value) for version in versions]
        return outcomes, shown, {row.key: (row.version, row.value) for row in mine}

    def _judge(
        self,
        result: Result,
        outcomes: list[tuple[Entry, k2store.Outcome]],
        shown: list[Shown],
        final: dict[bytes, Row],
    ) -> None:
        journal, found = self._journal, result.anomalies
        found += place_unknown(journal, shown)
        found += outcomes_agree(outcomes, keeps_history=True)
        found += journal.broken_time[:FOUND_MAX]
        found += replay(journal)
        found += store_agrees(journal, shown, final, keeps_history=True)
        for name, workload in self._workloads.items():
            found += [f"{name}: {what}" for what in workload.check()]

    async def _compare(self, databases: dict[str, list[k2store.Database]]) -> list[str]:
        """Every region shows the same rows at one stamp, out of its own copies."""
        some = list(databases.items())
        at, rows = await persistently(partial(_rows, some[0][1][0], 0))
        problems = []
        for region, (database, *_) in some[1:]:
            _, others = await persistently(partial(_rows, database, at))
            if others != rows:
                problems.append(f"at {at} {region} shows other rows than {some[0][0]}")
        return problems


Row = tuple[int, bytes | None]


async def _rows(database: k2store.Database, at: int) -> tuple[int, list[k2store.Record]]:
    async with database.snapshot(at=at) if at else database.snapshot(strong=True) as view:
        rows = await view.scan(k2store.EVERYTHING).all()
        return view.at, rows
