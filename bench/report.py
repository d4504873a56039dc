"""What is told of the findings: a document for programs, and tables for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from bench import etcd
from bench.campaign import ETCD_IN_FLIGHT, Findings
from bench.node import CLOCK_BOUND_NS
from bench.samples import median, rounded
from bench.workloads import ETCD_PREFIX, ETCD_RANDOM_BYTES, ETCD_VALUE_BYTES, KEY_BYTES, VALUE_BYTES

if TYPE_CHECKING:
    from bench.plan import Measured
    from k2store.cli.output import Output

MOST_IN_FLIGHT = 256


class Figures:
    """The medians over the runs."""

    def __init__(self, measured: Iterable[Measured]) -> None:
        self._runs: dict[tuple[str, int], list[Measured]] = {}
        for one in measured:
            self._runs.setdefault((one.workload, one.in_flight), []).append(one)

    def rows(self) -> Iterable[tuple[tuple[str, int], list[Measured]]]:
        """The runs of each workload at each number in flight, in the order they were measured."""
        return self._runs.items()

    def get(
        self, workload: str, in_flight: int, figure: Callable[[Measured], float]
    ) -> float | None:
        """The median of one figure; None when it was not measured."""
        runs = self._runs.get((workload, in_flight))
        return None if runs is None else rounded(median([figure(one) for one in runs]))


def document(findings: Findings) -> dict[str, object]:
    """Everything, as one JSON object; None stands where something was not measured."""
    settings, residence, figures = findings.settings, findings.residence, Figures(findings.measured)
    assert residence is not None
    full = [one for one in findings.measured if one.in_flight == MOST_IN_FLIGHT]
    etcd_per_s = median([one.per_s for one in findings.etcd]) if findings.etcd else None
    ours = [one.per_s for one in findings.beside_etcd]
    return {
        "interactive_txn_per_s": figures.get("interactive", MOST_IN_FLIGHT, _per_s),
        "one_shot_per_s": figures.get("one-shot", MOST_IN_FLIGHT, _per_s),
        "snapshot_reads_per_s": figures.get("snapshot", MOST_IN_FLIGHT, _per_s),
        "scan_rows_per_s": figures.get("scan", 16, _per_s),
        "single_client_p50_ms": figures.get("interactive", 1, _p50_without_wait),
        "single_client_one_shot_p50_ms": figures.get("one-shot", 1, _p50_without_wait),
        "single_client_with_wait_p50_ms": figures.get("interactive", 1, _p50),
        "single_client_one_shot_with_wait_p50_ms": figures.get("one-shot", 1, _p50),
        "commit_wait_p50_ms": figures.get("interactive", 1, _wait_p50),
        "commit_wait_one_shot_p50_ms": figures.get("one-shot", 1, _wait_p50),
        "etcd_writes_per_s": None if etcd_per_s is None else rounded(etcd_per_s),
        "one_shot_etcd_sized_per_s": rounded(median(ours)) if ours else None,
        "ratio_one_shot_to_etcd": _ratio(findings),
        "in_flight": MOST_IN_FLIGHT,
        "fsync": True,
        "clock_bound_ns": CLOCK_BOUND_NS,
        "keys": settings.keys,
        "key_bytes": KEY_BYTES,
        "value_bytes": VALUE_BYTES,
        "bytes_per_key": rounded(residence.bytes_per_key),
        "bytes_per_key_restarted": rounded(residence.bytes_per_key_restarted),
        "fill_s": rounded(residence.fill_s),
        "restart_s": rounded(residence.restart_s),
        "worst_pause_ms": rounded(max(one.gap_max_ms for one in full)) if full else None,
        "worst_latency_ms": rounded(max(one.latency.max_ms for one in full)) if full else None,
        "server_cpu_us_per_transaction": _by_workload(figures, lambda one: one.server_us),
        "client_cpu_us_per_transaction": _by_workload(figures, lambda one: one.client_us),
        "fdatasync_p50_us": rounded(findings.machine.fdatasync_p50_us),
        "struct_ns": rounded(findings.machine.struct_ns),
        "runs": settings.runs,
        "seconds": settings.seconds,
        "server_core": findings.cores.server,
        "load_core": findings.cores.load,
        "others_cores_max": rounded(max((o.others_cores for o in findings.measured), default=0.0)),
        "stolen_cores_max": rounded(max((o.stolen_cores for o in findings.measured), default=0.0)),
        "machine": msgspec.to_builtins(findings.machine),
        "workloads": [_builtins(one) for one in findings.measured],
        "etcd": [msgspec.to_builtins(one) for one in findings.etcd] or None,
        "beside_etcd": [_builtins(one) for one in findings.beside_etcd] or None,
    }


def print_tables(findings: Findings, output: Output) -> None:
    """The same for people."""
    machine, settings, residence = findings.machine, findings.settings, findings.residence
    assert residence is not None
    output.record(
        {},
        f"{machine.processor}, {machine.cores} cores, {machine.python}, {machine.filesystem}; "
        f"calibration: a Struct {machine.struct_ns:.0f} ns, fdatasync p50 "
        f"{machine.fdatasync_p50_us:.0f} µs, p99 {machine.fdatasync_p99_us:.0f} µs",
    )
    output.record(
        {},
        f"node on core {findings.cores.server}, load on core {findings.cores.load}; every commit "
        f"synced; {settings.keys:,} keys of {KEY_BYTES} bytes, values of {VALUE_BYTES}; declared "
        f"clock bound {CLOCK_BOUND_NS / 1e6:g} ms; medians of {settings.runs} runs of "
        f"{settings.seconds:g} s\n",
    )
    output.table("workloads", _COLUMNS, [_row(*one) for one in Figures(findings.measured).rows()])
    output.record(
        {},
        f"\n{residence.bytes_per_key:.0f} bytes a key beyond key and value "
        f"({residence.bytes_per_key_restarted:.0f} after a restart); filled in "
        f"{residence.fill_s:.1f} s; after kill -9 back to serving in {residence.restart_s:.2f} s",
    )
    if findings.etcd:
        output.record({}, "")
        output.table("peer", ("store", "writes_per_s", "server_us", "note"), _peers(findings))
        output.record({}, f"ratio {_ratio(findings)}")
    for warning in warnings(findings):
        output.record({}, f"! {warning}")


def warnings(findings: Findings) -> list[str]:
    """What makes the figures doubtful."""
    found = []
    others = max((one.others_cores for one in findings.measured), default=0.0)
    stolen = max((one.stolen_cores for one in findings.measured), default=0.0)
    if findings.cores.shared:
        found.append("node and load share one core: rates are about half of what they would be")
    if others > 0.15 or stolen > 0.05:
        found.append(
            f"the machine was not idle: others kept up to {others:.2f} cores busy, "
            f"the host took up to {stolen:.2f}"
        )
    if findings.machine.filesystem in {"tmpfs", "ramfs"}:
        found.append("the data lies in memory: syncs cost nothing (--data names another folder)")
    return found


def _ratio(findings: Findings) -> float | None:
    if not findings.etcd:
        return None
    theirs = median([one.per_s for one in findings.etcd])
    return rounded(median([one.per_s for one in findings.beside_etcd]) / theirs)


def _peers(findings: Findings) -> list[tuple[object, ...]]:
    sizes = f"keys of {len(ETCD_PREFIX) + ETCD_RANDOM_BYTES} bytes, values of {ETCD_VALUE_BYTES}"
    theirs = [one.per_s for one in findings.etcd]
    ours = [one.per_s for one in findings.beside_etcd]
    return [
        (
            f"etcd {findings.etcd[0].version}",
            rounded(median(theirs)),
            rounded(median([one.server_us for one in findings.etcd])),
            f"check perf --load=xl: {sizes}, 1000 clients, at most {etcd.LIMIT_PER_S}/s",
        ),
        (
            "k2store",
            rounded(median(ours)),
            rounded(median([one.server_us for one in findings.beside_etcd])),
            f"one-shot puts: {sizes}, {ETCD_IN_FLIGHT} in flight",
        ),
    ]


_COLUMNS = (
    "workload",
    "in_flight",
    "per_s",
    "p50_ms",
    "p99_ms",
    "max_ms",
    "no_wait_p50_ms",
    "no_wait_p99_ms",
    "wait_p50_ms",
    "gap_max_ms",
    "server_us",
    "client_us",
    "retries",
)


def _row(place: tuple[str, int], runs: list[Measured]) -> tuple[object, ...]:
    def middle(figure: Callable[[Measured], float]) -> float:
        return rounded(median([figure(one) for one in runs]))

    return (
        *place,
        middle(_per_s),
        middle(_p50),
        middle(lambda one: one.latency.p99_ms),
        rounded(max(one.latency.max_ms for one in runs)),
        middle(_p50_without_wait),
        middle(lambda one: one.without_wait.p99_ms),
        middle(_wait_p50),
        rounded(max(one.gap_max_ms for one in runs)),
        middle(lambda one: one.server_us),
        middle(lambda one: one.client_us),
        sum(sum(one.failures.values()) for one in runs),
    )


def _by_workload(
    figures: Figures, figure: Callable[[Measured], float]
) -> dict[str, dict[str, float]]:
    """{workload: {in flight: median}}."""
    found: dict[str, dict[str, float]] = {}
    for (workload, in_flight), runs in figures.rows():
        value = rounded(median([figure(one) for one in runs]))
        found.setdefault(workload, {})[str(in_flight)] = value
    return found


def _builtins(one: Measured) -> object:
    """A measurement with four figures each."""
    return _rounded(msgspec.to_builtins(one))


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return rounded(value) if isinstance(value, float) else value


def _per_s(one: Measured) -> float:
    return one.per_s


def _p50(one: Measured) -> float:
    return one.latency.p50_ms


def _p50_without_wait(one: Measured) -> float:
    return one.without_wait.p50_ms


def _wait_p50(one: Measured) -> float:
    return one.commit_wait.p50_ms
