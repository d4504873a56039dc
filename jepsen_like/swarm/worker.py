"""What a worker does: reads "node 17" or "cluster 17", and answers with one line of JSON."""

from __future__ import annotations

import sys
from typing import Final

import msgspec

from jepsen_like.sim import cluster as clusters
from jepsen_like.sim.plan import draw
from jepsen_like.sim.swarm import Summary, one

CLUSTER: Final = "cluster"
NODE: Final = "node"
KINDS: Final = (NODE, CLUSTER)


class Answer(msgspec.Struct, frozen=True):
    """A seed that was run."""

    kind: str
    summary: Summary
    load_ns: int


def answer(kind: str, seed: int) -> Answer:
    """Run one seed."""
    cluster = kind == CLUSTER
    summary = one(seed, cluster=cluster)
    plan = clusters.draw(seed) if cluster else draw(seed)
    return Answer(kind, summary, min(plan.duration_ns, summary.virtual_ns))


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        kind, seed = line.split()
        told = answer(kind, int(seed))
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        sys.stdout.flush()
