"""When everything has come to rest: one leader a partition, and replicas that are equal.

Two looks at the same: the logs, by the hash over all their entries, and the rows that each node has
made of them, by stamp. Rows are compared at one stamp below every replica's closed time; where
nothing is collected, every version that was ever written is compared, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from k2store.control.map import Map, PartitionInfo, members
from k2store.node.cluster.group import Group
from k2store.node.spaces import SPACE
from k2store.testing.simulation.cluster import ClusterNode

Row = tuple[bytes, int, bytes | None]


Marks = dict[int, int]
"""Of each partition the last entry that every replica must have applied."""


def marks(nodes: Sequence[ClusterNode]) -> Marks:
    """The ends of all logs now. Leaders go on dropping what nobody asks for any more."""
    found: Marks = {}
    for node in nodes:
        if not _ready(node):
            continue
        for number, group in node.host.groups.items():
            found[number] = max(found.get(number, 0), group.replica.applied_lsn)
    return found


def unsettled(nodes: Sequence[ClusterNode], wanted: Map, marked: Marks, since: int) -> list[str]:
    """What keeps the cluster from being at rest; empty once it is.

    `since` is a stamp over which everybody must have closed time.
    """
    found = [f"{node.name} does not serve" for node in nodes if not _ready(node)]
    if found:
        return found
    for node in nodes:
        if node.host.map is None or node.host.map.version != wanted.version:
            found.append(f"{node.name} does not know the map of version {wanted.version}")
        extra = set(node.host.groups) - {info.id for info in wanted.partitions}
        if extra:
            found.append(f"{node.name} has partitions {sorted(extra)}, which are none any more")
    for info in wanted.partitions:
        mark = marked.get(info.id, 0)
        found += [f"partition {info.id}: {what}" for what in _unsettled(nodes, info, mark, since)]
    return found


def _ready(node: ClusterNode) -> bool:
    return node.engine is not None and node.engine.handler_ready()


def _unsettled(
    nodes: Sequence[ClusterNode], info: PartitionInfo, mark: int, since: int
) -> list[str]:
    groups = {node.name: node.host.groups.get(info.id) for node in nodes}
    missing = [name for name, group in groups.items() if group is None]
    if missing:
        return [f"{', '.join(missing)} do not have it"]
    here = {name: group for name, group in groups.items() if group is not None}
    leaders = [name for name, group in here.items() if group.leading]
    if len(leaders) != 1:
        return [f"led by {leaders or 'nobody'}"]
    leader = here[leaders[0]]
    found: list[str] = []
    if (leader.start, leader.end) != (info.start, info.end):
        found.append(f"from {leader.start!r} to {leader.end!r}, not {info.start!r} to {info.end!r}")
    membership = leader.replica.membership
    if set(membership.voters) != set(info.voters):
        found.append(f"voters {membership.voters}, wanted {info.voters}")
    if set(membership.everyone) != set(members(info)):
        found.append(f"members {membership.everyone}, wanted {members(info)}")
    for name, group in here.items():
        replica = group.replica
        if replica.leader != leader.replica.state.identity:
            found.append(f"{name} follows {replica.leader}, not {leader.replica.state.identity}")
        elif replica.applied_lsn < mark:
            found.append(f"{name} has applied {replica.applied_lsn} of {mark}")
        elif group.safe() < since:
            found.append(f"{name} has closed time up to {group.safe()} only, not {since}")
        elif replica.membership != membership:
            found.append(f"{name} knows the members {replica.membership}, not {membership}")
    return found


def differences(nodes: Sequence[ClusterNode], *, keeps_history: bool) -> list[str]:
    """Where replicas of one partition differ."""
    found: list[str] = []
    for number in nodes[0].host.groups:
        groups = {node.name: node.host.groups[number] for node in nodes}
        found += [f"partition {number}: {what}" for what in _logs(groups)]
        at = min(group.safe() for group in groups.values())
        rows = {
            node.name: _rows(node, node.host.groups[number], at, keeps_history=keeps_history)
            for node in nodes
        }
        first, *others = rows
        for name in others:
            if rows[name] != rows[first]:
                differing = sorted(set(rows[name]) ^ set(rows[first]), key=str)
                found.append(
                    f"partition {number}: at {at} {name} and {first} hold different rows: "
                    f"{differing[:3]}"
                )
    return found


def _logs(groups: dict[str, Group]) -> list[str]:
    """Entries that two replicas both still have are the same ones."""
    found: list[str] = []
    (first, one), *others = groups.items()
    for name, other in others:
        begin = max(one.base.lsn, other.base.lsn)
        end = min(one.replica.applied_lsn, other.replica.applied_lsn)
        for lsn in range(end, begin - 1, -1):
            left = one.replica.state.log.position(lsn)
            right = other.replica.state.log.position(lsn)
            if left != right:
                found.append(f"entry {lsn} is {left} at {first} and {right} at {name}")
                break
    return found


def _rows(node: ClusterNode, group: Group, at: int, *, keeps_history: bool) -> list[Row]:
    """The newest version of each key at or below a stamp; all of them where none is collected."""
    assert node.engine is not None
    state = group.partition.state
    state.settle()
    found: list[Row] = []
    newest: dict[bytes, Row] = {}
    for batch in node.engine.settled.all_rows(SPACE, state.start, state.end or None):
        for key, stamp, value in batch:
            if stamp > at:
                continue
            found.append((key, stamp, value))
            known = newest.get(key)
            if known is None or known[1] < stamp:
                newest[key] = (key, stamp, value)
    if keeps_history:
        return sorted(found, key=lambda row: row[:2])
    return sorted((row for row in newest.values() if row[2] is not None), key=lambda row: row[0])
