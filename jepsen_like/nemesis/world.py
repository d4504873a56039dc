"""The real cluster that faults happen to, and what its drivers have in common.

A *driver* makes one kind of fault: a generator that begins it, yields while it lasts, ends it, and
returns its evidence, a sentence about what was seen to happen, or None. What cannot be done here
raises `Unable`; what must not happen, such as a node that does not come back, raises `Broken`, and
is a finding about the store.

Drivers run in threads, several at a time, so everything that is shared is behind a lock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from jepsen_like.nemesis.links import Links
from jepsen_like.nemesis.schedule import Fault, Schedule
from k2store import K2Error
from k2store.testing.cluster.told import REPLICA_ROLE_LEADER

if TYPE_CHECKING:
    from k2store.testing.cluster import ClusterNode, LocalCluster
    from k2store.testing.cluster.told import GetClockResponse, GetStatusResponse
    from k2store.testing.disk_image import DiskImage

Running: TypeAlias = Generator[None, None, str | None]
Driver: TypeAlias = Callable[["World", Fault], Running]

LOOK_S: Final = 0.1
CLAIM_S: Final = 15.0


class Unable(Exception):
    """This fault cannot be made here and now; the message says why."""


class Broken(Exception):
    """Something happened that no fault may lead to; the message is a finding."""


class World:
    """A cluster, its disks and its links.

    disks   by node; empty where there are none whose power can be cut
    """

    def __init__(
        self,
        cluster: LocalCluster,
        schedule: Schedule,
        disks: Mapping[str, DiskImage] | None = None,
        bulk: Callable[[str], Coroutine[None, None, None]] | None = None,
    ) -> None:
        """`bulk` writes some megabytes at home in a region."""
        self._bulk = bulk
        self._loop = asyncio.get_running_loop()
        self.cluster = cluster
        self.schedule = schedule
        self.disks = disks or {}
        places = {name: node.seat.place.name for name, node in cluster.nodes.items()}
        self.links = Links(
            cluster.wan, {host: places.get(host, region) for host, region in schedule.hosts.items()}
        )
        self._claims = threading.Lock()
        self._claimed: set[str] = set()
        self._looking = threading.Lock()
        self.destroying = threading.Lock()
        """Held while a copy is lost and made anew: two at once may be a majority."""

    # ------------------------------------------------------------------------------ nodes

    @property
    def keeper(self) -> str:
        """The node that keeps the control plane, whose disk must not be lost."""
        return next(iter(self.cluster.nodes))

    def node(self, fault: Fault) -> ClusterNode:
        """The node that a fault happens to; `Unable` for a client."""
        found = self.cluster.nodes.get(fault.target)
        if found is None:
            raise Unable(f"{fault.target} is no node")
        return found

    def claimed(self, name: str) -> bool:
        """Whether a fault may have stopped the node."""
        with self._claims:
            return name in self._claimed

    @contextmanager
    def claim(self, fault: Fault) -> Iterator[ClusterNode]:
        """The node, which no other fault stops meanwhile; it is waited for, and `Unable` in the end.

        On a busy machine a node takes longer to come back than whoever drew the schedule thought.
        """
        node = self.node(fault)
        until_s = time.monotonic() + CLAIM_S
        while not self._take(node.name):
            if time.monotonic() > until_s:
                raise Unable(f"another fault has {node.name}")
            time.sleep(LOOK_S)
        try:
            if not node.running:
                raise Unable(f"{node.name} does not run")
            yield node
        finally:
            with self._claims:
                self._claimed.discard(node.name)

    def _take(self, name: str) -> bool:
        with self._claims:
            if name in self._claimed:
                return False
            self._claimed.add(name)
            return True

    def start(self, node: ClusterNode) -> str:
        """Start a node that is down, and tell how long it took. `Broken` if it does not come up."""
        began_s = time.monotonic()
        try:
            node.start()
        except K2Error as error:
            raise Broken(f"{node.name} did not come back: {error.message}") from error
        return f"back after {time.monotonic() - began_s:.1f} s"

    def write_bulk(self, region: str) -> None:
        """Have a client write some megabytes, and do not wait for it."""
        if self._bulk is not None:
            asyncio.run_coroutine_threadsafe(self._bulk(region), self._loop)

    def until(self, holds: Callable[[], bool], patience_s: float) -> bool:
        """Wait until something holds; whether it did in time."""
        until_s = time.monotonic() + patience_s
        while not holds():
            if time.monotonic() > until_s:
                return False
            time.sleep(LOOK_S)
        return True

    # ------------------------------------------------------------------------------ what nodes say

    def statuses(self) -> dict[str, GetStatusResponse]:
        """What each node that answers says of itself."""
        with self._looking:
            return {
                look.node.name: look.status
                for look in self.cluster.look()
                if look.status is not None
            }

    def clock(self, node: ClusterNode) -> GetClockResponse | None:
        """What a node says of its clock; None when it does not answer."""
        with self._looking:
            return self.cluster.ask_clock(node)

    def leads(self) -> dict[int, str]:
        """Who leads each partition that is led."""
        with self._looking:
            return {number: look.node.name for look in self.cluster.look() for number in look.leads}

    def has_no_second_loss(self) -> bool:
        """Whether every log is led, and all its voters are members still.

        A member that was replaced votes until the one in its place has everything. To lose another
        one before that may be to lose a majority; nodes that are merely down have lost nothing.
        """
        statuses = self.statuses()
        if not statuses:
            return False
        newest = max(statuses.values(), key=lambda status: status.cluster.map_version)
        members = {newest.cluster.node, *(peer.node for peer in newest.cluster.peers)}
        led = {
            one.partition: set(one.replica.voters)
            for status in statuses.values()
            for one in status.partitions
            if one.replica.role == REPLICA_ROLE_LEADER
        }
        every = {one.partition for one in newest.partitions}
        return led.keys() >= every and all(voters <= members for voters in led.values())


def grown(path: Path, size_before: int) -> str:
    """What was written to a log since it had this size."""
    with path.open("rb") as file:
        file.seek(size_before)
        return file.read().decode(errors="replace")
