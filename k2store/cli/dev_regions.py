"""`k2 dev` in regions: a local cluster, and a table of its nodes while it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from k2store.cli.verb import output
from k2store.testing.cluster import LocalCluster, Look, local_cluster
from truetime.timestamp import time_ns

if TYPE_CHECKING:
    from rich.table import Table

    from k2store.testing.wan import Kind

_FIGURES: Final = (
    "partitions",
    "safe_lag_ns",
    "clock_bound_ns",
    "commits",
    "sessions",
    "transactions",
    "uptime_s",
)


def run(
    regions: Sequence[str],
    *,
    nodes_per_region: int,
    wan: Kind | Literal["auto"] | None,
    data: str | None,
    interval_s: float,
) -> None:
    """Run the cluster until SIGINT or SIGTERM; both end it in an orderly way."""
    began_s = time.monotonic()
    with (
        contextlib.suppress(KeyboardInterrupt),
        _terminated(),
        local_cluster(regions, nodes_per_region=nodes_per_region, wan=wan, path=data) as cluster,
    ):
        _say_ready(cluster, time.monotonic() - began_s)
        _watch(cluster, interval_s)
    output().note("stopped")


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does."""

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_ready(cluster: LocalCluster, start_s: float) -> None:
    configs = {region: str(cluster.client_config(region)) for region in cluster.regions}
    everywhere = str(cluster.client_config())
    output().document(
        {
            "regions": list(cluster.regions),
            "wan": cluster.wan_kind,
            "address": cluster.address(),
            "config": everywhere,
            "configs": configs,
            "nodes": [
                {
                    "node": node.name,
                    "region": node.region,
                    "address": node.seat.address,
                    "admin": node.seat.admin,
                    "process": node.process,
                    "log": str(node.folder / "node.log"),
                }
                for node in cluster.nodes.values()
            ],
            "start_s": round(start_s, 3),
        },
        lambda: _words(cluster, everywhere, configs, start_s),
    )
    sys.stdout.flush()


def _words(cluster: LocalCluster, everywhere: str, configs: dict[str, str], start_s: float) -> str:
    apart = {
        "namespaces": "apart by real distances, each region a network namespace",
        "proxy": "apart by real distances, through a proxy",
        None: "without a distance between them",
    }[cluster.wan_kind]
    first = cluster.regions[0]
    return (
        f"{len(cluster.nodes)} nodes in {len(cluster.regions)} regions, {apart}; "
        f"up in {start_s:.1f} s. Ctrl-C ends them.\n\n"
        f"  export K2_CONFIG={everywhere}\n"
        "  k2 put hello world\n"
        f"  k2 --config {configs[first]} get hello    # as from {first}\n"
    )


def _watch(cluster: LocalCluster, interval_s: float) -> None:
    """Tell what the nodes do, as somebody wants to know it, until interrupted."""
    out = output()
    if out.as_json:
        while True:
            time.sleep(interval_s)
            for look in cluster.look():
                out.record(record(look), "")
    if not sys.stdout.isatty() or out.quiet or os.environ.get("TERM") == "dumb":
        while True:
            signal.pause()
    from rich.live import Live

    with Live(auto_refresh=False, transient=True) as live:
        while True:
            live.update(draw([record(look) for look in cluster.look()]), refresh=True)
            time.sleep(interval_s)


def record(look: Look) -> dict[str, object]:
    """One node at one moment, for machines; a figure is None where the node did not tell."""
    status = look.status
    found: dict[str, object] = {
        "node": look.node.name,
        "region": look.node.region,
        "state": look.state,
    }
    if status is None:
        return found | dict.fromkeys(_FIGURES)
    clock = status.clock
    lags = [clock.hi_ns - time_ns(one.safe) for one in status.partitions if one.safe]
    return found | {
        "partitions": len(status.partitions),
        "safe_lag_ns": max(lags, default=None),
        "clock_bound_ns": clock.hi_ns - clock.lo_ns,
        "commits": clock.commits,
        "sessions": status.sessions,
        "transactions": status.transactions,
        "uptime_s": status.uptime_s,
    }


def draw(records: Sequence[dict[str, object]]) -> Table:
    """One look at all nodes as a table."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("region", "node", "state"):
        table.add_column(name)
    for name in ("partitions", "safe lag", "clock bound", "commits", "sessions", "open"):
        table.add_column(name, justify="right")
    region = None
    for one in records:
        table.add_row(
            "" if one["region"] == region else str(one["region"]),
            str(one["node"]),
            str(one["state"]),
            _count(one["partitions"]),
            _milliseconds(one["safe_lag_ns"]),
            _milliseconds(one["clock_bound_ns"]),
            _count(one["commits"]),
            _count(one["sessions"]),
            _count(one["transactions"]),
            style=None if one["state"] == "SERVING" else "yellow",
        )
        region = one["region"]
    return table


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"


def _milliseconds(value: object) -> str:
    return f"{value / 1e6:,.1f} ms" if isinstance(value, int) else "-"
