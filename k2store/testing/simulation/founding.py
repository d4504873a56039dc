"""The first map of a simulated cluster: keyspaces, and borders inside them from the beginning."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from k2store.control.map import DEFAULT, Keyspace, Map
from k2store.control.ports import change
from k2store.control.transitions import split, with_keyspaces
from k2store.testing.control import MemoryControl, MemoryPlane

__all__ = ["DEFAULT", "Keyspace", "found", "founded"]


async def found(
    plane: MemoryPlane, nodes: int, keyspaces: Sequence[Keyspace], split_keys: Sequence[bytes]
) -> None:
    """Wait until so many nodes have joined, then give them their keyspaces."""
    control = MemoryControl(plane)
    async for present in control.watch():
        if len(present.nodes) >= nodes:
            break
    await change(control, lambda present: founded(present, keyspaces, split_keys))


def founded(present: Map, keyspaces: Sequence[Keyspace], split_keys: Sequence[bytes]) -> Map:
    """A map in which every partition begins empty, on its voters; one that has some is kept."""
    if present.partitions:
        return present
    wanted = with_keyspaces(present, keyspaces)
    for key in split_keys:
        wanted = split(wanted, wanted.partition_at(key).id, key)
    first = tuple(replace(one, origin=0, founders=one.voters) for one in wanted.partitions)
    return replace(wanted, partitions=first)
