"""What is told of the findings: a document for programs, and tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from bench.geo.commits import SHAPES
from bench.geo.scene import CLOCK_BOUND_MS, EPOCH_MS, PLACES, REGIONS
from bench.samples import rounded

if TYPE_CHECKING:
    from bench.geo.commits import Cell
    from bench.geo.failover import Failover
    from bench.geo.reads import ReplicaReads, StrongReads
    from bench.geo.visibility import Delay, Seen
    from bench.machine import Machine
    from k2store.cli.output import Output

FARTHEST = "sin"
"""The reader whose visibility stands for all; the others' are beside."""

BUSY_CORES = 0.3


class Findings(msgspec.Struct, kw_only=True):
    """Everything that was measured; None where it was left out.

    delays_ms  one way between regions
    load       average number of runnable processes, before and after: the bench's own are in it
    """

    machine: Machine
    wan: str
    delays_ms: dict[str, float]
    load: list[float] = msgspec.field(default_factory=list)
    commits: list[Cell] = msgspec.field(default_factory=list)
    visibility: list[Delay] = msgspec.field(default_factory=list)
    visibility_remote: list[Delay] = msgspec.field(default_factory=list)
    seen: Seen | None = None
    strong: StrongReads | None = None
    reads: ReplicaReads | None = None
    failover: Failover | None = None


def document(found: Findings) -> dict[str, object]:
    """Everything, as one JSON object."""
    seen, strong, failover = found.seen, found.strong, found.failover
    assert seen is not None
    assert strong is not None
    assert failover is not None
    assert found.reads is not None
    return {
        "commit_round_trips": _by_shape(found.commits, "round_trips"),
        "commit_latency_ms": _by_shape(found.commits, "latency_ms"),
        "commit_requests_elsewhere": _by_shape(found.commits, "forwarded"),
        "visibility_delay_ms": _one_of(found.visibility),
        "visibility_delay_remote_writers_ms": _one_of(found.visibility_remote),
        "failover_s": {
            name: rounded(getattr(failover, name)) for name in ("p50", "p99", "max", "kills")
        },
        "acknowledged_lost": failover.acknowledged_lost,
        "stale_reads": failover.stale_reads + strong.stale,
        "replica_read_ratio": rounded(found.reads.ratio),
        "replica_read_cpu_ratio": rounded(found.reads.ratio_cpu),
        "half_transactions_seen": seen.torn,
        "staleness_understated": seen.understated,
        "views_backwards": seen.backwards,
        "regions": list(REGIONS),
        "one_way_ms": found.delays_ms,
        "wan": found.wan,
        "clock_bound_ms": CLOCK_BOUND_MS,
        "epoch_ms": EPOCH_MS,
        "fsync": True,
        "load_average": found.load,
        "machine": _rounded(msgspec.to_builtins(found.machine)),
        "commits": _rounded(msgspec.to_builtins(found.commits)),
        "visibility": _rounded(msgspec.to_builtins(found.visibility)),
        "visibility_remote_writers": _rounded(msgspec.to_builtins(found.visibility_remote)),
        "views": seen.views,
        "strong_reads": _rounded(msgspec.to_builtins(strong)),
        "replica_reads": _rounded(msgspec.to_builtins(found.reads)),
        "failover": _rounded(msgspec.to_builtins(failover)),
    }


def print_tables(found: Findings, output: Output) -> None:
    """The same for people."""
    machine = found.machine
    load = " to ".join(f"{one:.1f}" for one in found.load)
    links = ", ".join(f"{link} {delay_ms:g} ms" for link, delay_ms in found.delays_ms.items())
    output.record(
        {},
        f"{machine.processor}, {machine.cores} cores, {machine.python}, {machine.filesystem}; "
        f"fdatasync p50 {machine.fdatasync_p50_us:.0f} µs, p99 {machine.fdatasync_p99_us:.0f} µs; "
        f"load average {load}\nnetwork: {found.wan}; one way {links}; declared clock bound "
        f"{CLOCK_BOUND_MS:g} ms; epoch {EPOCH_MS:g} ms; every commit synced",
    )
    output.record({}, "\nround trips of a transaction (median latency, ms)\n")
    cells = {(cell.shape, cell.place): cell for cell in found.commits}
    output.table(
        "commits",
        ("from", *(shape.name for shape in SHAPES)),
        [(place.name, *_row(cells, place.name)) for place in PLACES],
    )
    output.record({}, "\nfrom the acknowledgement at home until a replica shows it, ms\n")
    output.table(
        "visibility",
        ("reader", "writers", "one_way", "p50", "p99", "max", "stated_age_p50", "longest_remote"),
        [
            _delay_row(delay, writers)
            for delays, writers in (
                (found.visibility, "at home"),
                (found.visibility_remote, "at home and elsewhere"),
            )
            for delay in delays
        ],
    )
    for text in _sentences(found):
        output.record({}, "\n" + text)
    for warning in warnings(found):
        output.record({}, f"! {warning}")


