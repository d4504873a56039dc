"""What a run of one node and a run of a cluster have in common: the programs, and the judgement."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec

import k2store
from jepsen_like.history import Recorder
from jepsen_like.sim.actor import Actor
from jepsen_like.sim.agreement import client_probes, outcomes_agree, store_agrees
from jepsen_like.sim.journal import Entry, Journal
from jepsen_like.sim.plan import Load
from jepsen_like.sim.replay import Shown, doubtful_keys, place_unknown, replay
from jepsen_like.sim.watching import Watcher, check_streams
from jepsen_like.workloads import WORKLOADS, Workload
from k2store.testing.simulation import (
    SECOND_NS,
    Action,
    Engine,
    Environment,
    Fault,
    Machine,
    Main,
    Process,
    Repeating,
    SimTransport,
    Simulation,
)
from k2store.testing.simulation.node import Node, stamp_time_ns

T = TypeVar("T")

COMMITS_MIN: Final = 100
SETUP_LIMIT_NS: Final = 20 * SECOND_NS
FINISH_LIMIT_NS: Final = 60 * SECOND_NS
"""From the last fault to the end of every client: the bound of liveness."""
CATCH_UP_NS: Final = FINISH_LIMIT_NS // 2
"""How long commits that are missing are made up for: a load that contends may never have them all."""
CLOSE_LIMIT_NS: Final = 60 * SECOND_NS
TIME_FINDINGS_MAX: Final = 5
RESTART_NS: Final = SECOND_NS // 5
UNDISTURBED: Final = ("setup", "closing")
"""Clients that come before and after all faults: what they ask must be answered."""
PATIENT_S: Final = 6.0
"""Longer than the others distrust a clock that has lied."""
REST_NS: Final = 10 * SECOND_NS
"""Within which nothing is open any more, however short lives are: pushes have a pace of their own."""


class Result(msgspec.Struct):
    """What a run came to. `failures` are sentences; `anomalies` those of them about consistency."""

    seed: int
    plan: Load
    trace: str = ""
    failures: list[str] = []
    anomalies: list[str] = []
    inside: list[str] = []
    """Those of the anomalies that no client could have seen."""
    transactions: int = 0
    commits: int = 0
    unknown: int = 0
    conflicts: int = 0
    fault_kinds: dict[str, int] = {}
    """Faults that took effect."""
    probes: dict[str, int] = {}
    virtual_ns: int = 0
    load_ns: int = 0
    """Virtual time while transactions committed: the seconds in which one did."""
    steps: int = 0
    seconds: float = 0.0


class Stage(ABC):
    """Everything of one run."""

    def __init__(self, plan: Load, simulation: Simulation) -> None:
        self.load = plan
        self.simulation = simulation
        self.journal = Journal(simulation.true_ns, stamp_time_ns)
        self.workloads: dict[str, Workload] = {
            name: self._workload(name) for name in plan.workloads
        }
        self.actions: dict[str, Action] = {}
        """Faults that only this stage has."""
        self.look: Callable[[Fault], Iterable[str]] = lambda _: ()
        """Names the states in which a fault finds those to whom it happens."""
        self.ordered_by_luck = False
        """Set where clocks break their contract: then what was acknowledged must be kept, and the
        order of things is owed to nobody."""
        self.engine: Engine | None = None
        self.calm = False
        """Set when no more faults begin: clients then end when there are enough commits."""
        self._calm_ns = 0
        self.served: set[str] = set()
        """Clients that have got an answer since: every one must, within the bound of liveness."""
        self.shown: list[Shown] = []
        self.final: dict[bytes, tuple[int, bytes | None]] = {}
        self.outcomes: list[tuple[Entry, k2store.Outcome]] = []
        self.problems: list[str] = []
        """What clients found in the end."""
        self.inside: list[str] = []
        """What was found by looking into the nodes."""
        self._hosts = 0
        self.nodes = self._nodes()
        self.servers = self._servers()
        self.clients = [
            simulation.process(self._machine(name), self._client(name), start=False)
            for name in plan.clients
        ]
        self.watchers = [
            Watcher(k2store.prefix(where), simulation.random("watcher", number), self._connect)
            for number, where in enumerate(plan.watchers)
        ]
        self.watching = [
            simulation.process(self._machine(f"watcher-{number}"), watcher.main, start=False)
            for number, watcher in enumerate(self.watchers)
        ]

    # ------------------------------------------------------------------------------ what differs

    @abstractmethod
    def _nodes(self) -> Sequence[Node]:
        """The nodes of the store."""

    @abstractmethod
    def _servers(self) -> Sequence[Process]:
        """Their processes, in the same order, running."""

    @abstractmethod
    def _region(self, name: str) -> str:
        """Where the machine of that name stands."""

    @abstractmethod
    def _address(self, environment: Environment) -> str:
        """Where a client on this machine finds the store."""

    @abstractmethod
    def _borders(self) -> Sequence[bytes]:
        """The keys at which partitions meet."""

    @abstractmethod
    async def _prepare(self) -> None:
        """Do what is to be done before the first client comes."""

    @abstractmethod
    def _settle(self) -> None:
        """Look at what can be seen when everything has come to rest."""

    # ------------------------------------------------------------------------------ phases

    def play(self) -> None:
        """All phases, in order."""
        simulation, plan = self.simulation, self.load
        setup = simulation.process(self._machine("setup"), self._open)
        simulation.wait_for([setup], SETUP_LIMIT_NS)
        for process in (*self.clients, *self.watching):
            process.start()
        self.engine = Engine(simulation, list(plan.schedule), self.actions, self.look)
        simulation.run_for(plan.duration_ns)
        self.calm, self._calm_ns = True, simulation.true_ns()
        self.engine.stop()
        simulation.wait_for(self.clients, FINISH_LIMIT_NS)
        closing = simulation.process(self._machine("closing"), self._close)
        simulation.wait_for([closing], CLOSE_LIMIT_NS)
        goal = max((entry.at for entry in self.journal.entries), default=0)
        for watcher in self.watchers:
            watcher.goal = goal
        simulation.wait_for(self.watching, CLOSE_LIMIT_NS)
        # Orphans are ended by their anchors after the longest life and the expiry of heartbeats.
        patience_ns = 2 * (plan.node.lifetime_ns + plan.node.expiry_ns)
        until_ns = simulation.loop.now_ns + max(patience_ns, REST_NS)
        while self._unfinished() and simulation.loop.now_ns < until_ns:
            simulation.run_for(SECOND_NS // 10)
        self._settle()
        simulation.check()

    def judge(self, result: Result) -> None:
        """All checks."""
        result.failures += [f"not finished: {what}" for what in self._unfinished()]
        streams = [stream for watcher in self.watchers for stream in watcher.streams]
        # Watchers may have been told of versions that were collected since.
        told = [
            Shown(key, at, value)
            for stream in streams
            for at, changes in stream.commits
            for key, value in changes
        ]
        committed = {
            entry.number: (one.at or 0) if one.state == "committed" else 0
            for entry, one in self.outcomes
        }
        order = place_unknown(self.journal, [*self.shown, *told], committed)
        keeps = self.load.keeps_history
        lost = self.inside + self.problems + outcomes_agree(self.outcomes, keeps_history=keeps)
        # Only a simulator knows true time.
        untimely = self.journal.broken_time[:TIME_FINDINGS_MAX]
        order += untimely
        result.inside += self.inside + untimely
        doubtful = frozenset() if keeps else doubtful_keys(self.journal)
        order += replay(self.journal, doubtful)
        lost += store_agrees(
            self.journal, self.shown, self.final, keeps_history=keeps, doubtful=doubtful
        )
        for name, workload in self.workloads.items():
            order += [f"{name}: {what}" for what in workload.check()]
        order += check_streams(self.journal, streams, doubtful)
        result.anomalies += lost + order
        result.failures += lost
        if not self.ordered_by_luck:
            result.failures += order

    def judge_fragment(self, result: Result) -> None:
        """What clients saw until the run broke off: what was open then may have taken or not."""
        for name, workload in self.workloads.items():
            found = [f"{name}: {what}" for what in workload.check()]
            result.anomalies += found
            if not self.ordered_by_luck:
                result.failures += found

    def count(self, result: Result) -> None:
        """Figures, and whether enough has happened for the run to prove anything."""
        entries = self.journal.entries
        result.transactions = len(entries)
        result.commits = self.journal.commits_so_far
        result.load_ns = len(self.journal.busy_s) * SECOND_NS
        result.unknown = sum(entry.error == "OutcomeUnknown" for entry in entries)
        result.conflicts = sum(node.conflicts() for node in self.nodes)
        result.conflicts += sum(bool(entry.refuted) for entry in entries)
        for applied in self.engine.applied if self.engine is not None else ():
            if applied.evidence is not None:
                kind = self._kind(applied.fault)
                result.fault_kinds[kind] = result.fault_kinds.get(kind, 0) + 1
        result.probes = {
            **self.simulation.probes.counts,
            **client_probes(entries, self._borders()),
        }
        for node, server in zip(self.nodes, self.servers, strict=True):
            for name, hits in node.harvest(len(server.exits)).items():
                result.probes[name] = result.probes.get(name, 0) + hits
        if result.failures:
            return
        if result.commits < COMMITS_MIN:
            result.failures.append(f"vacuous: only {result.commits} commits")
        if not result.conflicts:
            result.failures.append("vacuous: no conflict")
        if not result.fault_kinds:
            result.failures.append("vacuous: no fault took effect")

    def _kind(self, fault: Fault) -> str:
        """What a fault is counted as: a clock that lies is another thing than one that is wrong."""
        if fault.name == "clock-step" and not self.load.honest:
            return "clock-violation"
        return fault.name

    def _unfinished(self) -> list[str]:
        return [what for node in self.nodes for what in node.unfinished()]

    # ------------------------------------------------------------------------------ programs

    def _machine(self, name: str) -> Machine:
        plan, number = self.load, self._hosts
        self._hosts += 1
        drawn = number < len(plan.offsets_ns)
        return self.simulation.machine(
            name,
            self._region(name),
            offset_ns=plan.offsets_ns[number] if drawn and plan.honest else 0,
            drift_ppb=plan.drifts_ppb[number] if drawn else 0,
            bound_ns=plan.bound_ns,
            grain_ns=plan.grain_ns,
            honest=plan.honest,
        )

    def _workload(self, name: str) -> Workload:
        kind, _, prefix = name.partition("@")
        random = self.simulation.random("workload", name)
        return WORKLOADS[kind](Recorder(self.simulation.true_ns), random, prefix.encode())

    def _connect(self, environment: Environment) -> k2store.Database:
        settings = self.load.client
        if environment.name in UNDISTURBED:
            patient_s = max(settings.timeout_s, PATIENT_S)
            settings = msgspec.structs.replace(settings, timeout_s=patient_s)
        return k2store.connect(
            self._address(environment),
            name=environment.name,
            dialer=self._dialer(environment),
            settings=settings,
            monotonic_ns=environment.clock.monotonic_ns,
            rng=environment.random("client"),
        )

    def _dialer(self, environment: Environment) -> Repeating | SimTransport:
        if not self.load.repeats or environment.name in UNDISTURBED:
            return environment.transport
        return Repeating(environment.transport, environment.random("repeating"), environment.loop)

    async def _open(self, environment: Environment) -> None:
        await self._prepare()
        async with await self._patiently(environment) as database:
            for name, workload in self.workloads.items():
                await workload.open(self._actor(database, environment, name))

    def _client(self, name: str) -> Main:
        async def main(environment: Environment) -> None:
            async with await self._patiently(environment) as database:
                tasks = [
                    environment.loop.create_task(self._work(database, environment, workload))
                    for workload in self.workloads
                ]
                for task in tasks:
                    await task

        return main

    async def _work(self, database: k2store.Database, environment: Environment, name: str) -> None:
        actor = self._actor(database, environment, name)
        workload, rng = self.workloads[name], actor.random
        client = environment.name
        while not self._enough(client):
            calm, before = self.calm, actor.answered
            await workload.step(actor)
            if calm and actor.answered > before:
                self.served.add(client)
            if rng.random() < 0.7:
                # Once nothing goes wrong any more, what is missing is made up for.
                pause_s = self.load.pause_s / (10 if self.calm else 1)
                await asyncio.sleep(rng.expovariate(1) * pause_s)

    def _enough(self, client: str) -> bool:
        """Whether a client may end: nothing goes wrong any more, and it was served since."""
        if not self.calm or client not in self.served:
            return False
        late = self.simulation.true_ns() >= self._calm_ns + CATCH_UP_NS
        return late or self.journal.commits_so_far >= self.load.commits

    async def _close(self, environment: Environment) -> None:
        """Ask for what is unknown, then read everything that the store holds."""
        async with await self._patiently(environment) as database:
            for entry in self.journal.entries:
                # The name of a one-shot dies with its client.
                if entry.outcome in ("open", "unknown") and entry.writes and entry.txn:
                    outcome = await persistently(partial(_outcome, database, entry))
                    self.outcomes.append((entry, outcome))
            for name, workload in self.workloads.items():
                await workload.close(self._actor(database, environment, name))
            await self._read_all(database)

    async def _read_all(self, database: k2store.Database) -> None:
        at, rows = await persistently(partial(_rows, database))
        self.shown += [Shown(row.key, row.version, row.value) for row in rows]
        self.final = {row.key: (row.version, row.value) for row in rows}
        keys = sorted({key for entry in self.journal.entries for key in entry.writes})
        for key in keys:
            for version in await persistently(partial(database.history, key, at=at)):
                self.shown.append(Shown(key, version.at, version.value))

    async def _patiently(self, environment: Environment) -> Opened:
        """A database that is open, however long the store takes to answer."""
        return await patiently(lambda: self._connect(environment))

    def _actor(self, database: k2store.Database, environment: Environment, name: str) -> Actor:
        return Actor(
            database,
            self.journal,
            self.workloads[name].recorder,
            environment.random(f"work {name}"),
            name,
        )


async def _outcome(database: k2store.Database, entry: Entry) -> k2store.Outcome:
    return await database.outcome(entry.txn, anchor=entry.anchor, at=entry.at)


async def _rows(database: k2store.Database) -> tuple[int, list[k2store.Record]]:
    async with database.snapshot(strong=True) as view:
        rows = await view.scan(k2store.EVERYTHING).all()
        return view.at, rows


async def persistently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer: a view does not repeat what the node cannot serve at once."""
    while True:
        try:
            return await ask()
        except (k2store.Unavailable, k2store.ClockUncertain, k2store.Deadline):
            await asyncio.sleep(0.05)


async def patiently(connect: Callable[[], k2store.Database]) -> Opened:
    """Connect until somebody answers."""
    while True:
        database = connect()
        try:
            await database.__aenter__()
        except k2store.K2Error:
            await asyncio.sleep(0.05)
        else:
            return Opened(database)


class Opened:
    """An open database, to be left with ``async with``."""

    def __init__(self, database: k2store.Database) -> None:
        self._database = database

    async def __aenter__(self) -> k2store.Database:
        return self._database

    async def __aexit__(self, *error: object) -> None:
        await self._database.__aexit__(None, None, None)


def told(error: BaseException) -> str:
    """An error and its causes, in a line."""
    causes = [f"{type(error).__name__}: {error}"]
    while error.__cause__ is not None:
        error = error.__cause__
        causes.append(f"{type(error).__name__}: {error}")
    return " <- ".join(causes)
