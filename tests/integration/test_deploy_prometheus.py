"""Prometheus itself judges the rules, the scrape configurations, and what a node tells it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT
from tests.integration.deployed_node import get, running

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
