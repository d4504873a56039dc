"""Draws fault schedules: each seed its own mixture.

If every run suffered from everything, no run would get far, and faults would hide one another.
So a seed first draws which kinds of fault it has at all, and how hard, and then when and to whom
they happen (Groce et al., "Swarm Testing", ISSTA 2012).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import msgspec

from k2store.testing.simulation.faults import Fault
from k2store.testing.simulation.network import MILLISECOND_NS, Pair
from k2store.testing.simulation.partitions import SHAPES

NETWORK_FAULTS: Final = (*SHAPES, "flap", "slow-link", "lossy-link", "clog", "reset")
PROCESS_FAULTS: Final = ("kill", "power-cut", "pause")
DISK_FAULTS: Final = ("fail-sync", "fail-flush", "disk-full", "slow-disk")
"""Faults after which nothing that was acknowledged may be missing."""
CLOCK_FAULTS: Final = ("clock-step", "clock-drift", "clock-freeze", "clock-doubt")
DAMAGE_FAULTS: Final = ("flip-bit", "misdirect", "fail-read", "lose-disk", "stale-disk")
"""Faults that destroy what a disk had acknowledged: to be noticed, or outvoted by replicas."""
TOLERATED_FAULTS: Final = NETWORK_FAULTS + PROCESS_FAULTS + DISK_FAULTS + CLOCK_FAULTS


class Knobs(msgspec.Struct, frozen=True):
    """How a schedule is drawn."""

    kinds: tuple[str, ...] = TOLERATED_FAULTS
    every_ns: int = 1_000 * MILLISECOND_NS
    """Mean time between beginnings."""
    lasts_ns: int = 2_000 * MILLISECOND_NS
    """Longest duration of a fault; most are shorter."""


def draw_knobs(rng: random.Random, allowed: Sequence[str] = TOLERATED_FAULTS) -> Knobs:
    """A random half of the allowed kinds, at least one, and a random pace."""
    kinds = tuple(kind for kind in allowed if rng.random() < 0.5) or (rng.choice(allowed),)
    return Knobs(
        kinds=kinds,
        every_ns=rng.choice((200, 1_000, 5_000)) * MILLISECOND_NS,
        lasts_ns=rng.choice((100, 1_000, 10_000)) * MILLISECOND_NS,
    )


def draw_schedule(
    rng: random.Random,
    servers: Sequence[str],
    hosts: Sequence[str],
    duration_ns: int,
    knobs: Knobs,
) -> list[Fault]:
    """Faults that begin within a duration, at least one.

    Processes, disks and clocks of `servers` suffer; the network between all `hosts` does.
    """
    schedule: list[Fault] = []
    at_ns = int(rng.random() * min(duration_ns, knobs.every_ns))
    while at_ns < duration_ns or not schedule:
        schedule.append(_draw(rng, rng.choice(knobs.kinds), at_ns, servers, hosts, knobs))
        at_ns += 1 + int(rng.expovariate(1 / knobs.every_ns))
    return schedule


def _draw(
    rng: random.Random,
    kind: str,
    at_ns: int,
    servers: Sequence[str],
    hosts: Sequence[str],
    knobs: Knobs,
) -> Fault:
    for_ns = 1 + int(rng.random() ** 2 * knobs.lasts_ns)
    target = ""
    pairs: tuple[Pair, ...] = ()
    if kind in NETWORK_FAULTS:
        pairs = _draw_pairs(rng, kind, hosts)
    else:
        target = rng.choice(servers)
    return Fault(at_ns, kind, for_ns, target, pairs, _draw_amount(rng, kind))


def _draw_pairs(rng: random.Random, kind: str, hosts: Sequence[str]) -> tuple[Pair, ...]:
    if kind in SHAPES:
        return tuple(SHAPES[kind](hosts, rng))
    if kind == "reset":
        one, other = rng.sample(hosts, 2)
        return ((one, other),)
    return tuple(SHAPES[rng.choice(tuple(SHAPES))](hosts, rng))


def _draw_amount(rng: random.Random, kind: str) -> float:
    match kind:
        case "flap":
            return rng.choice((20, 200, 1_000)) * MILLISECOND_NS
        case "slow-link":
            return rng.choice((5, 100, 1_000)) * MILLISECOND_NS
        case "lossy-link":
            return rng.choice((0.01, 0.1, 0.5))
        case "slow-disk":
            return rng.choice((5, 50, 1_000)) * MILLISECOND_NS
        case "fail-sync" | "fail-read" | "misdirect":
            return rng.choice((1, 1, 3))
        case "clock-step":
            return rng.choice((-1, 1)) * rng.choice((0.1, 1, 100)) * MILLISECOND_NS
        case "clock-drift":
            return rng.choice((-1, 1)) * rng.choice((10_000, 200_000, 10_000_000))
        case "clock-doubt":
            return rng.choice((0.5, 10, 100))
        case _:
            return 0
