"""One seed: build the machines, let them run, heal them, read everything, judge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import IO, Final, TypeVar

import msgspec

import k2store
from jepsen_like.history import Recorder
from jepsen_like.sim.actor import Actor
from jepsen_like.sim.agreement import client_probes, outcomes_agree, store_agrees
from jepsen_like.sim.journal import Entry, Journal
from jepsen_like.sim.plan import SERVER, Plan, draw
from jepsen_like.sim.replay import Shown, place_unknown, replay
from jepsen_like.sim.watching import Watcher, check_streams
from jepsen_like.workloads import WORKLOADS, Workload
from k2store.testing.simulation import (
    SECOND_NS,
    SIMULATOR_PROBES,
    Engine,
    Environment,
    Fault,
    Machine,
    Main,
    Simulation,
    SimulationError,
)
from k2store.testing.simulation.node import FAIL_STOP, PORT, Node, stamp_time_ns

T = TypeVar("T")

COMMITS_MIN: Final = 100
SETUP_LIMIT_NS: Final = 20 * SECOND_NS
FINISH_LIMIT_NS: Final = 60 * SECOND_NS
"""From the last fault to the end of every client: the bound of liveness."""
CLOSE_LIMIT_NS: Final = 60 * SECOND_NS
TIME_FINDINGS_MAX: Final = 5
RESTART_NS: Final = SECOND_NS // 5


class Result(msgspec.Struct):
    """What a run came to. `failures` are sentences; `anomalies` those of them about consistency."""

    seed: int
    plan: Plan
    trace: str = ""
    failures: list[str] = []
    anomalies: list[str] = []
    transactions: int = 0
    commits: int = 0
    unknown: int = 0
    conflicts: int = 0
    fault_kinds: dict[str, int] = {}
    """Faults that took effect."""
    probes: dict[str, int] = {}
    virtual_ns: int = 0
    steps: int = 0
    seconds: float = 0.0


def run(
    seed: int,
    only: Sequence[str] = (),
    *,
    plan: Plan | None = None,
    trace_sink: IO[str] | None = None,
    honest: bool = True,
) -> Result:
    """Run a seed, or the plan that is given instead of the one drawn from it."""
    began_s = time.perf_counter()
    plan = plan or draw(seed, only, honest=honest)
    result = Result(
        seed,
        plan,
        failures=[],
        anomalies=[],
        fault_kinds={},
        probes=dict.fromkeys(SIMULATOR_PROBES, 0),
    )
    with Simulation(seed, conditions=plan.conditions(), trace_sink=trace_sink) as simulation:
        scene = _Scene(plan, simulation)
        try:
            scene.play()
            scene.judge(result)
        except SimulationError as error:
            result.failures.append(_told(error))
        scene.count(result)
        result.trace = simulation.trace.hash
        result.virtual_ns = simulation.loop.now_ns
        result.steps = simulation.loop.steps
    result.seconds = time.perf_counter() - began_s
    return result


class _Scene:
    """Everything of one run."""

    def __init__(self, plan: Plan, simulation: Simulation) -> None:
        self.plan = plan
        self.simulation = simulation
        self.journal = Journal(simulation.true_ns, stamp_time_ns)
        self.workloads: dict[str, Workload] = {
            name: WORKLOADS[name](Recorder(simulation.true_ns), simulation.random("workload", name))
            for name in plan.workloads
        }
        self.node = Node(plan.node)
        self.engine: Engine | None = None
        self.calm = False
        """Set when no more faults begin: clients then end when there are enough commits."""
        self.ready = False
        self._hosts = 0
        self.server = simulation.process(
            self._machine(SERVER), self.node.main, fail_stop=FAIL_STOP, restart_ns=RESTART_NS
        )
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
        self.shown: list[Shown] = []
        self.final: dict[bytes, tuple[int, bytes | None]] = {}
        self.outcomes: list[tuple[Entry, k2store.Outcome]] = []
        self.problems: list[str] = []

    # ------------------------------------------------------------------------------ phases

    def play(self) -> None:
        """All phases, in order."""
        simulation, plan = self.simulation, self.plan
        setup = simulation.process(self._machine("setup"), self._open)
        simulation.wait_for([setup], SETUP_LIMIT_NS)
        for process in (*self.clients, *self.watching):
            process.start()
        self.engine = Engine(simulation, list(plan.schedule))
        simulation.run_for(plan.duration_ns)
        self.calm = True
        self.engine.stop()
        simulation.wait_for(self.clients, FINISH_LIMIT_NS)
        closing = simulation.process(self._machine("closing"), self._close)
        simulation.wait_for([closing], CLOSE_LIMIT_NS)
        goal = max((entry.at for entry in self.journal.entries), default=0)
        for watcher in self.watchers:
            watcher.goal = goal
        simulation.wait_for(self.watching, CLOSE_LIMIT_NS)
        # Orphans are ended by their anchors after the longest life and the expiry of heartbeats.
        until_ns = simulation.loop.now_ns + 2 * (plan.node.lifetime_ns + plan.node.expiry_ns)
        while self.node.unfinished() and simulation.loop.now_ns < until_ns:
            simulation.run_for(SECOND_NS // 10)
        simulation.check()

    def judge(self, result: Result) -> None:
        """All checks."""
        result.failures += [f"not finished: {what}" for what in self.node.unfinished()]
        found = list(self.problems)
        found += place_unknown(self.journal, self.shown)
        keeps = plan_keeps_history(self.plan)
        found += outcomes_agree(self.outcomes, keeps_history=keeps)
        found += self.journal.broken_time[:TIME_FINDINGS_MAX]
        found += replay(self.journal)
        found += store_agrees(self.journal, self.shown, self.final, keeps_history=keeps)
        for name, workload in self.workloads.items():
            found += [f"{name}: {what}" for what in workload.check()]
        streams = [stream for watcher in self.watchers for stream in watcher.streams]
        found += check_streams(self.journal, streams)
        result.anomalies += found
        result.failures += found

    def count(self, result: Result) -> None:
        """Figures, and whether enough has happened for the run to prove anything."""
        entries = self.journal.entries
        result.transactions = len(entries)
        result.commits = self.journal.commits_so_far
        result.unknown = sum(entry.error == "OutcomeUnknown" for entry in entries)
        result.conflicts = self.node.conflicts() + sum(bool(entry.refuted) for entry in entries)
        for applied in self.engine.applied if self.engine is not None else ():
            if applied.evidence is not None:
                kinds = result.fault_kinds
                kinds[applied.fault.name] = kinds.get(applied.fault.name, 0) + 1
        result.probes = {
            **self.simulation.probes.counts,
            **self.node.harvest(len(self.server.exits)),
            **client_probes(entries, self.plan.node.split_keys),
        }
        if result.failures:
            return
        if result.commits < COMMITS_MIN:
            result.failures.append(f"vacuous: only {result.commits} commits")
        if not result.conflicts:
            result.failures.append("vacuous: no conflict")
        if not result.fault_kinds:
            result.failures.append("vacuous: no fault took effect")

    # ------------------------------------------------------------------------------ programs

    def _machine(self, name: str) -> Machine:
        plan, number = self.plan, self._hosts
        self._hosts += 1
        drawn = number < len(plan.offsets_ns)
        return self.simulation.machine(
            name,
            "far" if name in plan.far else "local",
            offset_ns=plan.offsets_ns[number] if drawn and plan.honest else 0,
            drift_ppb=plan.drifts_ppb[number] if drawn else 0,
            bound_ns=plan.bound_ns,
            honest=plan.honest,
        )

    def _connect(self, environment: Environment) -> k2store.Database:
        return k2store.connect(
            f"k2://{SERVER}:{PORT}",
            name=environment.name,
            dialer=environment.transport,
            settings=self.plan.client,
            monotonic_ns=environment.clock.monotonic_ns,
            rng=environment.random("client"),
        )

    async def _open(self, environment: Environment) -> None:
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
        while not (self.calm and self.journal.commits_so_far >= self.plan.commits):
            await workload.step(actor)
            if rng.random() < 0.7:
                await asyncio.sleep(rng.expovariate(1) * self.plan.pause_s)

    async def _close(self, environment: Environment) -> None:
        """Ask for what is unknown, then read everything that the store holds."""
        async with await self._patiently(environment) as database:
            for entry in self.journal.entries:
                # The name of a one-shot dies with its client.
                if entry.outcome in ("open", "unknown") and entry.writes and entry.txn:
                    outcome = await _persistently(partial(_outcome, database, entry))
                    self.outcomes.append((entry, outcome))
            for name, workload in self.workloads.items():
                await workload.close(self._actor(database, environment, name))
            await self._read_all(database)

    async def _read_all(self, database: k2store.Database) -> None:
        rows = await _persistently(partial(_rows, database))
        self.shown += [Shown(row.key, row.version, row.value) for row in rows]
        self.final = {row.key: (row.version, row.value) for row in rows}
        keys = sorted({key for entry in self.journal.entries for key in entry.writes})
        for key in keys:
            for version in await _persistently(partial(database.history, key)):
                self.shown.append(Shown(key, version.at, version.value))

    async def _patiently(self, environment: Environment) -> _Opened:
        """A database that is open, however long the node takes to answer."""
        while True:
            database = self._connect(environment)
            try:
                await database.__aenter__()
            except k2store.K2Error:
                await asyncio.sleep(0.05)
            else:
                return _Opened(database)

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


async def _rows(database: k2store.Database) -> list[k2store.Record]:
    async with database.snapshot(strong=True) as view:
        return await view.scan(k2store.EVERYTHING).all()


async def _persistently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer: a view does not repeat what the node cannot serve at once."""
    while True:
        try:
            return await ask()
        except (k2store.Unavailable, k2store.ClockUncertain, k2store.Deadline):
            await asyncio.sleep(0.05)


class _Opened:
    """An open database, to be left with ``async with``."""

    def __init__(self, database: k2store.Database) -> None:
        self._database = database

    async def __aenter__(self) -> k2store.Database:
        return self._database

    async def __aexit__(self, *error: object) -> None:
        await self._database.__aexit__(None, None, None)


def plan_keeps_history(plan: Plan) -> bool:
    """Whether the run is shorter than what the node remembers."""
    return plan.node.retention_ns > 600 * SECOND_NS


def _told(error: BaseException) -> str:
    causes = [f"{type(error).__name__}: {error}"]
    while error.__cause__ is not None:
        error = error.__cause__
        causes.append(f"{type(error).__name__}: {error}")
    return " <- ".join(causes)


def without(plan: Plan, schedule: Sequence[Fault]) -> Plan:
    """The same plan with other faults."""
    return msgspec.structs.replace(plan, schedule=tuple(schedule))
