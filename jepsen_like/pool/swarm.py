"""Many seeds of the pool, spread over processes and summed up."""

from __future__ import annotations

import collections
import concurrent.futures
import multiprocessing
from collections.abc import Iterator, Sequence

import msgspec

from jepsen_like.pool.scene import VACUOUS, run
from jepsen_like.sim.swarm import Summary, summary_of


class Report(msgspec.Struct, frozen=True):
    """Many seeds in sum: what `k2 check pool --json` prints last.

    `vacuous` seeds, in which too little happened to prove anything, are not failures, but do not count
    for anything either. `done` and `refused` are by kind of operation and reason.
    """

    seeds: int
    operations: int
    done: int
    unknown: int
    faults: int
    fault_kinds: dict[str, int]
    counts: dict[str, int]
    compared: int
    reads: int
    anomalies: int
    failures: int
    vacuous: int
    failed_seeds: list[int]
    virtual_hours: float
    seconds: float


def one(seed: int) -> Summary:
    """Run a seed."""
    return summary_of(run(seed))


def each(seeds: Sequence[int], jobs: int) -> Iterator[Summary]:
    """Summaries in the order in which the seeds finish."""
    if jobs <= 1:
        yield from map(one, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as workers:
        waiting = [workers.submit(one, seed) for seed in seeds]
        try:
            for future in concurrent.futures.as_completed(waiting):
                yield future.result()
        finally:
            for future in waiting:
                future.cancel()


def real_failures(summary: Summary) -> list[str]:
    """What failed, other than that too little happened."""
    return [what for what in summary.failures if not what.startswith(VACUOUS)]


def is_vacuous(summary: Summary) -> bool:
    """Whether nothing failed but that too little happened."""
    return bool(summary.failures) and not real_failures(summary)


def summed(summaries: Sequence[Summary], seconds: float) -> Report:
    """All in one."""
    kinds: collections.Counter[str] = collections.Counter()
    counts: collections.Counter[str] = collections.Counter()
    for summary in summaries:
        kinds.update(summary.fault_kinds)
        counts.update(summary.probes)
    vacuous = [summary for summary in summaries if is_vacuous(summary)]
    failed = [summary for summary in summaries if summary.failures and summary not in vacuous]
    return Report(
        seeds=len(summaries),
        operations=sum(summary.transactions for summary in summaries),
        done=sum(summary.commits for summary in summaries),
        unknown=sum(summary.unknown for summary in summaries),
        faults=kinds.total(),
        fault_kinds=dict(sorted(kinds.items())),
        counts=dict(sorted(counts.items())),
        compared=counts["compare something"],
        reads=counts["read"],
        anomalies=sum(len(summary.anomalies) for summary in summaries),
        failures=len(failed),
        vacuous=len(vacuous),
        failed_seeds=sorted(summary.seed for summary in failed),
        virtual_hours=round(sum(summary.virtual_ns for summary in summaries) / 3.6e12, 3),
        seconds=round(seconds, 3),
    )
