"""What other nodes say in a frame, handed to whom it concerns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2store.errors import ClockUncertain, Corruption
from k2store.node.cluster import pulling
from k2store.node.cluster.frames import NO_MORE, Forwarded, Frame, Hint
from mvcc.messages import Forgets
from mvcc.refusals import Rule

if TYPE_CHECKING:
    from k2store.node.cluster.host import ClusterHost


def take(host: ClusterHost, node: int, frame: Frame) -> None:
    """Hand on everything in a frame of another node."""
    if frame.outdated and frame.outdated == host.engine.incarnation.hex():
        host.engine.fail(outdated(node))
        return
    if host.is_off(node):
        return
    _compare_clocks(host, node, frame)
    for number, message in frame.logs:
        host.log_message(number, message)
    if frame.answers:
        host.engine.dispatch(host.forwarding.receive(frame.answers))
    for forwarded in frame.requests:
        _forwarded(host, forwarded)
    for key, carried in frame.carried:
        group = host.groups.get(host.route.of(key))
        if group is not None and group.leading:
            host.run(group.number, carried)
    for hint in frame.hints:
        _hinted(host, node, hint)
    for name, said in frame.homes:
        host.home_leases.receive(name, said, host.engine.now)
    if frame.report is not None:
        host.reports[node] = (frame.report, host.engine.now.lo_ns)
    for pull in frame.pulls:
        pulling.serve(host, node, pull)
    for page in frame.pages:
        host.pulls.receive(node, page)


def outdated(witness: int) -> Corruption:
    """Why a node must end that another one has met in a later life of its folder."""
    return Corruption(
        f"this data folder is an old copy: node {witness} has met this node after it was started as "
        "often or more often. What it has acknowledged since is not in it: remove the data folder "
        "and start the node again, as a new member",
        what="cluster",
    )


def _compare_clocks(host: ClusterHost, node: int, frame: Frame) -> None:
    clock = host.engine.clock
    try:
        # Not the turn's reading: that stands still while the own clock is doubted.
        now = clock.now()
    except ClockUncertain:
        return
    host.fence.hear(
        node,
        frame.lo_ns,
        accuses=frame.accuses,
        now=now,
        monotonic_ns=clock.monotonic_ns(),
    )


def _hinted(host: ClusterHost, node: int, hint: Hint) -> None:
    led = host.groups.get(hint.partition)
    if led is None or not led.leading:
        return
    if hint.stamp == NO_MORE:
        led.hints.pop(node, None)
    else:
        led.hints[node] = (hint.stamp, host.engine.now.lo_ns)


def _forwarded(host: ClusterHost, forwarded: Forwarded) -> None:
    message = forwarded.message
    if isinstance(message, Forgets):
        for group in host.groups.values():
            if group.leading:
                group.partition.receive(message, host.engine.now)
        return
    led = host.groups.get(forwarded.partition)
    if led is None or not led.leading:
        host.refuse(message, Rule.NOT_LEADER)
    elif led.end != forwarded.end:
        host.refuse(message, Rule.WRONG_PARTITION)
    else:
        host.run(led.number, message)
