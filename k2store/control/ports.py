"""The control plane as everybody else sees it, and the two things that are done with it.

::

    node ── join ──▶ control plane ◀── update (compare-and-set) ── operator
      ▲                   │
      └──── watch ────────┘          candidate ── grant_epoch ──▶ each epoch to one, ever

Three implementations: :mod:`~k2store.control.embedded` (in one node), :mod:`~k2store.control.remote`
(the client of that node) and :mod:`~k2store.control.etcd`; one in memory for tests stands in
:mod:`k2store.testing.control`. Reads, writes and renewals of leases never come here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from msgspec.structs import replace

from k2store.control.map import Map, NodeInfo, encode, successor_flaw
from k2store.control.transitions import placed, with_node
from k2store.errors import Conflict, Rejected

MAP_CHANGED: Final = "map_changed"
"""The rule of a MapChanged, by which it is known after a journey as a Conflict."""

CHANGE_ATTEMPTS_MAX: Final = 100
"""How often `change` tries. Of those who try at once one succeeds, so it takes a crowd to fail."""

MAP_BYTES_MAX: Final = 1 << 20
"""Largest document of a map: etcd takes requests of up to 1.5 MiB, a frame has 4 MiB."""

EPOCH_MAX: Final = (1 << 63) - 1
"""Largest epoch: it is stored and sent as a signed number of 64 bits."""

INCARNATION_BYTES_MAX: Final = 64


class MapChanged(Conflict):
    """The map is not the one any more that the new one was made from; nothing was stored."""

    def __init__(self, message: str) -> None:
        super().__init__(message, rule=MAP_CHANGED)


class Control(Protocol):
    """The control plane.

    Every call ends within a time that the implementation was given. It raises Unavailable when
    nobody could be asked or no answer came, and then says what was asked and of whom.
    """

    async def load(self) -> Map:
        """The present map, not an older one; version 0 and empty before anybody stored one."""
        ...

    async def update(self, wanted: Map) -> None:
        """Store a map, durably, if its version is the present one's and one.

        Raises MapChanged when another was stored meanwhile, Rejected when the map contradicts
        itself or the present one, and OutcomeUnknown when it cannot be told whether it stands.
        """
        ...

    async def grant_epoch(self, partition: int, node: int, incarnation: bytes, above: int) -> int:
        """An epoch for one life of one node, larger than `above` and than any granted before.

        It is durable before it is told. Asking again gives the same or a higher one; nobody else
        is ever given it. Raises Rejected when the partition or the node is not in the map, and when
        the node's region was declared off.
        """
        ...

    def watch(self) -> AsyncIterator[Map]:
        """The present map, then newer ones as they come; versions only rise, some may be skipped.

        It goes on through losses of the connection and ends when its reader stops or the control
        plane is closed.
        """
        ...

    async def close(self) -> None:
        """Let go of everything; what waits ends with Unavailable, watches end."""
        ...


async def change(control: Control, transition: Callable[[Map], Map]) -> Map:
    """Apply a step to the map until it is stored; returns the map then in force.

    The step sees the present map and may be applied several times. One that changes nothing stores
    nothing. Raises what the step and the control plane raise; after OutcomeUnknown it may be tried
    again, since steps find their own work done.
    """
    for _ in range(CHANGE_ATTEMPTS_MAX):
        present = await control.load()
        wanted = transition(present)
        if wanted == present:
            return present
        wanted = replace(wanted, version=present.version + 1)
        try:
            await control.update(wanted)
        except MapChanged:
            continue
        return wanted
    raise MapChanged(f"the map was changed by others in {CHANGE_ATTEMPTS_MAX} attempts; try later")


async def join(
    control: Control,
    name: str,
    region: str,
    address: str,
    disk: bytes,
    admin: str = "",
    starts: int = 0,
    life: bytes = b"",
) -> NodeInfo:
    """Become a member of the cluster, or come back as the one that this name and disk are.

    Members of partitions are placed anew in the same step, so that a newcomer learns of
    everything, and who was replaced is waited for no more.
    """
    joined = await change(
        control,
        lambda present: placed(
            with_node(present, name, region, address, disk, admin, starts, life)
        ),
    )
    node = joined.node_named(name)
    assert node is not None, name
    return node


# --------------------------------------------------------------- what every implementation checks


def check_update(present: Map, wanted: Map) -> None:
    """Raise what `update` raises for a map that may not follow the present one."""
    if wanted.version != present.version + 1:
        raise MapChanged(
            f"the map has version {present.version}; one of version {wanted.version} cannot follow"
        )
    size = len(encode(wanted))
    if size > MAP_BYTES_MAX:
        raise Rejected(
            f"the map would take {size} bytes, {MAP_BYTES_MAX} are allowed: fewer partitions",
            field="map",
        )
    wrong = successor_flaw(present, wanted)
    if wrong is not None:
        raise Rejected(f"the map is refused: {wrong}", field="map")


def check_ids(partition: int, node: int, above: int) -> None:
    """Raise Rejected for numbers that no grant can be about, and that no message could carry."""
    if not 0 <= above < EPOCH_MAX:
        raise Rejected(f"no epoch can be granted above {above}", field="above")
    for field, number in (("partition", partition), ("node", node)):
        if not 0 < number < 1 << 32:
            raise Rejected(f"{field} {number} is no id", field=field)


def check_grant(present: Map, partition: int, node: int, incarnation: bytes, above: int) -> None:
    """Raise Rejected for a grant that may not be given under this map."""
    if not 0 < len(incarnation) <= INCARNATION_BYTES_MAX:
        raise Rejected(
            f"an incarnation has 1 to {INCARNATION_BYTES_MAX} bytes, not {len(incarnation)}",
            field="incarnation",
        )
    check_ids(partition, node, above)
    if present.partition(partition) is None:
        raise Rejected(f"no partition has the id {partition}", field="partition")
    region = present.region_of(node)
    if region is None:
        raise Rejected(f"no member has the id {node}", field="node")
    found = present.region(region)
    if found is not None and found.off:
        raise Rejected(f"the region {region} was declared off", field="node")
