"""Many seeds: spread over processes, summed up, compared between processes, shortened.

A worker gets one seed at a time and answers with a summary; nothing but numbers and sentences
crosses between processes. The determinism canary runs a seed in a fresh process under another
hash seed: its trace must be the same to the last event.
"""

from __future__ import annotations

import collections
import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from jepsen_like.sim import cluster as clusters
from jepsen_like.sim.agreement import CLIENT_PROBES
from jepsen_like.sim.cluster.states import PAIR_PROBES
from jepsen_like.sim.plan import Load
from jepsen_like.sim.scene import run, without
from jepsen_like.sim.stage import Result
from k2store.testing.simulation import SIMULATOR_PROBES, Fault, shrink
from k2store.testing.simulation.cluster_probes import CLUSTER_PROBES
from k2store.testing.simulation.node_probes import NODE_PROBES

ALL_PROBES: Final = (*SIMULATOR_PROBES, *NODE_PROBES, *CLIENT_PROBES)
CLUSTER_ALL_PROBES: Final = (*ALL_PROBES, *CLUSTER_PROBES)
SWARM_PROBES: Final = (*CLUSTER_ALL_PROBES, *PAIR_PROBES)
SHRINK_RUNS_MAX: Final = 60
_CANARY_LIMIT_S: Final = 300
_CLUSTER: Final = "--cluster"

P = TypeVar("P", bound=Load)


class Summary(msgspec.Struct, frozen=True):
    """One seed in short; see `scene.Result`."""

    seed: int
    trace: str
    failures: tuple[str, ...]
    anomalies: tuple[str, ...]
    inside: tuple[str, ...]
    transactions: int
    commits: int
    unknown: int
    conflicts: int
    fault_kinds: dict[str, int]
    probes: dict[str, int]
    virtual_ns: int
    load_ns: int
    seconds: float


class Report(msgspec.Struct, frozen=True):
    """Many seeds in sum: what `k2 check sim --json` prints last."""

    seeds: int
    transactions: int
    commits: int
    virtual_hours: float
    conflicts: int
    unknown_outcomes: int
    faults: int
    fault_kinds: dict[str, int]
    probes_hit: int
    probes_missed: list[str]
    anomalies: int
    failures: int
    failed_seeds: list[int]
    seconds: float


def _run(seed: int, only: Sequence[str], *, honest: bool = True, cluster: bool = False) -> Result:
    return (clusters.run if cluster else run)(seed, only, honest=honest)


def one(
    seed: int, only: Sequence[str] = (), *, honest: bool = True, cluster: bool = False
) -> Summary:
    """Run a seed of one node, or of a cluster."""
    return summary_of(_run(seed, only, honest=honest, cluster=cluster))


def summary_of(result: Result) -> Summary:
    """A run in short."""
    return Summary(
        result.seed,
        result.trace,
        tuple(result.failures),
        tuple(result.anomalies),
        tuple(result.inside),
        result.transactions,
        result.commits,
        result.unknown,
        result.conflicts,
        result.fault_kinds,
        result.probes,
        result.virtual_ns,
        result.load_ns,
        result.seconds,
    )


def each(
    seeds: Iterable[int],
    only: Sequence[str] = (),
    *,
    jobs: int = 1,
    honest: bool = True,
    cluster: bool = False,
) -> Iterator[Summary]:
    """Summaries in the order in which the seeds finish."""
    if jobs <= 1:
        for seed in seeds:
            yield one(seed, only, honest=honest, cluster=cluster)
        return
    # Spawned, not forked: a fresh interpreter has its own hash seed and nothing of ours.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = [
            pool.submit(one, seed, tuple(only), honest=honest, cluster=cluster) for seed in seeds
        ]
        try:
            for future in concurrent.futures.as_completed(waiting):
                yield future.result()
        finally:
            for future in waiting:
                future.cancel()


def summed(
    summaries: Sequence[Summary], seconds: float, expected: Sequence[str] = ALL_PROBES
) -> Report:
    """All in one; `expected` are the probes that count."""
    kinds: collections.Counter[str] = collections.Counter()
    probes: collections.Counter[str] = collections.Counter()
    for summary in summaries:
        kinds.update(summary.fault_kinds)
        probes.update(summary.probes)
    return Report(
        seeds=len(summaries),
        transactions=sum(summary.transactions for summary in summaries),
        commits=sum(summary.commits for summary in summaries),
        virtual_hours=round(sum(summary.virtual_ns for summary in summaries) / 3.6e12, 3),
        conflicts=sum(summary.conflicts for summary in summaries),
        unknown_outcomes=sum(summary.unknown for summary in summaries),
        faults=kinds.total(),
        fault_kinds=dict(sorted(kinds.items())),
        probes_hit=sum(probes[name] > 0 for name in expected),
        probes_missed=[name for name in expected if not probes[name]],
        anomalies=sum(len(summary.anomalies) for summary in summaries),
        failures=sum(bool(summary.failures) for summary in summaries),
        failed_seeds=sorted(summary.seed for summary in summaries if summary.failures),
        seconds=round(seconds, 3),
    )


def canary(
    seeds: Sequence[int], only: Sequence[str] = (), *, cluster: bool = False
) -> dict[int, tuple[str, str]]:
    """Seeds whose trace differs between this process and one with another hash seed."""
    here = {seed: _run(seed, only, cluster=cluster).trace for seed in seeds}
    there = traces_elsewhere(seeds, only, cluster=cluster)
    return {seed: (here[seed], there[seed]) for seed in seeds if here[seed] != there[seed]}


def traces_elsewhere(
    seeds: Sequence[int], only: Sequence[str] = (), *, cluster: bool = False
) -> dict[int, str]:
    """Trace hashes of seeds, from a process of its own under another hash seed."""
    own = os.environ.get("PYTHONHASHSEED", "")
    other = "4711" if own != "4711" else "1147"
    arguments = [*(f"--workload={name}" for name in only), *map(str, seeds)]
    if cluster:
        arguments.append(_CLUSTER)
    done = subprocess.run(
        [sys.executable, "-m", "jepsen_like.sim.swarm", *arguments],
        env=os.environ | {"PYTHONHASHSEED": other},
        capture_output=True,
        text=True,
        timeout=_CANARY_LIMIT_S,
        check=True,
    )
    lines = (line.split() for line in done.stdout.splitlines())
    return {int(seed): trace for seed, trace in lines}


def shortest(
    plan: P,
    play: Callable[[P], Result],
    *,
    tried: Callable[[int, bool], None] | None = None,
) -> list[Fault]:
    """A shortest part of a failing plan's faults with which it still fails; ValueError if it holds."""

    def fails(schedule: list[Fault]) -> bool:
        result = play(without(plan, schedule))
        # With fewer faults a run may be vacuous; that is not the failure that is looked for.
        real = [what for what in result.failures if not what.startswith("vacuous")]
        if tried is not None:
            tried(len(schedule), bool(real))
        return bool(real)

    return shrink(list(plan.schedule), fails, SHRINK_RUNS_MAX)


def timed(summaries: Iterable[Summary]) -> tuple[list[Summary], float]:
    """All summaries, and the seconds that passed."""
    began_s = time.perf_counter()
    return list(summaries), time.perf_counter() - began_s


def _main(arguments: Sequence[str]) -> None:
    only = [one.partition("=")[2] for one in arguments if one.startswith("--workload=")]
    for seed in arguments:
        if not seed.startswith("--"):
            trace = _run(int(seed), only, cluster=_CLUSTER in arguments).trace
            sys.stdout.write(f"{seed} {trace}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _main(sys.argv[1:])
