"""One seed: build the machines, let them run, heal them, read everything, judge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TextIO, TypeVar

import msgspec

import k2store
from jepsen_like.history import Recorder
from jepsen_like.sim.actor import Actor
from jepsen_like.sim.journal import Entry, Journal
from jepsen_like.sim.plan import SERVER, Plan, draw
from jepsen_like.sim.replay import Shown, final_state, place_unknown, replay
from jepsen_like.sim.watching import Watcher, check_streams
from jepsen_like.workloads import WORKLOADS, Workload
from k2store.testing.simulation import (
    SECOND_NS,
    SIMULATOR_PROBES,
    Engine,
    Environment,
    Fault,
    Simulation,
    SimulationError,
)
from k2store.testing.simulation.node import PORT, Node, StorageFailed, stamp_time_ns

T = TypeVar("T")

COMMITS_MIN: Final = 100
SETUP_LIMIT_NS: Final = 20 * SECOND_NS
FINISH_LIMIT_NS: Final = 60 * SECOND_NS
"""From the last fault to the end of every client: the bound of liveness."""
CLOSE_LIMIT_NS: Final = 60 * SECOND_NS
RESTART_NS: Final = SECOND_NS // 5
FAIL_STOP: Final = (StorageFailed, k2store.ClockUncertain)
"""What may end a node: its disk refuses, or its clock is too uncertain to begin."""
_UNJOURNALED: Final = b"lease/"


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
    trace_sink: TextIO | None = None,
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
        found += self._outcomes_agree()
        found += self.journal.broken_time
        found += replay(self.journal)
        found += self._store_agrees()
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
            **_client_probes(entries),
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

    def _machine(self, name: str) -> object:
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

    def _client(self, name: str) -> object:
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
                    outcome = await _persistently(
                        lambda entry=entry: database.outcome(
                            entry.txn, anchor=entry.anchor, at=entry.at
                        )
                    )
                    self.outcomes.append((entry, outcome))
            for name, workload in self.workloads.items():
                await workload.close(self._actor(database, environment, name))
            await self._read_all(database)

    async def _read_all(self, database: k2store.Database) -> None:
        rows = await _persistently(lambda: _rows(database))
        self.shown += [Shown(row.key, row.version, row.value) for row in rows]
        self.final = {row.key: (row.version, row.value) for row in rows}
        keys = sorted({key for entry in self.journal.entries for key in entry.writes})
        for key in keys:
            for version in await _persistently(lambda key=key: database.history(key)):
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

    # -------------------------------------------------------------------------------- checks

    def _outcomes_agree(self) -> list[str]:
        """What the store said of unknown transactions, against what it holds of them."""
        problems: list[str] = []
        for entry, outcome in self.outcomes:
            if outcome.state == "committed" and entry.outcome != "ok":
                if not any(value is not None for value in entry.writes.values()):
                    entry.at, entry.outcome = outcome.at, "ok"
                elif self._keeps_history():
                    problems.append(
                        f"transaction {entry.number} is committed at {outcome.at}, as the store "
                        "says, but nothing of it is there"
                    )
                else:
                    entry.at, entry.outcome = outcome.at, "ok"
            elif outcome.state == "committed" and entry.at != outcome.at:
                problems.append(
                    f"transaction {entry.number} is committed at {outcome.at}, as the store says, "
                    f"and at {entry.at}, as its rows say"
                )
            elif outcome.state == "aborted" and entry.outcome == "ok":
                problems.append(
                    f"transaction {entry.number} is aborted, as the store says, but its rows are "
                    f"there at {entry.at}"
                )
        return problems

    def _store_agrees(self) -> list[str]:
        """The rows at the end, and the history of each key, against the replay."""
        problems: list[str] = []
        expected = {
            key: row for key, row in final_state(self.journal).items() if row[1] is not None
        }
        for key in sorted({*expected, *self.final}):
            if key.startswith(_UNJOURNALED):
                continue
            if expected.get(key) != self.final.get(key):
                problems.append(
                    f"in the end the store holds {self.final.get(key)} at {key!r}, not "
                    f"{expected.get(key)}"
                )
        shown = {(row.key, row.version) for row in self.shown}
        committed = [entry for entry in self.journal.entries if entry.outcome == "ok"]
        if self._keeps_history():
            for entry in committed:
                for key in entry.writes:
                    if (key, entry.at) not in shown:
                        problems.append(
                            f"{entry.what} {entry.number}, acknowledged at {entry.at}, is not in "
                            f"the history of {key!r}"
                        )
        known = {
            (key, entry.at): value for entry in committed for key, value in entry.writes.items()
        }
        for row in self.shown:
            if (row.key, row.version) not in known or known[row.key, row.version] != row.value:
                if not row.key.startswith(_UNJOURNALED):
                    problems.append(f"nobody committed {row.value!r} at {row.key!r}, {row.version}")
        return problems[:20]

    def _keeps_history(self) -> bool:
        return self.plan.node.retention_ns > 600 * SECOND_NS


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


def _client_probes(entries: Sequence[Entry]) -> dict[str, int]:
    probes = dict.fromkeys(CLIENT_PROBES, 0)
    for entry in entries:
        if entry.error == "OutcomeUnknown" or (entry.outcome == "open" and entry.writes):
            probes["client.outcome_unknown"] += 1
        if entry.error and entry.outcome == "ok":
            probes["client.unknown_was_committed"] += 1
        if entry.error == "OutcomeUnknown" and entry.outcome == "unknown":
            probes["client.unknown_was_aborted"] += 1
        if not entry.ended and entry.outcome == "ok":
            probes["client.died_and_committed"] += 1
        if not entry.ended and entry.writes and entry.outcome == "open":
            probes["client.died_and_left_nothing"] += 1
        if entry.refuted:
            probes["client.condition_failed"] += 1
        if entry.stale and entry.at:
            probes["client.read_the_past"] += 1
    return probes


CLIENT_PROBES: Final = (
    "client.condition_failed",
    "client.died_and_committed",
    "client.died_and_left_nothing",
    "client.outcome_unknown",
    "client.read_the_past",
    "client.unknown_was_aborted",
    "client.unknown_was_committed",
)
"""What clients have met, from the journal."""


def _told(error: BaseException) -> str:
    causes = [f"{type(error).__name__}: {error}"]
    while error.__cause__ is not None:
        error = error.__cause__
        causes.append(f"{type(error).__name__}: {error}")
    return " <- ".join(causes)


def without(plan: Plan, schedule: Sequence[Fault]) -> Plan:
    """The same plan with other faults."""
    return msgspec.structs.replace(plan, schedule=tuple(schedule))
