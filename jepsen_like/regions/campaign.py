"""One run: load and faults for some time, then rest, and the judgement."""

from __future__ import annotations

import asyncio
import collections
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

import k2store
from jepsen_like.nemesis.nemesis import Applied, Nemesis
from jepsen_like.nemesis.world import World
from jepsen_like.regions.load import PACE_S, Load, thin
from jepsen_like.regions.settling import Rest, at_rest, read_everywhere
from jepsen_like.report.record import Change, Record, record_of
from jepsen_like.sim.agreement import outcomes_agree, store_agrees
from jepsen_like.sim.journal import Entry
from jepsen_like.sim.replay import Shown, place_unknown, replay
from jepsen_like.sim.stage import persistently
from jepsen_like.sim.watching import check_streams

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jepsen_like.nemesis.schedule import Schedule
    from k2store.testing.cluster import LocalCluster
    from k2store.testing.disk_image import DiskImage

RECOVERY_LIMIT_S: Final = 60.0
RECOVERY_S_MAX: Final = 10.0
"""From the last fault to service everywhere: the promise."""
FINISH_S: Final = 60.0
FOUND_MAX: Final = 20
COMMITS_PER_S_MIN: Final = 20
OPERATIONS_MIN: Final = 5
"""Of each workload, answered well; fewer prove nothing."""
READS_AT_ONCE: Final = 64
LEADERS_S: Final = 0.5
WARM_S: Final = 1.0

Row = tuple[int, bytes | None]


