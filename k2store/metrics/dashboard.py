"""The Grafana dashboard, made from the catalogue.

    Regions │ Time │ Transactions │ Partitions │ Prompt tree │ Faults and events │ Load

Where several metrics tell one story together, a panel is written down in `PANELS`. Every other
metric of the catalogue gets a panel by itself, in the row that its name belongs to (`HOMES`), with
its help as the description and its suffix as the unit: a metric that is added is on the dashboard
at the next `./k2 docs`. A row without a metric is left out.

Series carry the labels `node` and `region`; the scrape configurations of `deploy/` see to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple

from k2store.metrics.catalogue import CATALOGUE, Row

REGIONS: Final = "Regions"
TIME: Final = "Time"
TRANSACTIONS: Final = "Transactions"
PARTITIONS: Final = "Partitions"
PROMPTS: Final = "Prompt tree"
FAULTS: Final = "Faults and events"
LOAD: Final = "Load"
ROWS: Final = (REGIONS, TIME, TRANSACTIONS, PARTITIONS, PROMPTS, FAULTS, LOAD)

HOMES: Final = (
    ("k2_build_", REGIONS),
    ("k2_cluster_", REGIONS),
    ("k2_cluster_copying", PARTITIONS),
    ("k2_cluster_forwarded_", TRANSACTIONS),
    ("k2_cluster_safe_", TIME),
    ("k2_peer", REGIONS),
    ("k2_uptime_", REGIONS),
    ("k2_answers_held", TIME),
    ("k2_clock_", TIME),
    ("k2_commit_wait_", TIME),
    ("k2_partition_closed_", TIME),
    ("k2_partition_elections_", FAULTS),
    ("k2_partition_epochs_lost_", FAULTS),
    ("k2_partition_history_", TIME),
    ("k2_partition_installs_", FAULTS),
    ("k2_partition_pinned", TIME),
    ("k2_partition_safe_", TIME),
    ("k2_commits_", TRANSACTIONS),
    ("k2_pushes_", TRANSACTIONS),
    ("k2_refusals_", TRANSACTIONS),
    ("k2_transactions_", TRANSACTIONS),
    ("k2_waits_", TRANSACTIONS),
    ("k2_log_", PARTITIONS),
    ("k2_partition_", PARTITIONS),
    ("k2_settled_", PARTITIONS),
    ("k2_pool_", PROMPTS),
    ("k2_node_state", FAULTS),
)
"""Beginning of a metric's name, and the row it belongs to; the longest that fits decides."""

WIDTH: Final = 24
HEIGHT: Final = 7
PANEL_WIDTH: Final = 8
SELECTOR: Final = '{region=~"$region", node=~"$node"}'

_UNITS: Final = (
    ("_seconds_total", "s"),
    ("_seconds_max", "s"),
    ("_seconds", "s"),
    ("_bytes", "bytes"),
)


