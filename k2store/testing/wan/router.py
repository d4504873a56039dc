"""The engine between namespaces: carries packets from leg to leg, each when its link says.

``python -m k2store.testing.wan.router`` with orders on standard input. One thread and one heap: a
packet costs some twenty microseconds, so a core carries tens of thousands a second. The wait is
`select`, whose timeout has microseconds where that of epoll has milliseconds.
"""

from __future__ import annotations

import heapq
import os
import select
import time
from typing import Final, NamedTuple

from k2store.errors import K2Error
from k2store.testing.wan import addresses, namespaces
from k2store.testing.wan.link import Link
from k2store.testing.wan.network import Network
from k2store.testing.wan.orders import Failed, Listen, Ready, Setup
from k2store.testing.wan.owner import INPUT, LOOK_S, Owner

QUEUE_PACKETS_MAX: Final = 200_000
BURST_PACKETS_MAX: Final = 128
"""Read from one leg before the others are looked at again."""

PRIORITY: Final = 1
"""The lowest of the real-time ones, before all ordinary processes: a packet that waits for a
processor is late. Niceness would not do: it counts only among processes of one session."""


class Underway(NamedTuple):
    """A packet between its ends, ordered by its time and then by its coming."""

    due_s: float
    number: int
    leg: int
    link: Link
    packet: bytes


class Router:
    """See the module."""

    def __init__(self, network: Network, legs: list[int], owner: Owner) -> None:
        self._network = network
        self._owner = owner
        self._legs = legs
        self._regions = {leg: region for region, leg in enumerate(legs)}
        self._queue: list[Underway] = []
        self._number = 0

    def run(self) -> None:
        """Carry packets until the owner is gone."""
        watched = [INPUT, *self._legs]
        while self._owner.present:
            readable, _, _ = select.select(watched, [], [], self._wait_s())
            for descriptor in readable:
                if descriptor != INPUT:
                    self._take(descriptor)
                elif not self._obey():
                    return
            self._deliver()

    def _wait_s(self) -> float:
        if not self._queue:
            return LOOK_S
        return min(LOOK_S, max(0.0, self._queue[0].due_s - time.monotonic()))

    def _take(self, leg: int) -> None:
        came_from = self._regions[leg]
        for _ in range(BURST_PACKETS_MAX):
            try:
                packet = os.read(leg, namespaces.MTU_BYTES)
            except BlockingIOError:
                return
            way = addresses.route(packet, came_from)
            if way is None or way[2] >= len(self._legs):
                continue
            source, target, gets = way
            link = self._network.link(source, target)
            size = len(packet)
            link.enter(size)
            if link.stopped(size) or link.loses(size):
                continue
            if len(self._queue) >= QUEUE_PACKETS_MAX:
                link.refuse(size)
                continue
            for _ in range(1 + link.doubles(size)):
                self._number += 1
                due_s = link.due_s(time.monotonic())
                heapq.heappush(
                    self._queue, Underway(due_s, self._number, self._legs[gets], link, packet)
                )

    def _deliver(self) -> None:
        queue = self._queue
        while queue and queue[0].due_s <= (now_s := time.monotonic()):
            due_s, _, leg, link, packet = heapq.heappop(queue)
            # A packet under way when its link is cut is lost with it.
            if link.stopped(len(packet)):
                continue
            try:
                os.write(leg, packet)
            except OSError:
                link.refuse(len(packet))
            else:
                link.leave(len(packet), now_s - due_s)

    def _obey(self) -> bool:
        """Carry out the orders that came; False when the owner is gone."""
        orders = self._owner.orders()
        if orders is None:
            return False
        for order in orders:
            if isinstance(order, Setup | Listen):
                self._owner.answer(Failed("the router takes rules and tells counts"))
            else:
                self._owner.answer(self._network.obey(order))
        return True


def main() -> None:
    """Set up as the first order says, then route until the owner is gone, then take down."""
    owner = Owner()
    setup = owner.setup()
    if setup is None:
        return
    try:
        slot, _ = namespaces.claim()
    except (K2Error, OSError) as error:
        owner.answer(Failed(str(error)))
        return
    try:
        legs = namespaces.build(slot, setup.regions)
        _hurry()
        owner.answer(Ready(slot=slot))
        Router(Network(setup.regions, setup.seed), legs, owner).run()
    except (K2Error, OSError) as error:
        owner.answer(Failed(str(error)))
    finally:
        namespaces.clear(slot)


def _hurry() -> None:
    """Come before ordinary processes, where the machine lets us; some containers do not."""
    try:
        policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(PRIORITY))
    except OSError:
        pass


if __name__ == "__main__":
    main()
