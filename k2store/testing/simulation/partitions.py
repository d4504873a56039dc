"""Shapes of network partitions, as the directed pairs of hosts that each of them cuts.

isolate     one host hears and is heard by nobody
halves      two groups, each whole in itself
one-way     the first group cannot reach the second, which still reaches the first
bridge      two groups and one host that both can talk to
ring        each host talks to its neighbours only: every one sees a different majority
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from k2store.testing.simulation.network import Pair


def between(some: Sequence[str], others: Sequence[str]) -> list[Pair]:
    """Both directions between two groups."""
    return [pair for one in some for other in others for pair in ((one, other), (other, one))]


def isolate(hosts: Sequence[str], rng: random.Random) -> list[Pair]:
    """Cut one host off from all others."""
    lonely = rng.choice(hosts)
    return between([lonely], [host for host in hosts if host != lonely])


def halves(hosts: Sequence[str], rng: random.Random) -> list[Pair]:
    """Split the hosts into two groups at random, neither empty."""
    some, others = _split(hosts, rng)
    return between(some, others)


def one_way(hosts: Sequence[str], rng: random.Random) -> list[Pair]:
    """Cut one direction between two groups."""
    some, others = _split(hosts, rng)
    return [(one, other) for one in some for other in others]


def bridge(hosts: Sequence[str], rng: random.Random) -> list[Pair]:
    """Split the hosts, but for one that all others can talk to."""
    if len(hosts) < 3:
        return halves(hosts, rng)
    middle = rng.choice(hosts)
    some, others = _split([host for host in hosts if host != middle], rng)
    return between(some, others)


def ring(hosts: Sequence[str], rng: random.Random) -> list[Pair]:
    """Leave each host only its neighbours in a random circle; fewer than four are split."""
    if len(hosts) < 4:
        return halves(hosts, rng)
    circle = rng.sample(hosts, len(hosts))
    reach = len(circle) // 4 or 1
    return [
        (one, other)
        for place, one in enumerate(circle)
        for distance in range(reach + 1, len(circle) - reach)
        for other in (circle[(place + distance) % len(circle)],)
    ]


SHAPES: Final[Mapping[str, Callable[[Sequence[str], random.Random], list[Pair]]]] = (
    MappingProxyType(
        {
            "isolate": isolate,
            "halves": halves,
            "one-way": one_way,
            "bridge": bridge,
            "ring": ring,
        }
    )
)


def _split(hosts: Sequence[str], rng: random.Random) -> tuple[list[str], list[str]]:
    assert len(hosts) > 1, hosts
    shuffled = rng.sample(hosts, len(hosts))
    size = rng.randrange(1, len(hosts))
    return shuffled[:size], shuffled[size:]
