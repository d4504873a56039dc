"""What a host does as time passes: close time, look for leaders, tell others what is open here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from k2store.node.cluster import pulling
from k2store.node.cluster.frames import NO_MORE, Hint
from mvcc.refusals import Rule
from truetime import Interval
from truetime.timestamp import floor

if TYPE_CHECKING:
    from k2store.node.cluster.group import Group
    from k2store.node.cluster.host import ClusterHost

HINT_LIFE_NS: Final = 1_000_000_000
"""How long a node's word about its open transactions counts."""
ROOM_ENTRIES_MIN: Final = 256
"""Proposals that a log must still take before a leader's partition is asked anything."""
REPORT_NS: Final = 200_000_000
"""How often nodes tell each other how far history is final."""
INTEREST_NS: Final = 10_000_000_000
"""How long a node that has written somewhere goes on giving its word there."""


def tick_machine(
    host: ClusterHost, group: Group, now: Interval, oldest_open: int, protected: int
) -> None:
    """Upkeep of one partition's machine, as leader or as follower."""
    partition = group.partition
    pulling.let_go(group, now.lo_ns)
    if group.leading:
        group.full = group.replica.room(now) < ROOM_ENTRIES_MIN
        if group.held and not (group.full or group.heir or host.rotation.due):
            host.let_in(group)
    if group.leading and not (host.rotation.due or group.heir):
        fresh = [
            stamp for stamp, heard_ns in group.hints.values() if now.lo_ns - heard_ns < HINT_LIFE_NS
        ]
        oldest = min([*fresh, *([oldest_open] if oldest_open else [])], default=0)
        partition.tick(now, oldest, protected)
        group.led_safe = partition.safe()[0]
        epoch = now.lo_ns // host.settings.close_interval_ns
        # Followers take what is closed to hold from the last entry of the log on. What is gathered and not in
        # the log yet may have an old stamp, if it was held back: then its own entry tells.
        if epoch > group.closed_epoch and not partition.state.records:
            # By the clock, so that all leaders everywhere do it at once: what waits for the last
            # of several partitions then waits for one epoch.
            group.closed_epoch = epoch
            group.replica.close(partition.state.closed, now)
        key = group.measure.step(host.engine.settled, group, now.lo_ns)
        if key is not None:
            host.want_split(group.number, key)
    elif not group.leading:
        partition.tick(now, 0, protected)
        group.show()
    partition.state.settle()


def look_for_leader(host: ClusterHost, group: Group, now: Interval) -> None:
    """Give up what a former leader was asked; send on what waits when there is a leader."""
    leader = group.replica.leader
    if leader != host.leaders.get(group.number):
        host.leaders[group.number] = leader
        host.engine.dispatch(host.forwarding.give_up_partition(group.number, leader or 0))
    if not group.waiting:
        return
    reachable = group.leading or host.links.to(leader) is not None
    waiting, group.waiting = group.waiting, []
    for deadline_ns, message in waiting:
        if deadline_ns <= now.lo_ns:
            host.refuse(message, Rule.NOT_LEADER)
        elif reachable:
            host.run(group.number, message)
        else:
            group.waiting.append((deadline_ns, message))


def hint(host: ClusterHost, now: Interval, oldest_open: int) -> None:
    """Tell leaders elsewhere what is open here, so that they do not close time over it.

    The last word is that there is no more to come: else the one before it would hold time up for
    as long as it counts.
    """
    stamp = min(oldest_open, floor(now.lo_ns)) if oldest_open else floor(now.lo_ns)
    for group in host.groups.values():
        if group.leading or not group.interest_ns:
            continue
        over = now.lo_ns - group.interest_ns > INTEREST_NS
        if over:
            group.interest_ns = 0
        link = host.links.to(group.replica.leader)
        if link is not None:
            link.hint(Hint(group.number, NO_MORE if over else stamp))


def report(host: ClusterHost) -> None:
    """Let the others know how far history is final here, and what time it is."""
    monotonic_ns = host.engine.clock.monotonic_ns()
    if monotonic_ns - host.reported_ns < REPORT_NS:
        return
    host.reported_ns = monotonic_ns
    report = host.report()
    for link in host.links:
        if link.up:
            link.report(report)