class Query(NamedTuple):
    """An expression, and the name of its series; `$` is replaced by the dashboard's selector."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """A drawing of one or several metrics."""

    title: str
    row: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Literal["timeseries", "state-timeline", "stat"] = "timeseries"
    about: str = ""


def _rate(metric: str, *labels: str) -> str:
    by = ", ".join(("region", "node", *labels))
    return f"sum by ({by}) (rate({metric}{SELECTOR}[$__rate_interval]))"


PANELS: Final = (
    Panel(
        "Nodes by region and version",
        REGIONS,
        (Query(f"count by (region, version) (k2_build_info{SELECTOR})", "{{region}} {{version}}"),),
        kind="stat",
        about="How many nodes answer, by what they run.",
    ),
    Panel(
        "Streams to other regions",
        REGIONS,
        (
            Query(
                f"sum by (region, peer_region) (k2_peer_connected{SELECTOR})",
                "{{region}} to {{peer_region}}",
            ),
        ),
        about="How many streams between the nodes of two regions stand; a partition is a step down.",
    ),
    Panel(
        "Width of the clock's interval",
        TIME,
        (Query(f"k2_clock_bound_seconds{SELECTOR}", "{{node}}"),),
        "s",
        about="True time lies within this of every node's clock; commits wait for about as long.",
    ),
    Panel(
        "Safe time and history behind the clock",
        TIME,
        (
            Query(f"max by (region) (k2_partition_safe_lag_seconds{SELECTOR})", "{{region}} safe"),
            Query(
                f"min by (region) (k2_partition_history_seconds{SELECTOR})", "{{region}} history"
            ),
        ),
        "s",
        about="Reads that never wait are possible between the two lines.",
    ),
    Panel(
        "Commit wait of a commit",
        TIME,
        (
            Query(
                f"{_rate('k2_commit_wait_seconds_total')} / {_rate('k2_commits_total')}",
                "{{node}} mean",
            ),
            Query(f"k2_commit_wait_seconds_max{SELECTOR}", "{{node}} longest ever"),
        ),
        "s",
        about="How long a durable answer is held until true time has passed its stamp.",
    ),
    Panel(
        "From operations to commits",
        TRANSACTIONS,
        (
            Query(_rate("k2_operations_total"), "{{node}} operations"),
            Query(_rate("k2_waits_total"), "{{node}} waits"),
            Query(_rate("k2_pushes_total"), "{{node}} pushes"),
            Query(_rate("k2_commits_total"), "{{node}} commits"),
        ),
        "ops",
        about="The funnel: what was asked, what waited, whose fate was asked, what committed.",
    ),
    Panel(
        "Refusals by rule",
        TRANSACTIONS,
        (Query(_rate("k2_refusals_total", "rule"), "{{node}} {{rule}}"),),
        "ops",
        about="docs/protocol.md has the rules.",
    ),
    Panel(
        "Partitions led",
        PARTITIONS,
        (Query(f"sum by (region, node) (k2_partition_leader{SELECTOR})", "{{node}}"),),
        about="A step is a partition that got another leader.",
    ),
    Panel(
        "Takeovers",
        FAULTS,
        (
            Query(
                "sum by (partition) "
                f"(increase(k2_partition_elections_won_total{SELECTOR}[$__rate_interval]))",
                "partition {{partition}}",
            ),
        ),
        about="How often a partition got another leader.",
    ),
    Panel(
        "State",
        FAULTS,
        (Query(f"k2_node_state{SELECTOR} == 1", "{{node}} {{state}}"),),
        kind="state-timeline",
        about="The state each node is in; a gap is a node that did not answer.",
    ),
    Panel(
        "Restarts",
        FAULTS,
        (Query(f"resets(k2_uptime_seconds{SELECTOR}[$__rate_interval])", "{{node}}"),),
        about="Each step is a start of the process.",
    ),
    Panel(
        "Limits in use",
        LOAD,
        (
            Query(
                f"k2_limit_used{SELECTOR} / k2_limit_max{SELECTOR}",
                "{{node}} {{limit}}",
            ),
        ),
        "percentunit",
        about="At 100 % callers are refused with Overloaded.",
    ),
    Panel(
        "Memory of the process",
        LOAD,
        (Query(f'process_resident_memory_bytes{{job="k2store", {SELECTOR[1:]}', "{{node}}"),),
        "bytes",
    ),
    Panel(
        "Cores of the process in use",
        LOAD,
        (
            Query(
                f'rate(process_cpu_seconds_total{{job="k2store", {SELECTOR[1:]}[$__rate_interval])',
                "{{node}}",
            ),
        ),
        about="A node is one loop: near 1 it is full.",
    ),
)
"""Panels that somebody thought about; what they draw is drawn nowhere else."""


def home(metric: str) -> str:
    """The row a metric belongs to."""
    fits = [(len(start), row) for start, row in HOMES if metric.startswith(start)]
    return max(fits)[1] if fits else LOAD


def panels(catalogue: Iterable[Row] = CATALOGUE) -> list[Panel]:
    """The panels that were written down, then one for each metric that none of them draws."""
    drawn = set(
        re.findall(r"\bk2_\w+", " ".join(query[0] for panel in PANELS for query in panel.queries))
    )
    return list(PANELS) + [_alone(row) for row in catalogue if row.name not in drawn]


def _alone(row: Row) -> Panel:
    legend = " ".join(("{{node}}", *(f"{{{{{label}}}}}" for label in row.labels)))
    unit = next((unit for suffix, unit in _UNITS if row.name.endswith(suffix)), "short")
    title = row.name.removeprefix("k2_").removesuffix("_total").replace("_", " ").capitalize()
    if row.kind == "counter":
        query = Query(_rate(row.name, *row.labels), legend)
        unit = "ops" if unit == "short" else unit
    else:
        query = Query(row.name + SELECTOR, legend)
    return Panel(title, home(row.name), (query,), unit, about=row.help)


_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}


def _drawing(panel: Panel, number: int, across: int, down: int) -> dict[str, Any]:
    custom: dict[str, Any] = {"fillOpacity": 70} if panel.kind == "state-timeline" else {}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {"x": across, "y": down, "w": PANEL_WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
            }
            for place, query in enumerate(panel.queries)
        ],
    }


def _layout(catalogue: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows in order, each with its panels three abreast."""
    every = panels(catalogue)
    laid: list[dict[str, Any]] = []
    down = 0
    for row in ROWS:
        mine = [panel for panel in every if panel.row == row]
        if not mine:
            continue
        laid.append(
            {
                "id": len(laid) + 1,
                "type": "row",
                "title": row,
                "collapsed": False,
                "gridPos": {"x": 0, "y": down, "w": WIDTH, "h": 1},
                "panels": [],
            }
        )
        down += 1
        abreast = WIDTH // PANEL_WIDTH
        for place, panel in enumerate(mine):
            across, line = place % abreast * PANEL_WIDTH, place // abreast * HEIGHT
            laid.append(_drawing(panel, len(laid) + 1, across, down + line))
        down += -(-len(mine) // abreast) * HEIGHT
    return laid


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def render(catalogue: Iterable[Row] = CATALOGUE) -> str:
    """`deploy/grafana/k2store.json`."""
    document = {
        "uid": "k2store",
        "title": "K2store",
        "description": "Made from the catalogue of metrics by `./k2 docs`; edit there.",
        "tags": ["k2store"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {
                    "name": "source",
                    "label": "Source",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                },
                _variable("region", "label_values(k2_build_info, region)"),
                _variable("node", 'label_values(k2_build_info{region=~"$region"}, node)'),
            ]
        },
        "panels": _layout(catalogue),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
