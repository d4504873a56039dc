"""`k2 dev` in regions: a local cluster, and a table of its nodes while it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from k2store.cli.status import role
from k2store.cli.verb import output
from k2store.testing.cluster import LocalCluster, Look, local_cluster
from truetime.timestamp import time_ns

if TYPE_CHECKING:
    from rich.table import Table

    from k2store.testing.wan import Kind

_FIGURES: Final = (
    "partitions",
    "leads",
    "lag",
    "peers",
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
    """One node at one moment, for machines; a figure is None where the node did not tell.

    `leads`: partitions by number; `lag`: entries that the slowest follower of one of them lacks;
    `peers`: nodes to which a stream stands; `safe_lag_ns`: how far behind reads of everything are.
    """
    status = look.status
    found: dict[str, object] = {
        "node": look.node.name,
        "region": look.node.region,
        "state": look.state,
    }
    if status is None:
        return found | dict.fromkeys(_FIGURES)
    clock = status.clock
    led = [one for one in status.partitions if role(one.replica) == "leader"]
    return found | {
        "partitions": len(status.partitions),
        "leads": [one.partition for one in led],
        "lag": max((one.replica.lag for one in led), default=0),
        "peers": sum(peer.connected for peer in status.cluster.peers),
        "safe_lag_ns": _lag_ns(status.cluster.safe, clock.hi_ns),
        "clock_bound_ns": clock.hi_ns - clock.lo_ns,
        "commits": clock.commits,
        "sessions": status.sessions,
        "transactions": status.transactions,
        "uptime_s": status.uptime_s,
    }


def _lag_ns(safe: int, now_ns: int) -> int | None:
    """How far behind a safe time is; None where there is none yet."""
    return max(0, now_ns - time_ns(safe)) if safe and now_ns else None


def draw(records: Sequence[dict[str, object]]) -> Table:
    """One look at all nodes as a table: who leads how many partitions, how far the slowest follower
    of them is behind in entries, and how far behind true time reads of everything are.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("region", "node", "state"):
        table.add_column(name, no_wrap=True)
    figures = ("leads", "lag", "peers", "safe ms", "clock ms", "commits", "sessions", "open")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    region = None
    for one in records:
        table.add_row(
            "" if one["region"] == region else str(one["region"]),
            str(one["node"]),
            str(one["state"]),
            _leads(one),
            _count(one["lag"]),
            _count(one["peers"]),
            _milliseconds(one["safe_lag_ns"]),
            _milliseconds(one["clock_bound_ns"]),
            _count(one["commits"]),
            _count(one["sessions"]),
            _count(one["transactions"]),
            style=None if one["state"] == "SERVING" else "yellow",
        )
        region = one["region"]
    return table


def _leads(one: dict[str, object]) -> str:
    led = one["leads"]
    return f"{len(led)}/{one['partitions']}" if isinstance(led, list) else "-"


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"


def _milliseconds(value: object) -> str:
    return f"{value / 1e6:,.1f}" if isinstance(value, int) else "-"
