"""A schedule for a real cluster: every kind of fault once, in any order, and then again.

Two faults last at a time, more or less. Faults that stop a process, or take its disk, come to
different nodes, and no second one of a region is down meanwhile: what was promised is that any one
may fail, and it is the order of events that is random here, not whether the store is asked for more
than it can do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Final, TypeAlias

import msgspec

from jepsen_like.nemesis.drivers import DRIVERS
from jepsen_like.nemesis.schedule import Fault, Pair, Schedule

SECOND_NS: Final = 1_000_000_000
MILLISECOND_NS: Final = 1_000_000
LASTS_NS: Final = (1 * SECOND_NS, 4 * SECOND_NS)
QUIET_NS: Final = 3 * SECOND_NS
"""At the beginning, and again at the end: what a fault leaves behind shows under load."""
STOPPING: Final = frozenset(
    {
        "corrupt",
        "disk-full",
        "fail-sync",
        "kill",
        "lose-disk",
        "pause",
        "power-cut",
        "slow-disk",
        "stale-disk",
        "starve-cpu",
        "starve-memory",
        "stop",
    }
)
"""Kinds that have a node to themselves."""
DESTROYING: Final = ("corrupt", "lose-disk", "stale-disk")
DISHONEST: Final = ("clock-freeze", "clock-violation")
"""A clock outside its bound: the order of things is owed to nobody then."""
RESTART_NS: Final = 8 * SECOND_NS
"""A node that was stopped has come back after so long, also on a busy machine."""
_CLOCK: Final = "clock of "
COPY_NS: Final = 12 * SECOND_NS
"""And one without a disk has copied everything."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a schedule is drawn for.

    hosts     nodes and clients, with their regions
    nodes     the nodes among them
    keeper    keeps the control plane: its disk must stay
    borders   keys at which partitions may be split
    bound_ns  of the clocks
    """

    hosts: Mapping[str, str]
    nodes: Sequence[str]
    keeper: str
    borders: Sequence[str]
    bound_ns: int
    kinds: Sequence[str] = tuple(sorted(DRIVERS))
    honest: bool = True


def draw(rng: random.Random, plan: Plan, duration_ns: int) -> Schedule:
    """A schedule of so long."""
    kinds = [kind for kind in plan.kinds if not plan.honest or kind not in DISHONEST]
    if not plan.honest:
        kinds = [*(set(kinds) - set(DISHONEST)), "clock-violation", "clock-violation"]
    gap_ns = (duration_ns - 2 * QUIET_NS) / max(1, len(kinds))
    faults: list[Fault] = []
    busy: dict[str, int] = {}
    left: list[str] = []
    # A node that lost its disk needs its time, so those come first; the others in any order.
    first = [kind for kind in rng.sample(DESTROYING, len(DESTROYING)) if kind in kinds]
    others = sorted(set(kinds) - set(first))
    at_ns = float(QUIET_NS)
    destroyed_ns = -COPY_NS
    while at_ns < duration_ns - QUIET_NS:
        if first and at_ns - destroyed_ns >= COPY_NS:
            kind, destroyed_ns = first.pop(), int(at_ns)
        else:
            if not left:
                left = rng.sample(others, len(others))
            kind = left.pop()
        for_ns = min(rng.randint(*LASTS_NS), int(duration_ns - at_ns))
        fault = _draw(rng, plan, kind, int(at_ns), for_ns, busy)
        if fault is not None:
            faults.append(fault)
        at_ns += gap_ns
    return Schedule(duration_ns=duration_ns, hosts=dict(plan.hosts), faults=tuple(faults))


# -- one fault -------------------------------------------------------------------------------------


def _draw(
    rng: random.Random, plan: Plan, kind: str, at_ns: int, for_ns: int, busy: dict[str, int]
) -> Fault | None:
    """`busy` says until when each node has a fault to itself. None when no node is left."""
    if kind in STOPPING:
        target = _free(rng, plan, kind, at_ns, busy)
        if target is None:
            return None
        busy[target] = at_ns + for_ns + (COPY_NS if kind in DESTROYING else RESTART_NS)
        return Fault(at_ns, kind, for_ns, target, (), _AMOUNTS.get(kind, _none)(rng, plan))
    if kind.startswith("clock-"):
        # Two at a time on one clock might add up to more than its bound.
        able = [
            name
            for name in plan.nodes
            if max(busy.get(_CLOCK + name, 0), busy.get(name, 0)) <= at_ns
        ]
        if not able:
            return None
        target = rng.choice(able)
        busy[_CLOCK + target] = at_ns + for_ns + SECOND_NS
        return Fault(at_ns, kind, for_ns, target, (), _AMOUNTS.get(kind, _none)(rng, plan))
    if kind == "split":
        return Fault(at_ns, kind, for_ns, rng.choice(list(plan.borders)))
    if kind == "move":
        return Fault(at_ns, kind, for_ns, amount=rng.randrange(1 << 20))
    pairs = _PAIRS[kind](rng, plan)
    return Fault(at_ns, kind, for_ns, "", pairs, _AMOUNTS.get(kind, _none)(rng, plan))


def _free(
    rng: random.Random, plan: Plan, kind: str, at_ns: int, busy: Mapping[str, int]
) -> str | None:
    down = {plan.hosts.get(name) for name, until_ns in busy.items() if until_ns > at_ns}
    able = [
        name
        for name in plan.nodes
        if plan.hosts[name] not in down and not (kind in DESTROYING and name == plan.keeper)
    ]
    return rng.choice(able) if able else None


Amount: TypeAlias = Callable[[random.Random, Plan], float]


def _none(rng: random.Random, plan: Plan) -> float:
    del rng, plan
    return 0


def _inside(rng: random.Random, plan: Plan) -> float:
    """Nearly as wrong as the bound allows."""
    return rng.choice((-1, 1)) * 0.4 * plan.bound_ns


_AMOUNTS: Final[Mapping[str, Amount]] = {
    "clock-doubt": lambda rng, plan: rng.choice((2, 3, 10)),
    # Over the longest of faults it stays inside the bound.
    "clock-drift": lambda rng, plan: (
        rng.choice((-1, 1)) * 0.3 * plan.bound_ns / (LASTS_NS[1] / 1e9)
    ),
    "clock-step": _inside,
    "clock-strobe": _inside,
    "clock-violation": lambda rng, plan: rng.choice((-1, 1)) * rng.randint(300, 2000) * 1e6,
    "corrupt": lambda rng, plan: rng.choice((1, 3, 20)),
    "flap": lambda rng, plan: rng.choice((100, 300)) * MILLISECOND_NS,
    "lossy-link": lambda rng, plan: rng.choice((0.02, 0.1)),
    "slow-disk": lambda rng, plan: rng.choice((5, 20)) * MILLISECOND_NS,
    "slow-link": lambda rng, plan: rng.choice((20, 100)) * MILLISECOND_NS,
    "slow-region": lambda rng, plan: rng.choice((50, 200)) * MILLISECOND_NS,
    "starve-cpu": lambda rng, plan: rng.choice((0.02, 0.05)),
    "starve-memory": lambda rng, plan: rng.choice((256, 1024)) * (1 << 10),
}


# -- who does not hear whom ------------------------------------------------------------------------


def _between(some: Sequence[str], others: Sequence[str]) -> tuple[Pair, ...]:
    return tuple(pair for one in some for other in others for pair in ((one, other), (other, one)))


def _isolate(rng: random.Random, plan: Plan) -> tuple[Pair, ...]:
    alone = rng.choice(list(plan.nodes))
    return _between([alone], [name for name in plan.hosts if name != alone])


def _split_in_two(rng: random.Random, plan: Plan) -> tuple[list[str], list[str]]:
    mixed = rng.sample(list(plan.nodes), len(plan.nodes))
    middle = len(mixed) // 2
    return mixed[:middle], mixed[middle:]


def _halves(rng: random.Random, plan: Plan) -> tuple[Pair, ...]:
    return _between(*_split_in_two(rng, plan))


def _majority(rng: random.Random, plan: Plan) -> tuple[Pair, ...]:
    mixed = rng.sample(list(plan.nodes), len(plan.nodes))
    few = max(1, len(mixed) // 3)
    return _between(mixed[:few], mixed[few:])


def _one_way(rng: random.Random, plan: Plan) -> tuple[Pair, ...]:
    some, others = _split_in_two(rng, plan)
    return tuple((one, other) for one in some for other in others)


def _bridge(rng: random.Random, plan: Plan) -> tuple[Pair, ...]:
    some, others = _split_in_two(rng, plan)
    return _between(some, others[1:])


def _ring(rng: random.Random, plan: Plan) -> tuple[Pair, ...]:
    mixed = rng.sample(list(plan.nodes), len(plan.nodes))
    count = len(mixed)
    place = {name: index for index, name in enumerate(mixed)}
    return tuple(
        (one, other)
        for one, other in permutations(mixed, 2)
        if (place[one] - place[other]) % count not in (1, count - 1)
    )


def _some_links(rng: random.Random, plan: Plan) -> tuple[Pair, ...]:
    return _between(*_split_in_two(rng, plan))


def _region(rng: random.Random, plan: Plan) -> tuple[Pair, ...]:
    regions = sorted(set(plan.hosts.values()))
    alone = rng.choice(regions)
    return _between([alone], [region for region in regions if region != alone])


def _region_one_way(rng: random.Random, plan: Plan) -> tuple[Pair, ...]:
    pairs = _region(rng, plan)
    return pairs[::2] if rng.random() < 0.5 else pairs[1::2]


_PAIRS: Final[Mapping[str, Callable[[random.Random, Plan], tuple[Pair, ...]]]] = {
    "bridge": _bridge,
    "cut-region": _region,
    "cut-region-one-way": _region_one_way,
    "duplicate": _some_links,
    "flap": _majority,
    "halves": _halves,
    "isolate": _isolate,
    "lossy-link": _some_links,
    "majority": _majority,
    "one-way": _one_way,
    "ring": _ring,
    "slow-link": _some_links,
    "slow-region": _region,
}
