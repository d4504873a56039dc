"""What operators do to a simulated cluster: its first keyspaces, later borders and other leaders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from k2store.control.map import DEFAULT, Keyspace, Map
from k2store.control.ports import change, check_update
from k2store.control.transitions import moved, split, with_keyspaces
from k2store.errors import Rejected
from k2store.testing.control import MemoryControl, MemoryPlane

__all__ = ["DEFAULT", "Keyspace", "found", "founded", "move", "split_at"]


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


def move(plane: MemoryPlane, choice: int) -> tuple[int, int] | None:
    """Want another leader for a partition, both chosen by a number; who they are, or None.

    It may be a node without a vote so far, which then takes the place of a voter.
    """
    present = plane.map
    partition = present.partitions[choice % len(present.partitions)]
    members = sorted({*partition.voters, *partition.learners} - {partition.leader})
    node = members[choice // len(present.partitions) % len(members)] if members else 0

    def step(before: Map) -> Map:
        return moved(before, partition.id, node)

    return (partition.id, node) if node and _change(plane, step) else None


def split_at(plane: MemoryPlane, key: bytes) -> int | None:
    """Let a partition begin at a key; its number, or None where one does already."""

    def step(before: Map) -> Map:
        return split(before, before.partition_at(key).id, key)

    return plane.map.partition_at(key).id if _change(plane, step) else None


def _change(plane: MemoryPlane, step: Callable[[Map], Map]) -> bool:
    """Apply a step at once; False where it changes nothing or is refused."""
    try:
        wanted = step(plane.map)
    except Rejected:
        return False
    if wanted == plane.map:
        return False
    wanted = replace(wanted, version=plane.map.version + 1)
    check_update(plane.map, wanted)
    plane.map = wanted
    plane.stir()
    return True
