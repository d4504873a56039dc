"""Rare situations are counted where they are met, and only there."""

from __future__ import annotations

from k2store.testing.simulation.cluster_probes import CLUSTER_CASE_PROBES, CLUSTER_PROBES
from k2store.testing.simulation.node_probes import CASE_PROBES, NODE_PROBES
from mvcc.cases import Case


def test_every_case_is_a_probe_of_the_simulator() -> None:
    """None is counted for nobody, none twice, and each has a meaning that is told."""
    assert not set(CASE_PROBES) & set(CLUSTER_CASE_PROBES)
    assert {*CASE_PROBES, *CLUSTER_CASE_PROBES} == set(Case)
    assert set(CASE_PROBES.values()) <= set(NODE_PROBES)
    assert set(CLUSTER_CASE_PROBES.values()) <= set(CLUSTER_PROBES)
