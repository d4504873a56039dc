"""States of the protocol in which a fault may find a node, and which pairs of both a run has met.

A fault that comes while nothing is under way proves little. So what is counted is pairs: a group of
faults, and a state in which one of them began or ended and took effect. Faults can also be told to
wait for a state (`Fault.when`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from k2store.testing.simulation import Applied, Fault, Simulation
from k2store.testing.simulation.cluster import ClusterNode

State = Callable[[ClusterNode], bool]


def _leads(node: ClusterNode) -> bool:
    return any(group.leading for group in node.host.groups.values())


def _open(node: ClusterNode) -> bool:
    return any(group.partition.state.undecided for group in node.host.groups.values())


def _waiting(node: ClusterNode) -> bool:
    return any(
        local.waiters
        for group in node.host.groups.values()
        if group.leading
        for local in group.partition.state.undecided.values()
    )


def _undurable(node: ClusterNode) -> bool:
    return any(
        group.leading and group.partition.state.awaiting for group in node.host.groups.values()
    )


def _unconfirmed(node: ClusterNode) -> bool:
    return any(
        group.leading and group.partition.state.unconfirmed for group in node.host.groups.values()
    )


def _leaderless(node: ClusterNode) -> bool:
    return any(group.replica.leader is None for group in node.host.groups.values())


def _asked_others(node: ClusterNode) -> bool:
    return len(node.host.forwarding) > 0


def _queued(node: ClusterNode) -> bool:
    return any(group.waiting or group.held for group in node.host.groups.values())


def _copying(node: ClusterNode) -> bool:
    return len(node.host.pulls) > 0


def _handing_over(node: ClusterNode) -> bool:
    return any(group.heir for group in node.host.groups.values())


def _behind(node: ClusterNode) -> bool:
    return any(
        not group.leading and group.replica.applied_lsn < group.replica.state.log.last.lsn
        for group in node.host.groups.values()
    )


STATES: Final[Mapping[str, State]] = MappingProxyType(
    {
        "asked-others": _asked_others,
        "behind": _behind,
        "copying": _copying,
        "handing-over": _handing_over,
        "leaderless": _leaderless,
        "leads": _leads,
        "open": _open,
        "queued": _queued,
        "unconfirmed": _unconfirmed,
        "undurable": _undurable,
        "waiting": _waiting,
    }
)
"""Name to test, of a node that serves."""

MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "asked-others": "requests of its clients are at other nodes",
        "behind": "it has entries that it cannot apply yet",
        "copying": "rows of a partition are being copied to it",
        "handing-over": "it gives a lead to an heir",
        "leaderless": "it knows no leader of a partition",
        "leads": "it leads a partition",
        "open": "transactions have intents whose verdict it does not know",
        "queued": "requests wait for a leader, an heir or a checkpoint",
        "unconfirmed": "a participant has not confirmed a verdict of it",
        "undurable": "entries that it leads are not on a majority yet",
        "waiting": "somebody waits for an intent",
    }
)

FAULT_GROUPS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "clock": ("clock-step", "clock-drift", "clock-freeze", "clock-doubt", "clock-strobe"),
        "crash": ("kill", "power-cut", "stop", "lose-disk", "stale-disk", "corrupt", "fail-sync"),
        "cut": (
            "isolate",
            "halves",
            "majority",
            "one-way",
            "bridge",
            "ring",
            "flap",
            "cut-region",
            "cut-region-one-way",
        ),
        "order": ("move", "split"),
        "slow": ("slow-link", "lossy-link", "clog", "slow-region", "slow-disk"),
        "stall": ("pause", "starve-cpu"),
        "break": ("reset", "duplicate"),
    }
)
"""Groups of faults that a state can be paired with."""

_GROUP_OF: Final = {kind: group for group, kinds in FAULT_GROUPS.items() for kind in kinds}

PAIR_PROBES: Final = tuple(
    f"pair.{group}.{state}" for group in sorted(FAULT_GROUPS) for state in sorted(STATES)
)


def states_of(nodes: Iterable[ClusterNode]) -> set[str]:
    """The states in which some of these nodes are; none of one that does not serve."""
    found: set[str] = set()
    for node in nodes:
        if node.engine is None or not node.engine.handler_ready():
            continue
        found.update(name for name, holds in STATES.items() if name not in found and holds(node))
    return found


def looker(simulation: Simulation, nodes: Sequence[ClusterNode]) -> Callable[[Fault], set[str]]:
    """What an engine asks when a fault begins or ends: the states of the nodes it happens to."""
    by_name = {node.name: node for node in nodes}

    def look(fault: Fault) -> set[str]:
        names = {fault.target} | {name for pair in fault.pairs for name in pair}
        hit = [by_name[name] for name in sorted(names & set(by_name))]
        return states_of(node for node in hit or nodes if simulation.processes[node.name].alive)

    return look


def pairs_met(applied: Iterable[Applied]) -> dict[str, int]:
    """How often faults that took effect met each of `PAIR_PROBES`."""
    counts = dict.fromkeys(PAIR_PROBES, 0)
    for one in applied:
        group = _GROUP_OF.get(one.fault.name)
        if one.evidence is None or group is None:
            continue
        for state in one.met:
            counts[f"pair.{group}.{state}"] += 1
    return counts
