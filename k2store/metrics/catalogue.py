"""Every metric there is: name, meaning, kind, labels, and where its value comes from.

Names carry their unit; counters end in `_total`. Labels come from small sets (partitions, nodes,
rules, limits, states), never from keys or clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from k2store.node.report import STATES, Reading
from k2store.v1 import admin_pb2
from truetime.timestamp import time_ns

Kind = Literal["counter", "gauge"]
Samples = Iterable[tuple[tuple[str, ...], float]]


class Row(NamedTuple):
    """One metric; `read` gives its samples, each with one value per label."""

    name: str
    kind: Kind
    help: str
    read: Callable[[Reading], Samples]
    labels: tuple[str, ...] = ()


def _count(key: str) -> Callable[[Reading], Samples]:
    return lambda reading: [((), reading.counts[key])]


def _status(read: Callable[[admin_pb2.GetStatusResponse], float]) -> Callable[[Reading], Samples]:
    return lambda reading: [((), read(reading.status))]


def _clock(read: Callable[[admin_pb2.GetClockResponse], float]) -> Callable[[Reading], Samples]:
    return lambda reading: [((), read(reading.status.clock))]


def _partitions(
    read: Callable[[admin_pb2.PartitionStatus, admin_pb2.GetClockResponse], float],
) -> Callable[[Reading], Samples]:
    return lambda reading: [
        ((str(one.partition),), read(one, reading.status.clock))
        for one in reading.status.partitions
    ]


def _replicas(read: Callable[[admin_pb2.ReplicaStatus], float]) -> Callable[[Reading], Samples]:
    return lambda reading: [
        ((str(one.partition),), read(one.replica))
        for one in reading.status.partitions
        if one.HasField("replica")
    ]


def _cluster(read: Callable[[admin_pb2.ClusterStatus], float]) -> Callable[[Reading], Samples]:
    return lambda reading: (
        [((), read(reading.status.cluster))] if reading.status.HasField("cluster") else []
    )


def _peers(read: Callable[[admin_pb2.PeerStatus], float]) -> Callable[[Reading], Samples]:
    return lambda reading: [
        ((peer.name, peer.region), read(peer)) for peer in reading.status.cluster.peers
    ]


def _labelled(mapping: Callable[[Reading], Mapping[str, float]]) -> Callable[[Reading], Samples]:
    return lambda reading: [((label,), value) for label, value in mapping(reading).items()]


def _lag_s(stamp: int, clock: admin_pb2.GetClockResponse) -> float:
    """How far a stamp lies behind the clock, seconds; 0 where either is unknown."""
    return max(0, clock.hi_ns - time_ns(stamp)) / 1e9 if stamp and clock.hi_ns else 0.0


CATALOGUE: Final[tuple[Row, ...]] = (
    Row(
        "k2_build_info",
        "gauge",
        "Always 1; the labels say what runs.",
        lambda r: [((r.status.version, r.status.node, r.status.region), 1)],
        ("version", "node", "region"),
    ),
    Row("k2_uptime_seconds", "gauge", "Since the node began.", _status(lambda s: s.uptime_s)),
    Row(
        "k2_node_state",
        "gauge",
        "1 for the state the node is in, 0 for the others.",
        _labelled(lambda r: {state: float(state == r.status.state) for state in STATES}),
        ("state",),
    ),
    Row("k2_turns_total", "counter", "Turns of the engine.", _count("turns")),
    Row("k2_frames_total", "counter", "Session frames taken in.", _count("frames")),
    Row("k2_operations_total", "counter", "Operations answered.", _count("operations")),
    Row("k2_commits_total", "counter", "Transactions committed.", _count("commits")),
    Row("k2_log_syncs_total", "counter", "Syncs of the log; one a turn.", _count("syncs")),
    Row("k2_log_durable_turn", "gauge", "Newest durable turn.", _status(lambda s: s.durable_turn)),
    Row("k2_log_bytes", "gauge", "Size of the log on disk.", _status(lambda s: s.log_bytes)),
    Row(
        "k2_log_replayed_turns",
        "gauge",
        "Turns replayed by the last start.",
        lambda r: [((), r.replayed)],
    ),
    Row(
        "k2_settled_bytes",
        "gauge",
        "Size of the settled store on disk, an estimate.",
        _status(lambda s: s.settled_bytes),
    ),
    Row(
        "k2_sessions",
        "gauge",
        "Open sessions, the one behind the unary methods included.",
        _status(lambda s: s.sessions),
    ),
    Row(
        "k2_transactions_open",
        "gauge",
        "Interactive transactions that are open.",
        _status(lambda s: s.transactions),
    ),
    Row(
        "k2_refusals_total",
        "counter",
        "Operations refused, by the rule that refused them (docs/protocol.md).",
        _labelled(lambda r: r.refusals),
        ("rule",),
    ),
    Row(
        "k2_waits_total",
        "counter",
        "Operations that waited for another transaction's intent.",
        lambda r: [((), r.waits)],
    ),
    Row(
        "k2_pushes_total",
        "counter",
        "Questions to another transaction's record.",
        lambda r: [((), r.pushes)],
    ),
    Row(
        "k2_answers_held",
        "gauge",
        "Durable answers that wait for true time to pass their stamp.",
        lambda r: [((), r.held)],
    ),
    Row(
        "k2_commit_wait_seconds_total",
        "counter",
        "Time that answers were held for the clock, in all.",
        _clock(lambda c: c.commit_wait_ns_total / 1e9),
    ),
    Row(
        "k2_commit_wait_seconds_max",
        "gauge",
        "Longest time that one answer was held for the clock.",
        _clock(lambda c: c.commit_wait_ns_max / 1e9),
    ),
    Row(
        "k2_clock_bound_seconds",
        "gauge",
        "Width of the clock's interval.",
        _clock(lambda c: (c.hi_ns - c.lo_ns) / 1e9),
    ),
    Row(
        "k2_clock_usable",
        "gauge",
        "1 while stamps can be given, else 0.",
        _clock(lambda c: float(not c.refusal)),
    ),
    Row(
        "k2_clock_assumed",
        "gauge",
        "1 when the bound is an assumption and not a measurement.",
        _clock(lambda c: float(c.assumed)),
    ),
    Row(
        "k2_partition_safe_lag_seconds",
        "gauge",
        "How far snapshot reads that never wait lie behind the clock.",
        _partitions(lambda p, c: _lag_s(p.safe, c)),
        ("partition",),
    ),
    Row(
        "k2_partition_closed_lag_seconds",
        "gauge",
        "How far behind the clock no write is accepted any more.",
        _partitions(lambda p, c: _lag_s(p.closed, c)),
        ("partition",),
    ),
    Row(
        "k2_partition_pinned",
        "gauge",
        "1 while a transaction holds the safe time back.",
        _partitions(lambda p, _: float(bool(p.pinned_by))),
        ("partition",),
    ),
    Row(
        "k2_partition_history_seconds",
        "gauge",
        "How far back reads reach.",
        _partitions(lambda p, c: _lag_s(p.horizon, c)),
        ("partition",),
    ),
    Row(
        "k2_partition_keys_in_memory",
        "gauge",
        "Keys held in memory.",
        _partitions(lambda p, _: p.keys_in_memory),
        ("partition",),
    ),
    Row(
        "k2_partition_transactions",
        "gauge",
        "Transactions known: open, or with an outcome that is still kept.",
        _partitions(lambda p, _: p.transactions),
        ("partition",),
    ),
    Row(
        "k2_partition_intents",
        "gauge",
        "Intents that are not decided.",
        _partitions(lambda p, _: p.intents),
        ("partition",),
    ),
    Row(
        "k2_partition_leader",
        "gauge",
        "1 where this node leads the partition, else 0.",
        _replicas(lambda p: float(p.role == admin_pb2.REPLICA_ROLE_LEADER)),
        ("partition",),
    ),
    Row(
        "k2_partition_leader_known",
        "gauge",
        "1 while this node knows who leads the partition.",
        _replicas(lambda p: float(bool(p.leader))),
        ("partition",),
    ),
    Row(
        "k2_partition_epoch",
        "gauge",
        "The epoch that the partition's replica is bound to; it rises with every takeover.",
        _replicas(lambda p: p.epoch),
        ("partition",),
    ),
    Row(
        "k2_partition_voters",
        "gauge",
        "How many replicas vote, as the one here knows.",
        _replicas(lambda p: len(p.voters)),
        ("partition",),
    ),
    Row(
        "k2_partition_lease_seconds",
        "gauge",
        "On the leader: how long its lease lasts from now; negative when it is over.",
        lambda r: [
            ((str(one.partition),), one.replica.lease_left_ns / 1e9)
            for one in r.status.partitions
            if one.replica.role == admin_pb2.REPLICA_ROLE_LEADER
        ],
        ("partition",),
    ),
    Row(
        "k2_partition_log_lag_entries",
        "gauge",
        "On the leader: entries that the slowest follower lacks.",
        _replicas(lambda p: p.lag),
        ("partition",),
    ),
    Row(
        "k2_partition_apply_lag_entries",
        "gauge",
        "Entries that are known to stand and are not applied here yet.",
        _replicas(lambda p: max(0, p.committed - p.applied)),
        ("partition",),
    ),
    Row(
        "k2_partition_elections_won_total",
        "counter",
        "Takeovers of the partition by this run of the node.",
        _replicas(lambda p: p.elections_won),
        ("partition",),
    ),
    Row(
        "k2_partition_epochs_lost_total",
        "counter",
        "Leads of the partition that have ended in this run of the node, handed over or not.",
        _replicas(lambda p: p.epochs_lost),
        ("partition",),
    ),
    Row(
        "k2_partition_installs_total",
        "counter",
        "Times that this node took a whole state because its log was too far behind.",
        _replicas(lambda p: p.installs_taken),
        ("partition",),
    ),
    Row(
        "k2_cluster_map_version",
        "gauge",
        "Version of the map that this node goes by.",
        _cluster(lambda c: c.map_version),
    ),
    Row(
        "k2_cluster_safe_lag_seconds",
        "gauge",
        "How far the safe time of all partitions on this node lies behind its clock.",
        lambda r: (
            [((), _lag_s(r.status.cluster.safe, r.status.clock))]
            if r.status.HasField("cluster")
            else []
        ),
    ),
    Row(
        "k2_cluster_forwarded_total",
        "counter",
        "Requests sent on to leaders on other nodes.",
        _cluster(lambda c: c.forwarded),
    ),
    Row(
        "k2_cluster_forwarded_lost_total",
        "counter",
        "Forwarded requests that were never answered: their node was lost, or led no more.",
        _cluster(lambda c: c.forwarded_lost),
    ),
    Row(
        "k2_cluster_copying",
        "gauge",
        "Partitions that are being copied to this node.",
        _cluster(lambda c: c.copying),
    ),
    Row(
        "k2_peer_connected",
        "gauge",
        "1 while the stream to another node stands.",
        _peers(lambda p: float(p.connected)),
        ("peer", "peer_region"),
    ),
    Row(
        "k2_peer_queued_bytes",
        "gauge",
        "Bytes that wait to be sent to another node.",
        _peers(lambda p: p.queued_bytes),
        ("peer", "peer_region"),
    ),
    Row(
        "k2_limit_used",
        "gauge",
        "How much of a limit is in use.",
        lambda r: [((limit.name,), limit.value) for limit in r.status.limits],
        ("limit",),
    ),
    Row(
        "k2_limit_max",
        "gauge",
        "The limit.",
        lambda r: [((limit.name,), limit.limit) for limit in r.status.limits],
        ("limit",),
    ),
)
"""The table."""

_FAMILIES: Final = MappingProxyType({"counter": CounterMetricFamily, "gauge": GaugeMetricFamily})


class NodeCollector(Collector):
    """Reads a node whenever Prometheus asks."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """One family a row."""
        reading = self._read()
        for row in CATALOGUE:
            family = _FAMILIES[row.kind](row.name, row.help, labels=row.labels)
            for labels, value in row.read(reading):
                family.add_metric(labels, value)
            yield family


_HEAD: Final = """\
# Metrics

*Made from the table in `k2store/metrics/catalogue.py` by `./k2 docs`; edit there.*

`GET /metrics` on the admin port (`admin.listen`) answers in the text format of Prometheus, these
and the process's own (`process_*`, `python_gc_*`). Reading them costs the store nothing between
scrapes.

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def render() -> str:
    """`docs/metrics.md`."""
    lines = [
        f"| `{row.name}` | {row.kind} | {', '.join(row.labels) or '–'} | {row.help} |"
        for row in CATALOGUE
    ]
    return _HEAD + "\n".join(lines) + "\n"