def warnings(found: Findings) -> list[str]:
    """What makes the figures doubtful, or is wrong."""
    said = []
    if found.reads is not None and found.reads.others_cores_max > BUSY_CORES:
        said.append(
            f"the machine was not idle: others kept up to {found.reads.others_cores_max:.2f} "
            "cores busy; latencies and delays are longer than they would be"
        )
    for cell in found.commits:
        limit = next(shape.limit for shape in SHAPES if shape.name == cell.shape)
        if cell.keyspace != "all" and cell.round_trips > limit + 0.3:
            said.append(
                f"{cell.shape}, {cell.place}: {cell.round_trips:.1f} round trips, at most {limit}"
            )
    if found.machine.filesystem in {"tmpfs", "ramfs"}:
        said.append("the data lies in memory: syncs cost nothing (--data names another folder)")
    return said


def broken(found: Findings) -> list[str]:
    """Promises that the run has seen broken; whatever else was measured then means nothing."""
    counts: Mapping[str, int] = {}
    if found.failover is not None:
        counts = {
            "acknowledged writes were lost": found.failover.acknowledged_lost,
            "reads were stale": found.failover.stale_reads,
        }
    if found.strong is not None:
        counts = {**counts, "strong local reads were stale": found.strong.stale}
    if found.seen is not None:
        counts = {
            **counts,
            "views had half a transaction": found.seen.torn,
            "views were older than they said": found.seen.understated,
            "views went back in time": found.seen.backwards,
        }
    return [f"{count} {what}" for what, count in counts.items() if count]


def _sentences(found: Findings) -> list[str]:
    said = []
    if found.strong is not None:
        strong = found.strong
        said.append(
            f"strong reads in {FARTHEST} of keys at home {strong.one_way:g} ms away: waited for "
            f"there p50 {strong.local_p50:.0f} ms, p99 {strong.local_p99:.0f} ms; asked at the "
            f"leader p50 {strong.leader_p50:.0f} ms, p99 {strong.leader_p99:.0f} ms"
        )
    if found.reads is not None:
        reads = found.reads
        said.append(
            f"stale reads of a replica {reads.replica_per_s:,.0f} a second "
            f"({reads.replica_us:.2f} µs of CPU each), of a node that is alone "
            f"{reads.alone_per_s:,.0f} ({reads.alone_us:.2f} µs): ratio {reads.ratio:.2f}, "
            f"by CPU {reads.ratio_cpu:.2f}"
        )
    if found.failover is not None:
        failover = found.failover
        said.append(
            f"{failover.kills} leaders killed: first write accepted after p50 {failover.p50:.2f} s, "
            f"p99 {failover.p99:.2f} s; of {failover.acknowledged:,} acknowledged writes "
            f"{failover.acknowledged_lost} lost; of {failover.reads:,} reads "
            f"{failover.stale_reads} stale"
        )
    if found.seen is not None:
        seen = found.seen
        said.append(
            f"{seen.views:,} views of replicas: {seen.torn} with half a transaction, "
            f"{seen.understated} older than they said, {seen.backwards} older than the one before"
        )
    return said


def _row(cells: Mapping[tuple[str, str], Cell], place: str) -> list[str]:
    found = [cells[shape.name, place] for shape in SHAPES]
    return [f"{abs(cell.round_trips):.1f} ({cell.latency_ms:.0f})" for cell in found]


def _delay_row(delay: Delay, writers: str) -> tuple[object, ...]:
    return (
        delay.reader,
        writers,
        delay.one_way,
        rounded(delay.p50),
        rounded(delay.p99),
        rounded(delay.max),
        rounded(delay.staleness_p50),
        rounded(delay.remote_txn_ms) or None,
    )


def _by_shape(cells: Sequence[Cell], figure: str) -> dict[str, dict[str, float]]:
    """{shape: {place: figure}}."""
    found: dict[str, dict[str, float]] = {}
    for cell in cells:
        found.setdefault(cell.shape, {})[cell.place] = round(getattr(cell, figure), 2)
    return found


def _one_of(delays: Sequence[Delay]) -> dict[str, float]:
    delay = next(delay for delay in delays if delay.reader == FARTHEST)
    figures = {"p50": delay.p50, "p99": delay.p99, "one_way": delay.one_way, "epoch": delay.epoch}
    if delay.remote_txn_ms:
        figures["remote_txn"] = delay.remote_txn_ms
    return {name: rounded(value) for name, value in figures.items()}


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return rounded(value) if isinstance(value, float) else value
