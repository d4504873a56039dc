"""What a worker does: reads "node 17" or "cluster 17", and answers with one line of JSON."""

from __future__ import annotations

import sys
from typing import Final

import msgspec

from jepsen_like.sim import cluster as clusters
from jepsen_like.sim import run
from jepsen_like.sim.plan import draw
from jepsen_like.sim.swarm import Summary, summary_of
from k2store.testing.simulation import stream

CLUSTER: Final = "cluster"
NODE: Final = "node"
KINDS: Final = (NODE, CLUSTER)
LENGTHS: Final = (1, 4, 12, 12)


class Answer(msgspec.Struct, frozen=True):
    """A seed that was run."""

    kind: str
    summary: Summary
    load_ns: int


def length_of(kind: str, seed: int) -> int:
    """How many times as long as usual a seed runs: short runs meet much, long ones much at once."""
    return 1 if kind == CLUSTER else stream(seed, "length").choice(LENGTHS)


def answer(kind: str, seed: int) -> Answer:
    """Run one seed."""
    if kind == CLUSTER:
        result = clusters.run(seed)
    else:
        result = run(seed, plan=draw(seed, length=length_of(kind, seed)))
    load_ns = min(result.plan.duration_ns, result.virtual_ns)
    return Answer(kind, summary_of(result), load_ns)


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        kind, seed = line.split()
        told = answer(kind, int(seed))
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        sys.stdout.flush()
