"""One swarm: seeds while there is time, the canary, and the sum."""

from __future__ import annotations

import collections
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from jepsen_like.sim.swarm import SWARM_PROBES, Summary
from jepsen_like.swarm.crew import Stuck, Task, together
from jepsen_like.swarm.ledger import Ledger, Line, Run
from jepsen_like.swarm.reach import OUT_OF_REACH
from jepsen_like.swarm.worker import (
    AMBUSH,
    CLUSTER,
    CONTESTED,
    KINDS,
    LIARS,
    NODE,
    SLOW,
    Answer,
)

FIRST_SEED: Final = 1_000_000
CANARY_EVERY: Final = 47
"""One seed in so many is run once more, by another process; it shares no factor with the mixture."""
CANARY_DISTANCE: Final = 4
MIXTURE: Final = (
    *(NODE, SLOW, CLUSTER, SLOW, AMBUSH),
    *(NODE, SLOW, AMBUSH, SLOW, CONTESTED),
    *(NODE, SLOW, AMBUSH, SLOW, CONTESTED),
    *(LIARS, SLOW, AMBUSH, CLUSTER, SLOW),
)
"""Which kind of plan a seed has, by its number."""
DECLARED: Final = tuple(sorted(set(SWARM_PROBES) - set(OUT_OF_REACH)))


class Report(msgspec.Struct, frozen=True):
    """What `k2 check swarm --json` prints last."""

    seeds: int
    transactions: int
    commits: int
    virtual_hours: float
    """Only seconds in which a transaction committed."""
    fault_kinds: dict[str, int]
    """Of each kind how many took effect."""
    probes_declared: int
    probes_hit: int
    probes_missed: list[str]
    anomalies: int
    failed_seeds: list[str]
    stuck_seeds: list[str]
    vacuous_seeds: list[str]
    """Seeds in which too little happened to prove anything; they count for nothing else."""
    canaries: int
    trace_mismatches: int
    first_seed: int
    next_seed: int
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether nothing went wrong; what was not reached is another question."""
        return not (self.failed_seeds or self.stuck_seeds or self.trace_mismatches)

    def run(self, version: str) -> Run:
        """The same in a line for the record."""
        return Run(
            version,
            self.first_seed,
            self.next_seed,
            self.seeds,
            self.transactions,
            self.virtual_hours,
            len(self.fault_kinds),
            self.probes_hit,
            self.probes_declared,
            self.anomalies,
            len(self.failed_seeds),
            len(self.stuck_seeds),
            len(self.vacuous_seeds),
            self.canaries,
            self.trace_mismatches,
            self.seconds,
        )


class Total:
    """What has come so far."""

    def __init__(self) -> None:
        """Nothing so far."""
        self.answers = 0
        self.next_seed = 0
        self.transactions = self.commits = self.load_ns = self.anomalies = 0
        self.kinds: collections.Counter[str] = collections.Counter()
        self.probes: collections.Counter[str] = collections.Counter()
        self.failed: list[str] = []
        self.stuck: list[str] = []
        self.vacuous: list[str] = []
        self.traces: dict[str, str] = {}
        self.canaries = self.mismatches = 0

    def take(self, task: Task, came: Answer | Stuck) -> Line:
        """Add one seed, or compare the second run of one; returns its line for the ledger."""
        name = f"{task.kind} {task.seed}"
        self.next_seed = max(self.next_seed, task.seed + 1)
        if isinstance(came, Stuck):
            self.stuck.append(name)
            return Line(task.kind, task.seed, "stuck", "", 0, 0, 0)
        summary = came.summary
        verdict = "failed" if summary.failures else "holds"
        if vacuous(summary):
            verdict = "vacuous"
        if not task.again:
            self._add(name, came)
        if _canary(task.seed):
            known = self.traces.setdefault(name, summary.trace)
            self.canaries += task.again
            if known != summary.trace:
                self.mismatches += 1
                verdict = "trace"
        return Line(
            task.kind,
            task.seed,
            verdict,
            summary.trace,
            summary.transactions,
            summary.commits,
            summary.load_ns,
        )

    def _add(self, name: str, came: Answer) -> None:
        summary = came.summary
        if vacuous(summary):
            self.vacuous.append(name)
            return
        self.answers += 1
        self.transactions += summary.transactions
        self.commits += summary.commits
        self.load_ns += summary.load_ns
        if came.kind != LIARS:
            # Clocks that lie may disturb the order of things; what they may not do has failed.
            self.anomalies += len(summary.anomalies)
        self.kinds.update(summary.fault_kinds)
        self.probes.update({each: count for each, count in summary.probes.items() if count})
        if summary.failures:
            self.failed.append(name)


def vacuous(summary: Summary) -> bool:
    """Whether all that is wrong with a seed is that too little happened."""
    failures = summary.failures
    return bool(failures) and all(what.startswith("vacuous") for what in failures)


def total_of(came: Iterable[tuple[Task, Answer | Stuck]]) -> Total:
    """The sum of some seeds."""
    total = Total()
    for task, each in came:
        total.take(task, each)
    return total


def _canary(seed: int) -> bool:
    return seed % CANARY_EVERY == 0


def _tasks(first: int, kinds: tuple[str, ...], more: Callable[[int], bool]) -> Iterator[Task]:
    """Seeds from `first` on while there is `more`; those of the canary twice, at some distance."""
    again: collections.deque[tuple[int, Task]] = collections.deque()
    seed = first
    while more(seed - first):
        if again and again[0][0] <= seed:
            yield again.popleft()[1]
            continue
        kind = kinds[0] if len(kinds) == 1 else MIXTURE[seed % len(MIXTURE)]
        task = Task(kind, seed)
        if _canary(seed):
            again.append((seed + CANARY_DISTANCE, Task(kind, seed, again=True)))
        yield task
        seed += 1
    for _, task in again:
        yield task


def swarm(
    *,
    minutes: float = 0.0,
    seeds: int = 0,
    jobs: int = 1,
    ledger: Ledger,
    first: int | None = None,
    kinds: tuple[str, ...] = KINDS,
    told: Callable[[Task, Answer | Stuck], None] = lambda _task, _came: None,
) -> Report:
    """Run for so many minutes, or so many seeds; `told` hears of each seed as it ends."""
    began_s = time.monotonic()
    start = ledger.next_seed(FIRST_SEED) if first is None else first
    total = Total()

    def more(begun: int) -> bool:
        if seeds and begun >= seeds:
            return False
        return not minutes or time.monotonic() - began_s < minutes * 60

    for task, came in together(_tasks(start, kinds, more), jobs, random.Random(start)):
        ledger.add(total.take(task, came))
        told(task, came)
    missed = [name for name in DECLARED if not total.probes[name]]
    return Report(
        total.answers,
        total.transactions,
        total.commits,
        round(total.load_ns / 3.6e12, 4),
        dict(sorted(total.kinds.items())),
        len(DECLARED),
        len(DECLARED) - len(missed),
        missed,
        total.anomalies,
        sorted(total.failed),
        sorted(total.stuck),
        sorted(total.vacuous),
        total.canaries,
        total.mismatches,
        start,
        max(start, total.next_seed),
        round(time.monotonic() - began_s, 1),
    )
