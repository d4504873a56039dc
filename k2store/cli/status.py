"""`k2 status`: the state of a node, once or again and again."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import click

from k2store.cli.exits import Exit
from k2store.cli.notation import show
from k2store.cli.remote import admin
from k2store.cli.verb import Verb, output, settings
from k2store.config import Duration, Size
from truetime.timestamp import time_ns

if TYPE_CHECKING:
    from k2store.v1 import admin_pb2


@click.command("status", cls=Verb)
@click.option("--address", metavar="HOST:PORT", help="The node (client.endpoint).")
@click.option("--watch", is_flag=True, help="Look again and again, until interrupted.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--count", type=click.IntRange(min=1), help="With --watch: stop after so many looks.")
def status(*, address: str | None, watch: bool, interval_s: float, count: int | None) -> None:
    """Show what a node is doing, how full it is, and what holds its safe time back.

    Exit code 3 unless the node serves.
    """
    loaded = settings({"client.endpoint": address})
    looks = itertools.count() if count is None else range(count)
    with admin(loaded.settings) as remote:
        for look in looks if watch else range(1):
            if look:
                time.sleep(interval_s)
            told = remote.status()
            if watch:
                output().record(document(told), line(told))
            else:
                output().document(document(told), page(remote.address, told))
    if told.state != "SERVING":
        click.get_current_context().exit(Exit.UNAVAILABLE)


def document(told: admin_pb2.GetStatusResponse) -> dict[str, object]:
    """A node's state as `--json` prints it: numbers as numbers, ids in hexadecimal."""
    clock = told.clock
    return {
        "node": told.node,
        "region": told.region,
        "incarnation": told.incarnation.hex(),
        "state": told.state,
        "version": told.version,
        "uptime_s": told.uptime_s,
        "durable_turn": told.durable_turn,
        "log_bytes": told.log_bytes,
        "settled_bytes": told.settled_bytes,
        "sessions": told.sessions,
        "transactions": told.transactions,
        "clock": {
            "source": clock.source,
            "assumed": clock.assumed,
            "bound_ns": clock.hi_ns - clock.lo_ns,
            "refusal": clock.refusal or None,
            "commits": clock.commits,
            "commit_wait_ns_mean": _mean(clock.commit_wait_ns_total, clock.commits),
            "commit_wait_ns_max": clock.commit_wait_ns_max,
        },
        "partitions": [
            {
                "partition": one.partition,
                "start": show(one.start),
                "end": show(one.end),
                "safe": one.safe,
                "safe_lag_ns": _lag_ns(one.safe, clock.hi_ns),
                "pinned_by": one.pinned_by.hex() or None,
                "closed": one.closed,
                "horizon": one.horizon,
                "keys_in_memory": one.keys_in_memory,
                "transactions": one.transactions,
                "intents": one.intents,
            }
            | (_replica_document(one.replica) if one.HasField("replica") else {})
            for one in told.partitions
        ],
        "cluster": _cluster_document(told) if told.HasField("cluster") else None,
        "limits": {one.name: {"value": one.value, "limit": one.limit} for one in told.limits},
    }


def _replica_document(replica: admin_pb2.ReplicaStatus) -> dict[str, object]:
    return {
        "role": role(replica),
        "leader": replica.leader or None,
        "epoch": replica.epoch,
        "applied": replica.applied,
        "committed": replica.committed,
        "applied_hash": replica.applied_hash.hex(),
        "voters": list(replica.voters),
        "learners": list(replica.learners),
        "lease_left_ns": replica.lease_left_ns,
        "lag": replica.lag,
    }


def _cluster_document(told: admin_pb2.GetStatusResponse) -> dict[str, object]:
    cluster = told.cluster
    return {
        "node": cluster.node,
        "map_version": cluster.map_version,
        "safe": cluster.safe,
        "safe_lag_ns": _lag_ns(cluster.safe, told.clock.hi_ns),
        "pinned_by": _pin(told),
        "forwarded": cluster.forwarded,
        "forwarded_lost": cluster.forwarded_lost,
        "copying": cluster.copying,
        "unfounded": list(cluster.unfounded),
        "peers": [
            {
                "node": peer.node,
                "name": peer.name,
                "region": peer.region,
                "connected": peer.connected,
                "queued_bytes": peer.queued_bytes,
            }
            for peer in cluster.peers
        ],
    }


