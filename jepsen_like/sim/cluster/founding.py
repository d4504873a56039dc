"""The first map of a cluster: keyspaces, and borders inside them from the beginning."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from k2store.control.map import Keyspace, Map
from k2store.control.transitions import split, with_keyspaces


def founded(present: Map, keyspaces: Iterable[Keyspace], split_keys: Iterable[bytes]) -> Map:
    """A map in which every partition begins empty, on its voters; one that has some is kept."""
    if present.partitions:
        return present
    wanted = with_keyspaces(present, keyspaces)
    for key in split_keys:
        wanted = split(wanted, wanted.partition_at(key).id, key)
    first = tuple(replace(one, origin=0, founders=one.voters) for one in wanted.partitions)
    return replace(wanted, partitions=first)