class Result(msgspec.Struct):
    """What one run came to. `anomalies` are sentences about the store, `flaws` about the run."""

    seconds: float
    seed: int = 0
    transactions: int = 0
    commits: int = 0
    txn_per_s: float = 0.0
    """Committed transactions that wrote, a second of the time under load and faults."""
    reads_per_s: float = 0.0
    """Transactions and views that only read, and were answered."""
    unknown: int = 0
    failed: int = 0
    watched: int = 0
    """Commits that watchers were told of."""
    faults: dict[str, int] = {}
    """Of each kind how many took effect."""
    idle_faults: dict[str, int] = {}
    skipped_faults: dict[str, str] = {}
    """Kinds that could not be made at least once, and why."""
    recovery_s: float = 0.0
    """From the end of the last fault until clients of every region had written everywhere."""
    settled_s: float = 0.0
    """From there until all logs were equal."""
    partitions: int = 0
    rows: int = 0
    state_hash: str = ""
    """Of all rows at one stamp, the same in every node; empty if it was not."""
    leader_changes: int = 0
    stalls: int = 0
    """How often the clients' own loop was more than 50 ms late, and by how much at most."""
    stall_s_max: float = 0.0
    honest: bool = True
    """Whether all clocks kept their bound. Where one did not, order is owed to nobody."""
    disordered: int = 0
    """What was out of order in a run whose clocks broke their word."""
    anomalies: list[str] = []
    flaws: list[str] = []

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong, and enough has happened to prove anything."""
        return not self.anomalies and not self.flaws and self.commits > 0 and bool(self.faults)


class Campaign:
    """Clients, faults and their journal on one cluster."""

    def __init__(
        self,
        cluster: LocalCluster,
        schedule: Schedule,
        *,
        load: Load,
        disks: Mapping[str, DiskImage] | None = None,
        honest: bool = True,
        pace_s: float = PACE_S,
    ) -> None:
        """`honest`: the schedule keeps all clocks inside their bounds."""
        self._world = World(cluster, schedule, disks, bulk=load.bulk)
        self._nemesis = Nemesis(self._world)
        self._load = load
        self._honest = honest
        self._pace_s = pace_s
        self._leaders: list[Change] = []
        self._began_ns = 0
        self._phase = ""
        self._read_in_the_end: Read | None = None
        self.record: Record | None = None
        """What happened, once it is over."""

    async def run(self) -> Result:
        """Load and faults, then rest, and everything is read; `judge` belongs after it."""
        load, result = self._load, Result(0.0, anomalies=[], flaws=[])
        result.honest = self._honest
        async with AsyncExitStack() as stack:
            await load.start(stack, self._pace_s)
            stack.callback(load.stop)
            await asyncio.sleep(WARM_S)
            began_ns, commits_before = time.time_ns(), load.journal.commits_so_far
            looking = asyncio.create_task(self._follow_leaders())
            stack.callback(looking.cancel)
            await self._nemesis.run()
            result.seconds = round((time.time_ns() - began_ns) / 1e9, 3)
            result.commits = load.journal.commits_so_far - commits_before
            rest = Rest(problems=[], log_hashes={}, state_hashes={})
            try:
                await self._wind_up(result, rest)
            except TimeoutError:
                result.anomalies.append(f"no end: {self._phase}")
        self._count(result, rest, began_ns)
        self._began_ns = began_ns
        return result

    def judge(self, result: Result) -> None:
        """Every check of what was seen. The cluster need not run any more."""
        if self._read_in_the_end is not None:
            self._judge(result, self._read_in_the_end)
        load = self._load
        result.flaws += thin(load.workloads, OPERATIONS_MIN)
        self.record = record_of(
            load.journal,
            applied=self._nemesis.applied,
            leaders=self._leaders,
            stalls=load.stalls,
            began_ns=self._began_ns,
            hosts=self._world.schedule.hosts,
            verdict=msgspec.to_builtins(result) | {"valid": result.valid},
        )

    # ------------------------------------------------------------------------------ phases

    async def _wind_up(self, result: Result, rest: Rest) -> None:
        load = self._load
        healed_s = time.monotonic()
        self._phase = "some region never wrote again"
        async with asyncio.timeout(RECOVERY_LIMIT_S):
            await load.recovered()
        result.recovery_s = round(time.monotonic() - healed_s, 3)
        self._phase = "some client never ended what it was at"
        await load.finish(FINISH_S)
        self._phase = "the store was never read"
        async with asyncio.timeout(2 * FINISH_S):
            read = await self._read()
        self._phase = "some watcher never saw the last commit"
        await load.catch_up(FINISH_S)
        settling_s = time.monotonic()
        found = await at_rest(self._world)
        result.settled_s = round(time.monotonic() - settling_s, 3)
        if not found.problems:
            self._phase = "some node never showed everything"
            async with asyncio.timeout(FINISH_S):
                await read_everywhere(self._world, found, read.at)
        for name in rest.__struct_fields__:
            setattr(rest, name, getattr(found, name))
        self._read_in_the_end = read

    async def _read(self) -> Read:
        """Ask for what is unknown, then read everything, with all its versions."""
        load, database = self._load, self._load.first
        entries = load.journal.entries
        slots = asyncio.Semaphore(READS_AT_ONCE)
        outcomes: list[tuple[Entry, k2store.Outcome]] = []

        async def outcome(entry: Entry) -> None:
            async with slots:
                ask = partial(database.outcome, entry.txn, anchor=entry.anchor, at=entry.at)
                outcomes.append((entry, await persistently(ask)))

        await asyncio.gather(
            *(
                outcome(entry)
                for entry in entries
                if entry.outcome in ("open", "unknown") and entry.writes and entry.txn
            )
        )
        await asyncio.gather(
            *(
                workload.close(load.actor(database, name))
                for name, workload in load.workloads.items()
            )
        )
        at, rows = await persistently(partial(_rows, database))
        shown = [Shown(row.key, row.version, row.value) for row in rows]
        # A key that one transaction wrote has no history but the row.
        writers = collections.Counter(key for entry in entries for key in entry.writes)
        present = {row.key for row in rows}

        async def history(key: bytes) -> None:
            async with slots:
                versions = await persistently(partial(database.history, key, at=at))
            shown.extend(Shown(key, version.at, version.value) for version in versions)

        await asyncio.gather(
            *(
                history(key)
                for key, count in sorted(writers.items())
                if count > 1 or key not in present
            )
        )
        return Read(at, outcomes, shown, {row.key: (row.version, row.value) for row in rows})

    def _judge(self, result: Result, read: Read) -> None:
        load, journal = self._load, self._load.journal
        streams = [stream for watcher in load.watchers for stream in watcher.streams]
        told = [
            Shown(key, at, value)
            for stream in streams
            for at, changes in stream.commits
            for key, value in changes
        ]
        committed = {
            entry.number: (outcome.at or 0) if outcome.state == "committed" else 0
            for entry, outcome in read.outcomes
        }
        order = place_unknown(journal, [*read.shown, *told], committed)
        lost = outcomes_agree(read.outcomes, keeps_history=True)
        order += journal.broken_time[:FOUND_MAX]
        order += replay(journal)
        lost += store_agrees(journal, read.shown, read.final, keeps_history=True)
        for name, workload in load.workloads.items():
            order += [f"{name}: {what}" for what in workload.check()]
        order += check_streams(journal, streams)
        result.watched = sum(len(stream.commits) for stream in streams)
        result.anomalies += lost
        if self._honest:
            result.anomalies += order[:FOUND_MAX]
        result.disordered = len(order)

    # ------------------------------------------------------------------------------ figures

    def _count(self, result: Result, rest: Rest, began_ns: int) -> None:
        load, nemesis = self._load, self._nemesis
        entries = load.journal.entries
        during = [entry for entry in entries if entry.began_ns >= began_ns]
        result.transactions = len(entries)
        result.txn_per_s = round(result.commits / result.seconds, 1)
        answered = sum(entry.outcome == "ok" and not entry.writes for entry in during)
        result.reads_per_s = round(answered / result.seconds, 1)
        result.unknown = sum(entry.error == "OutcomeUnknown" for entry in entries)
        result.failed = sum(entry.outcome == "fail" for entry in entries)
        effective = [one.fault.name for one in nemesis.applied if one.state == "effective"]
        idle = [one.fault.name for one in nemesis.applied if one.state == "idle"]
        result.faults = dict(sorted(collections.Counter(effective).items()))
        result.idle_faults = dict(sorted(collections.Counter(idle).items()))
        result.skipped_faults = {
            one.fault.name: one.told for one in nemesis.applied if one.state == "skipped"
        }
        result.leader_changes = max(0, len(self._leaders) - rest.partitions)
        result.stalls = len(load.stalls)
        result.stall_s_max = round(max((late for _, late in load.stalls), default=0) / 1e9, 3)
        result.partitions, result.rows = rest.partitions, rest.rows
        result.anomalies += nemesis.broken + rest.problems
        if len(set(rest.state_hashes.values())) == 1:
            result.state_hash = next(iter(rest.state_hashes.values()))
        result.flaws += self._flaws(result)

    def _flaws(self, result: Result) -> list[str]:
        """Why this run proves nothing, or not what it should."""
        found = [f"{name} left no evidence" for name in result.idle_faults]
        if result.commits < COMMITS_PER_S_MIN * result.seconds:
            found.append(f"only {result.commits} commits in {result.seconds:.0f} s")
        if result.recovery_s > RECOVERY_S_MAX:
            found.append(f"service was back after {result.recovery_s:.1f} s only")
        return found

    async def _follow_leaders(self) -> None:
        """Note who leads what, whenever that changes."""
        known: dict[int, str] = {}
        while True:
            leads = await asyncio.to_thread(self._world.leads)
            for partition, node in leads.items():
                if known.get(partition) != node:
                    known[partition] = node
                    self._leaders.append(Change(time.time_ns(), partition, node))
            await asyncio.sleep(LEADERS_S)


class Read(msgspec.Struct):
    """Everything that the store says and holds in the end."""

    at: int
    outcomes: list[tuple[Entry, k2store.Outcome]]
    shown: list[Shown]
    final: dict[bytes, Row]


async def _rows(database: k2store.Database) -> tuple[int, list[k2store.Record]]:
    async with database.snapshot(strong=True) as view:
        rows = await view.scan(k2store.EVERYTHING).all()
        return view.at, rows


__all__ = ["Applied", "Campaign", "Result"]