def _pin(told: admin_pb2.GetStatusResponse) -> dict[str, object] | None:
    """The partition, and the transaction if it is one, that holds the node's safe time back most."""
    slowest = min(told.partitions, key=lambda one: one.safe, default=None)
    if slowest is None:
        return None
    return {
        "partition": slowest.partition,
        "transaction": slowest.pinned_by.hex() or None,
        "safe_lag_ns": _lag_ns(slowest.safe, told.clock.hi_ns),
    }


def role(replica: admin_pb2.ReplicaStatus) -> str:
    """What a replica does, as text: leader, follower, candidate."""
    from k2store.v1 import admin_pb2 as wire

    return wire.ReplicaRole.Name(replica.role).removeprefix("REPLICA_ROLE_").lower()


def page(address: str, told: admin_pb2.GetStatusResponse) -> str:
    """One look, for people."""
    clock = told.clock
    assumed = " (assumed)" if clock.assumed else ""
    bound = f"bound {Duration(clock.hi_ns - clock.lo_ns)}"
    wait = Duration(_mean(clock.commit_wait_ns_total, clock.commits))
    lines = [
        ("node", f"{told.node} in {told.region} at {address}, version {told.version}"),
        ("state", f"{told.state} for {told.uptime_s:.0f} s"),
        ("clock", f"{clock.source}{assumed}, {clock.refusal or bound}"),
        ("commits", f"{clock.commits}, commit wait {wait} on average"),
        ("log", f"turn {told.durable_turn}, {_size(told.log_bytes)} on disk"),
        ("settled", f"{_size(told.settled_bytes)} on disk"),
        ("sessions", f"{told.sessions}, {told.transactions} transactions open"),
    ]
    if told.HasField("cluster"):
        lines += _cluster_lines(told)
    lines += [
        (f"partition {one.partition}", _partition(one, clock.hi_ns)) for one in told.partitions
    ]
    lines += [("limit", f"{one.name}: {one.value} of {one.limit}") for one in told.limits]
    return "\n".join(f"{name:<12} {text}" for name, text in lines)


def _cluster_lines(told: admin_pb2.GetStatusResponse) -> list[tuple[str, str]]:
    cluster = told.cluster
    pin = _pin(told)
    pinned = "" if pin is None else f", held back by partition {pin['partition']}"
    lines = [
        ("cluster", f"node {cluster.node}, map {cluster.map_version}, {cluster.copying} copying"),
        ("safe", f"{_lag_ns(cluster.safe, told.clock.hi_ns) / 1e6:.0f} ms ago{pinned}"),
    ]
    if cluster.unfounded:
        missing = ", ".join(map(str, cluster.unfounded))
        lines.append(("UNFOUNDED", f"partitions {missing}: the copies here do not reach the cut"))
    for peer in cluster.peers:
        state = "connected" if peer.connected else "NOT CONNECTED"
        lines.append(("peer", f"{peer.node} {peer.name} in {peer.region}: {state}"))
    return lines


def line(told: admin_pb2.GetStatusResponse) -> str:
    """One of many looks, for people."""
    lag_ns = max((_lag_ns(one.safe, told.clock.hi_ns) for one in told.partitions), default=0)
    return (
        f"{told.node} {told.state}  commits {told.clock.commits}  turn {told.durable_turn}  "
        f"sessions {told.sessions}  open {told.transactions}  safe lag {lag_ns / 1e6:.0f} ms"
    )


def _partition(one: admin_pb2.PartitionStatus, now_ns: int) -> str:
    end = show(one.end) if one.end else "the end"
    pinned = f", held back by {one.pinned_by.hex()}" if one.pinned_by else ""
    replica = one.replica
    leads = ""
    if one.HasField("replica"):
        leads = f"{role(replica)} in epoch {replica.epoch} (leader {replica.leader or 'unknown'}), "
    return (
        f"{leads}from {show(one.start) or 'the beginning'} to {end}: "
        f"{one.keys_in_memory} keys in memory, {one.intents} intents, "
        f"safe {_lag_ns(one.safe, now_ns) / 1e6:.0f} ms ago{pinned}"
    )


def _lag_ns(stamp: int, now_ns: int) -> int:
    return max(0, now_ns - time_ns(stamp)) if stamp and now_ns else 0


def _mean(total: int, count: int) -> int:
    return total // count if count else 0


def _size(count: int) -> str:
    """An amount rounded to three digits or so; the exact one is in the JSON."""
    size = float(count)
    for unit in Size.units:
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size * 1024:.4g} TiB"
