"""Recording rules and alerts for Prometheus, made from the catalogue.

Every counter of the catalogue gets a rate by itself, so a new one needs nothing here; alerts are
a table of judgement. What an alert says to do is what `docs/alerts.md` says: one table, two forms.

The rules assume what the scrape configurations of `deploy/` see to: series carry the labels
`node` and `region`, and the job is called `k2store`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from k2store.metrics.catalogue import CATALOGUE, Row

Severity = Literal["critical", "warning", "info"]


class Recording(NamedTuple):
    """A series that is computed ahead: `level:metric:operation`, and its expression."""

    name: str
    expression: str


class Alert(NamedTuple):
    """A sign that somebody should look at.

    lasting   how long the expression must hold, as Prometheus writes durations
    summary   one line, with labels of the series
    meaning   what is wrong, for whoever is woken by it
    action    what to do
    """

    name: str
    expression: str
    lasting: str
    severity: Severity
    summary: str
    meaning: str
    action: str


_DERIVED: Final = (
    Recording(
        "node:k2_refusals_per_operation:ratio_rate5m",
        "sum by (region, node) (rate(k2_refusals_total[5m]))"
        " / sum by (region, node) (rate(k2_operations_total[5m]))",
    ),
    Recording(
        "node:k2_commit_wait_seconds:mean5m",
        "sum by (region, node) (rate(k2_commit_wait_seconds_total[5m]))"
        " / sum by (region, node) (rate(k2_commits_total[5m]))",
    ),
    Recording(
        "node:k2_limit_used:ratio",
        "max by (region, node, limit) (k2_limit_used)"
        " / max by (region, node, limit) (k2_limit_max)",
    ),
    Recording("region:k2_clock_bound_seconds:max", "max by (region) (k2_clock_bound_seconds)"),
    Recording(
        "region:k2_partition_safe_lag_seconds:max",
        "max by (region) (k2_partition_safe_lag_seconds)",
    ),
)

ALERTS: Final = (
    Alert(
        "K2NodeDown",
        'up{job="k2store"} == 0',
        "2m",
        "critical",
        "{{ $labels.instance }} does not answer",
        "The admin port of a node does not answer: the process has ended, or cannot be reached.",
        "Read the end of its log and its exit code: 5 means that it found damage and set itself "
        "aside, and no restart will help; see Operations, Quarantine.",
    ),
    Alert(
        "K2NodeDamaged",
        'k2_node_state{state=~"QUARANTINED|FAILED"} == 1',
        "0m",
        "critical",
        "{{ $labels.node }} is {{ $labels.state }}",
        "The node found acknowledged data damaged or broke an invariant, and has stopped serving.",
        "Keep its data folder as it is; see Operations, Quarantine.",
    ),
    Alert(
        "K2NodeNotServing",
        'k2_node_state{state="SERVING"} == 0',
        "5m",
        "warning",
        "{{ $labels.node }} has not served for five minutes",
        "The node has been recovering or draining for longer than either should take.",
        "`k2 status` shows its state; a drain that does not end has a transaction open.",
    ),
    Alert(
        "K2NodeRestarts",
        "resets(k2_uptime_seconds[15m]) > 2",
        "0m",
        "warning",
        "{{ $labels.node }} has restarted more than twice in a quarter of an hour",
        "The process ends and is started again.",
        "Look for the reason at the end of each run in its log; memory is the usual one.",
    ),
    Alert(
        "K2ClockUnusable",
        "k2_clock_usable == 0",
        "30s",
        "critical",
        "{{ $labels.node }} gives no stamps",
        "The clock's bound is wider than clock.bound_max, or there is none: nothing can commit.",
        "Look at the time synchronisation of the host (`chronyc tracking`), then `k2 clock`.",
    ),
    Alert(
        "K2PartitionLeaderless",
        "sum by (partition) (k2_partition_leader) == 0",
        "30s",
        "critical",
        "Nobody leads partition {{ $labels.partition }}",
        "Transactions on its keys wait. A takeover needs a majority of its voters and the control "
        "plane.",
        "`k2 regions status` shows its voters: bring back those that are down, or the control "
        "plane. If a whole region is lost, see Running it, A region that is lost.",
    ),
    Alert(
        "K2ClockAssumed",
        "k2_clock_assumed == 1 and on () count(count by (region) (k2_build_info)) > 1",
        "10m",
        "warning",
        "{{ $labels.node }} assumes the bound of its clock",
        "clock.source is `declared` although nodes run in several regions: if the assumption is "
        "wrong, transactions are no longer ordered as they happened.",
        "Set clock.source to `kernel` on hosts that are synchronised. On one machine that plays "
        "several regions the assumption is right, and this alert can be silenced.",
    ),
    Alert(
        "K2CommitWaitLong",
        "node:k2_commit_wait_seconds:mean5m > 0.05",
        "10m",
        "warning",
        "{{ $labels.node }} holds commits {{ $value | humanizeDuration }} for the clock",
        "Every commit waits for about one bound of the clock, and the bound has become wide.",
        "`k2 clock` shows the bound; look at the time synchronisation of the host.",
    ),
    Alert(
        "K2SafeTimeLags",
        "k2_partition_safe_lag_seconds > 30",
        "2m",
        "warning",
        "Partition {{ $labels.partition }} at {{ $labels.node }} lags {{ $value | humanizeDuration }}",
        "Snapshot reads, watches and backups see nothing newer than this.",
        "`k2 status` names the transaction that pins the safe time; it ends by "
        "transactions.lifetime_max. If none is named, the clock or the log is the reason.",
    ),
    Alert(
        "K2LeadersMove",
        "max by (partition) (changes(k2_partition_epoch[15m])) > 3",
        "0m",
        "warning",
        "Partition {{ $labels.partition }} has had {{ $value }} new epochs in a quarter of an hour",
        "Each takeover stops the partition's transactions for a moment; so many mean that leaders "
        "are lost, or thought to be.",
        "Look at the streams between the nodes and at their load: a leader that cannot renew its "
        "lease within cluster.patience is replaced.",
    ),
    Alert(
        "K2ReplicaLags",
        "k2_partition_log_lag_entries > 10000",
        "5m",
        "warning",
        "A follower of partition {{ $labels.partition }} lacks {{ $value }} entries",
        "The slowest replica falls behind its leader: reads there are stale, and it is of no use "
        "for a takeover.",
        "Look for the node whose safe time lags most: its disk, its network, or its load.",
    ),
    Alert(
        "K2PeerDisconnected",
        "k2_peer_connected == 0",
        "2m",
        "warning",
        "{{ $labels.node }} does not reach {{ $labels.peer }}",
        "The stream between two nodes does not stand.",
        "If the other node is up, look at the network between them, at its cluster.advertise, and "
        "at both certificates.",
    ),
    Alert(
        "K2MapOld",
        "k2_cluster_map_version < on () group_left () max(k2_cluster_map_version)",
        "5m",
        "warning",
        "{{ $labels.node }} goes by an old map",
        "The node does not hear the control plane: it serves, but follows no change of members "
        "and takes over nothing.",
        "Look at cluster.control as the node has it, and at whether the control plane answers it: "
        "`k2 regions status`.",
    ),
    Alert(
        "K2LimitNear",
        "node:k2_limit_used:ratio > 0.8",
        "5m",
        "warning",
        "{{ $labels.node }} uses {{ $value | humanizePercentage }} of {{ $labels.limit }}",
        "Beyond the limit callers are refused with Overloaded.",
        "Fewer callers, more nodes, or a larger limit if memory allows.",
    ),
    Alert(
        "K2RefusalsMany",
        "node:k2_refusals_per_operation:ratio_rate5m > 0.2",
        "10m",
        "warning",
        "{{ $labels.node }} refuses {{ $value | humanizePercentage }} of its operations",
        "Transactions run into each other so often that much of the work is done again.",
        "`k2_refusals_total` says by which rule; docs/protocol.md says what the rule is about. "
        "Usually one hot key: shorten the transactions that touch it.",
    ),
    Alert(
        "K2VersionsDiffer",
        "count(count by (version) (k2_build_info)) > 1",
        "2h",
        "info",
        "Nodes of {{ $value }} versions have run side by side for two hours",
        "A rolling upgrade was not finished.",
        "Upgrade the rest, or go back.",
    ),
)
"""The table of alerts, the most urgent first."""


def recordings(catalogue: Iterable[Row] = CATALOGUE) -> list[Recording]:
    """A rate for every counter of the catalogue, and what is derived from several metrics."""
    rates = [
        Recording(
            f"node:{row.name.removesuffix('_total')}:rate5m",
            f"sum by ({', '.join(('region', 'node', *row.labels))}) (rate({row.name}[5m]))",
        )
        for row in catalogue
        if row.kind == "counter"
    ]
    return rates + list(_DERIVED)


_HEAD: Final = "# Made from the tables in k2store/metrics by `./k2 docs`; edit there.\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def render_recordings(catalogue: Iterable[Row] = CATALOGUE) -> str:
    """`deploy/prometheus/recordings.yaml`."""
    lines = ["groups:", "  - name: k2store-recordings", "    interval: 30s", "    rules:"]
    for one in recordings(catalogue):
        lines += [f"      - record: {one.name}", f"        expr: {_quoted(one.expression)}"]
    return _HEAD + "\n".join(lines) + "\n"


def render_alerts(alerts: Sequence[Alert] = ALERTS) -> str:
    """`deploy/prometheus/alerts.yaml`."""
    lines = ["groups:", "  - name: k2store-alerts", "    rules:"]
    for one in alerts:
        lines += [
            f"      - alert: {one.name}",
            f"        expr: {_quoted(one.expression)}",
            f"        for: {one.lasting}",
            "        labels:",
            f"          severity: {one.severity}",
            "        annotations:",
            f"          summary: {_quoted(one.summary)}",
            f"          description: {_quoted(f'{one.meaning} {one.action}')}",
        ]
    return _HEAD + "\n".join(lines) + "\n"


_PAGE: Final = """\
# Alerts

*Made from the table in `k2store/metrics/rules.py` by `./k2 docs`; edit there.*

`deploy/prometheus/alerts.yaml` holds these for Prometheus; `deploy/prometheus/recordings.yaml` what
they are computed from. Give both as `rule_files`. The [metrics](metrics.md) themselves, and
[what an operator does](operations.md).
"""


def render_page(alerts: Sequence[Alert] = ALERTS) -> str:
    """`docs/alerts.md`."""
    parts = [_PAGE]
    for one in alerts:
        lasting = "at once" if one.lasting == "0m" else f"after {one.lasting}"
        parts.append(
            f"## {one.name}\n\n{one.severity.capitalize()}, {lasting}: `{one.expression}`\n\n"
            f"{one.meaning} **Do:** {one.action}\n"
        )
    return "\n".join(parts)
