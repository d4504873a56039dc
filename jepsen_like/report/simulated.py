"""The record of a simulated run: the seed is run once more, and what happened is kept."""

from __future__ import annotations

from typing import Any

from jepsen_like.nemesis.nemesis import Applied
from jepsen_like.report.record import Record, record_of
from jepsen_like.sim.cluster.plan import draw as draw_cluster
from jepsen_like.sim.cluster.scene import ClusterScene
from jepsen_like.sim.plan import Load, draw
from jepsen_like.sim.scene import Scene, staged
from jepsen_like.sim.stage import Result, Stage


def simulated(seed: int, *, cluster: bool = False, length: int = 1) -> Record:
    """Run a seed and give its record; times are virtual."""
    records: list[Record] = []

    def look(stage: Stage, result: Result) -> None:
        records.append(_record(stage, result))

    if cluster:
        staged(draw_cluster(seed), ClusterScene, None, look)
    else:
        staged(draw(seed, length=length), Scene, None, look)
    return records[0]


def _record(stage: Stage, result: Result) -> Record:
    plan, entries = stage.load, stage.journal.entries
    # The schedule begins when the first client does.
    began_ns = min((entry.began_ns for entry in entries), default=0)
    engine = stage.engine
    applied = [
        Applied(
            one.fault,
            "idle" if one.evidence is None else "effective",
            one.evidence or "",
            began_ns + one.fault.at_ns,
            began_ns + min(one.fault.at_ns + one.fault.for_ns, plan.duration_ns),
        )
        for one in (() if engine is None else engine.applied)
    ]
    return record_of(
        stage.journal,
        applied=applied,
        began_ns=began_ns,
        hosts=_hosts(plan),
        verdict=_verdict(result),
        title=f"simulated run of seed {plan.seed}",
    )


def _hosts(plan: Load) -> dict[str, str]:
    nodes: dict[str, str] = getattr(plan, "nodes", {"node": "local"})
    places: dict[str, str] = getattr(plan, "places", dict.fromkeys(plan.clients, "local"))
    return {**nodes, **places}


def _verdict(result: Result) -> dict[str, Any]:
    return {
        "valid": not result.failures,
        "anomalies": result.failures,
        "commits": result.commits,
        "transactions": result.transactions,
        "unknown": result.unknown,
        "conflicts": result.conflicts,
        "faults": dict(sorted(result.fault_kinds.items())),
        "probes": {name: count for name, count in sorted(result.probes.items()) if count},
    }
