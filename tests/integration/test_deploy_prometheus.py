"""Prometheus itself judges the rules, the scrape configurations, and what a node tells it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from k2store.metrics import dashboard, rules
from tests.architecture.tree import ROOT
from tests.contract.etcd_cluster import free_ports
from tests.integration.deployed_node import Running, get, k2, running

RULES = ROOT / "deploy/prometheus"

pytestmark = [
    pytest.mark.promtool,
    pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed"),
]


def promtool(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool in the folder of the rules."""
    return subprocess.run(
        ["promtool", *arguments],
        cwd=RULES,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_rules_are_rules() -> None:
    """`promtool check rules` takes every file of rules."""
    done = promtool("check", "rules", "alerts.yaml", "recordings.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should() -> None:
    """`promtool test rules`: series in, alerts out, as tests.yaml says."""
    done = promtool("test", "rules", "tests.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_broken_rule_would_be_noticed(tmp_path: Path) -> None:
    """The judge does refuse: an expression that lacks its end."""
    broken = tmp_path / "broken.yaml"
    broken.write_text((RULES / "alerts.yaml").read_text().replace(" == 0'", " =='", 1))
    assert promtool("check", "rules", str(broken)).returncode != 0


def test_what_a_node_tells_is_what_prometheus_reads(tmp_path: Path) -> None:
    """`promtool check metrics` finds nothing to say about `/metrics` of a real node."""
    with running(tmp_path) as node:
        code, text = get(node.admin, "/metrics")
    assert code == 200
    done = promtool("check", "metrics", given=text)
    complaints = [line for line in done.stderr.splitlines() if line.startswith("k2_")]
    assert not complaints, complaints
    assert "k2_build_info" in text


NODES = {"fra-1": "fra", "iad-1": "iad", "sin-1": "sin"}
SCRAPES_S = 60


def laid_out(folder: Path) -> Path:
    """The configuration of the compose file with its rules, where the container has them."""
    folder.mkdir()
    shutil.copytree(RULES, folder / "rules")
    config = folder / "prometheus.yaml"
    shutil.copyfile(ROOT / "deploy/docker/prometheus.yaml", config)
    return config


def test_scrape_configurations_are_configurations(tmp_path: Path) -> None:
    """`promtool check config` takes the compose file's, and with it the rules it names."""
    done = promtool("check", "config", str(laid_out(tmp_path / "etc")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == 2


@contextmanager
def prometheus(folder: Path, config: Path) -> Iterator[str]:
    """A running Prometheus; its address."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield address
        finally:
            process.terminate()


def ask(address: str, expression: str) -> list[dict[str, Any]]:
    """The samples of an expression; nothing while Prometheus is not up. Raises for a refusal."""
    query = urllib.parse.urlencode({"query": expression})
    code, text = get(address, f"/api/v1/query?{query}")
    if code in {0, 503}:
        return []
    assert code == 200, text
    found: list[dict[str, Any]] = json.loads(text)["data"]["result"]
    return found


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_prometheus_sees_three_regions_on_the_dashboard(tmp_path: Path) -> None:
    """A real Prometheus with the compose file's configuration scrapes a cluster of three nodes.

    Every panel of the dashboard shows something, and every rule is one that Prometheus computes.
    The nodes appear under the names and regions that they have.
    """
    with ExitStack() as stack:
        up = {name: stack.enter_context(node) for name, node in cluster(tmp_path).items()}
        init = ("k2", "regions", "init", "--nodes=3", "--keyspace=default:region:fra")
        at_first = {"K2_CLIENT__ENDPOINT": f"k2://{up['fra-1'].address}"}
        done = k2(tmp_path, init, at_first)
        assert done.returncode == 0, done.stderr
        config = laid_out(tmp_path / "etc")
        text = config.read_text().replace("_interval: 5s", "_interval: 1s")
        text = text.replace("_interval: 15s", "_interval: 1s")
        for name, node in up.items():
            assert f"{name}:7401" in text
            text = text.replace(f"{name}:7401", node.admin)
        config.write_text(text)
        (config.parent / "rules/recordings.yaml").write_text(
            (RULES / "recordings.yaml").read_text().replace("interval: 30s", "interval: 1s")
        )
        address = stack.enter_context(prometheus(tmp_path, config))
        done = k2(tmp_path, ("k2", "put", "key", "value"), at_first)
        assert done.returncode == 0, done.stderr
        _wait_for(address, "count(node:k2_commits:rate5m) == 3", tmp_path / "log")

        named = ask(address, "k2_build_info")
        assert {one["metric"]["node"]: one["metric"]["region"] for one in named} == NODES
        assert {one["metric"]["region"] for one in ask(address, "up == 1")} == set(NODES.values())
        (leads,) = ask(address, "sum by (partition) (k2_partition_leader)")
        assert leads["value"][1] == "1", "a partition has one leader, whoever is asked"
        _wait_for(address, "sum(k2_peer_connected) == 6", tmp_path / "log")
        for panel in dashboard.panels():
            for query in panel.queries:
                expression = query.expression.replace("$__rate_interval", "5m")
                expression = re.sub(r"\$(region|node)", ".*", expression)
                samples = ask(address, expression)
                assert all(one["metric"]["node"] in NODES for one in samples if _by_node(one))
                assert samples, f"{panel.title} shows nothing: {expression}"
        for alert in rules.ALERTS:
            ask(address, alert.expression)
        loaded = json.loads(get(address, "/api/v1/rules")[1])["data"]["groups"]
        problems = [
            (rule["name"], rule.get("lastError"))
            for group in loaded
            for rule in group["rules"]
            if rule["health"] not in {"ok", "unknown"}
        ]
        assert not problems
        assert sum(len(group["rules"]) for group in loaded) == len(rules.ALERTS) + len(
            rules.recordings()
        )


def cluster(folder: Path) -> dict[str, AbstractContextManager[Running]]:
    """Three nodes that know each other, the first of which keeps the control plane."""
    ports = free_ports(len(NODES))
    found: dict[str, AbstractContextManager[Running]] = {}
    for (name, region), port in zip(NODES.items(), ports, strict=True):
        (folder / name).mkdir()
        environment = {
            "K2_NODE__NAME": name,
            "K2_NODE__REGION": region,
            "K2_NODE__LISTEN": f"127.0.0.1:{port}",
            "K2_CLUSTER__CONTROL": "embedded" if port == ports[0] else f"k2://127.0.0.1:{ports[0]}",
        }
        found[name] = running(folder / name, environment=environment)
    return found


def _by_node(sample: dict[str, Any]) -> bool:
    return "node" in sample["metric"]


def _wait_for(address: str, expression: str, log: Path) -> None:
    """Return when an expression has samples."""
    pause = threading.Event()
    deadline_s = time.monotonic() + SCRAPES_S
    while not ask(address, expression):
        assert time.monotonic() < deadline_s, log.read_text()[-4000:]
        pause.wait(0.2)
