"""What a worker does: reads "slow 17" or "ambush 17", and answers with one line of JSON."""

from __future__ import annotations

import sys
from typing import IO, Final

import msgspec

from jepsen_like.sim import cluster as clusters
from jepsen_like.sim import run
from jepsen_like.sim.cluster import ambush, contested
from jepsen_like.sim.plan import Load, Plan, draw, draw_slow
from jepsen_like.sim.stage import Result
from jepsen_like.sim.swarm import Summary, summary_of
from k2store.testing.simulation import stream

NODE: Final = "node"
SLOW: Final = "slow"
CLUSTER: Final = "cluster"
AMBUSH: Final = "ambush"
LIARS: Final = "liars"
CONTESTED: Final = "contested"
KINDS: Final = (NODE, SLOW, CLUSTER, AMBUSH, LIARS, CONTESTED)
"""One node for some seconds; for minutes; regions; regions whose faults wait for their moment;
regions with clocks outside their bound; regions whose leads are contested, with clocks far apart."""
LENGTHS: Final = (1, 1, 4, 4)


class Answer(msgspec.Struct, frozen=True):
    """A seed that was run."""

    kind: str
    summary: Summary


def plan_of(kind: str, seed: int) -> Load:
    """What a seed stands for in plans of a kind; ValueError for an unknown kind."""
    match kind:
        case "node":
            # Short runs meet much, long ones much at once.
            return draw(seed, length=stream(seed, "length").choice(LENGTHS))
        case "slow":
            return draw_slow(seed)
        case "cluster":
            return clusters.draw(seed)
        case "ambush":
            return ambush.draw(seed)
        case "liars":
            return clusters.draw(seed, honest=False)
        case "contested":
            return contested.draw(seed)
    raise ValueError(f"no kind of plan {kind!r}; there are {', '.join(KINDS)}")


def played(plan: Load, trace_sink: IO[str] | None = None) -> Result:
    """Run a plan, of whatever kind."""
    if isinstance(plan, clusters.ClusterPlan):
        return clusters.run(plan.seed, plan=plan, trace_sink=trace_sink)
    assert isinstance(plan, Plan)
    return run(plan.seed, plan=plan, trace_sink=trace_sink)


def answer(kind: str, seed: int) -> Answer:
    """Run one seed."""
    return Answer(kind, summary_of(played(plan_of(kind, seed))))


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        kind, seed = line.split()
        told = answer(kind, int(seed))
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        sys.stdout.flush()
