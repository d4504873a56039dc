"""Alerts, recordings and the dashboard name what the catalogue has, and leave nothing out."""

from __future__ import annotations

import json
import re
from typing import Any

import promql_parser
import pytest

from k2store.metrics import dashboard, rules
from k2store.metrics.catalogue import CATALOGUE, Row
from tests.architecture.tree import ROOT

OUR_LABELS = {"node", "region"}
NOT_OURS = {
    # What Prometheus and its client library tell of any process.
    "up": {"job", "instance"},
    "process_cpu_seconds_total": {"job"},
    "process_resident_memory_bytes": {"job"},
}
LABELS = {row.name: {*row.labels, *OUR_LABELS} for row in CATALOGUE} | {
    name: labels | OUR_LABELS for name, labels in NOT_OURS.items()
}
RECORDED = {one.name: one.expression for one in rules.recordings()}


def queries() -> list[str]:
    """Every expression of the dashboard, with its variables filled in."""
    return [
        query.expression.replace("$__rate_interval", "5m")
        for panel in dashboard.panels()
        for query in panel.queries
    ]


EXPRESSIONS = sorted({*queries(), *RECORDED.values(), *(one.expression for one in rules.ALERTS)})


def problems(expression: str) -> list[str]:
    """Why an expression cannot mean anything: unknown metrics, labels that a metric lacks."""
    found: list[str] = []
    _walk(promql_parser.parse(expression), found)
    return found


def _walk(node: Any, found: list[str]) -> set[str]:
    """Collect problems below a node of the tree; returns the labels that its series can have."""
    match type(node).__name__:
        case "VectorSelector":
            name = node.name
            if name in RECORDED:
                labels = _walk(promql_parser.parse(RECORDED[name]), found)
            elif name in LABELS:
                labels = LABELS[name]
            else:
                found.append(f"no metric {name}")
                return set()
            used = {matcher.name for matcher in node.matchers.matchers}
            found += [f"{name} has no label {label}" for label in sorted(used - labels)]
            return set(labels)
        case "MatrixSelector":
            return _walk(node.vector_selector, found)
        case "AggregateExpr":
            labels = _walk(node.expr, found)
            kept = set(node.modifier.labels) if node.modifier else set()
            found += [f"aggregates by {label}, which is not there" for label in kept - labels]
            return kept
        case "BinaryExpr":
            left, right = _walk(node.lhs, found), _walk(node.rhs, found)
            return left or right
        case "Call":
            return set().union(*(_walk(argument, found) for argument in node.args))
        case "ParenExpr" | "UnaryExpr" | "SubqueryExpr":
            return _walk(node.expr, found)
        case "NumberLiteral" | "StringLiteral":
            return set()
        case other:
            raise AssertionError(f"teach this test about {other}")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_are_about_what_there_is(expression: str) -> None:
    """Each expression parses, and its metrics and labels are in the catalogue."""
    assert problems(expression) == []


def test_a_wrong_expression_is_noticed() -> None:
    """The check sees an unknown metric, and unknown labels in a selector and an aggregation."""
    assert problems("rate(k2_comits_total[5m])") == ["no metric k2_comits_total"]
    assert problems('k2_commits_total{rule="x"} > 1') == ["k2_commits_total has no label rule"]
    assert problems("sum by (key) (k2_log_bytes)") == ["aggregates by key, which is not there"]
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum(k2_log_bytes")


def test_every_metric_is_on_the_dashboard() -> None:
    """No metric of the catalogue is missing from the drawings."""
    text = " ".join(queries())
    assert [row.name for row in CATALOGUE if not re.search(rf"\b{row.name}\b", text)] == []


def test_a_new_metric_is_drawn_and_recorded_by_itself() -> None:
    """A row nobody thought of gets a panel in its row, with unit and labels, and a rate."""
    new = Row("k2_pool_evictions_total", "counter", "Evicted.", lambda _: [], ("tier",))
    catalogue = (*CATALOGUE, new)
    (panel,) = [one for one in dashboard.panels(catalogue) if one.about == "Evicted."]
    assert (panel.row, panel.unit) == (dashboard.PROMPTS, "ops")
    assert panel.queries[0].legend == "{{node}} {{tier}}"
    titles = [one["title"] for one in drawn(catalogue) if one["type"] == "row"]
    assert titles == list(dashboard.ROWS)
    assert "node:k2_pool_evictions:rate5m" in rules.render_recordings(catalogue)
    assert dashboard.home("k2_entirely_new") == dashboard.LOAD


def test_every_home_is_a_row_and_the_longest_name_decides() -> None:
    """The table of homes names rows that exist; a longer beginning wins over a shorter one."""
    assert {row for _, row in dashboard.HOMES} <= set(dashboard.ROWS)
    assert dashboard.home("k2_partition_safe_lag_seconds") == dashboard.TIME
    assert dashboard.home("k2_partition_intents") == dashboard.PARTITIONS


def drawn(catalogue: tuple[Row, ...] = CATALOGUE) -> list[dict[str, Any]]:
    """The panels of the rendered dashboard."""
    found: list[dict[str, Any]] = json.loads(dashboard.render(catalogue))["panels"]
    return found


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Ids are unique, nothing overlaps, every panel has a title, a source and its queries."""
    document = json.loads((ROOT / "deploy/grafana/k2store.json").read_text())
    names = [variable["name"] for variable in document["templating"]["list"]]
    assert names == ["source", "region", "node"]
    assert isinstance(document["schemaVersion"], int)
    assert document["uid"]
    panels = document["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + across, place["y"] + down)
            for across in range(place["w"])
            for down in range(place["h"])
        }
        assert panel["title"]
        assert place["x"] + place["w"] <= dashboard.WIDTH
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
            assert panel["description"] or panel["title"], panel
            assert [target["refId"] for target in panel["targets"]] == [
                "ABCDEFGH"[number] for number in range(len(panel["targets"]))
            ]
            assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])


def test_legends_and_summaries_name_labels_that_are_there() -> None:
    """`{{label}}` in a legend and `$labels.label` in a summary belong to the series shown."""
    for panel in dashboard.panels():
        for query in panel.queries:
            labels = _walk(
                promql_parser.parse(query.expression.replace("$__rate_interval", "5m")), []
            )
            assert set(re.findall(r"{{(\w+)}}", query.legend)) <= labels, panel.title
    for alert in rules.ALERTS:
        labels = _walk(promql_parser.parse(alert.expression), [])
        assert set(re.findall(r"\$labels\.(\w+)", alert.summary)) <= labels, alert.name


def test_alerts_say_what_to_do() -> None:
    """Each alert has a name of its own, a meaning, an action, and a duration."""
    assert len({alert.name for alert in rules.ALERTS}) == len(rules.ALERTS)
    for alert in rules.ALERTS:
        assert re.fullmatch(r"K2[A-Z][A-Za-z]+", alert.name)
        assert re.fullmatch(r"\d+[smh]", alert.lasting), alert.name
        assert alert.summary
        assert alert.meaning.endswith(".")
        assert alert.action.endswith("."), alert.name


def test_recordings_are_named_by_the_convention() -> None:
    """`level:metric:operations`, each name once, and the level is what it is grouped by."""
    assert len(RECORDED) == len(rules.recordings())
    for name, expression in RECORDED.items():
        level, metric, operation = name.split(":")
        assert metric.startswith("k2_")
        assert operation
        labels = _walk(promql_parser.parse(expression), [])
        assert ("node" in labels) == (level == "node"), name
