"""The steps from one map to the next: pure functions that validate and return another map.

A step that finds its work done returns the map it was given, so each may be tried again without
harm. None touches the version: :func:`k2store.control.ports.change` counts it when a map is stored.
What is not allowed raises Rejected and says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NoReturn

from msgspec.structs import replace

from k2store.control.map import (
    DEFAULT,
    NODE_ID_MAX,
    Keyspace,
    Map,
    NodeInfo,
    PartitionInfo,
    Region,
    after_prefix,
    flaw,
)
from k2store.control.placement import placed, placed_partition, voters
from k2store.errors import Rejected

__all__ = [
    "moved",
    "placed",
    "promoted",
    "split",
    "with_keyspace",
    "with_keyspaces",
    "with_node",
    "with_region",
]

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", re.IGNORECASE)
PREFIX_BYTES_MAX: Final = 256
KEY_BYTES_MAX: Final = 64 * 1024
RESERVED: Final = frozenset({"zone", "region", "operator", "automatic"})
"""Words of the notation for keyspaces, which no region or keyspace may have as its name."""


def with_node(
    present: Map,
    name: str,
    region: str,
    address: str,
    disk: bytes,
    admin: str = "",
    starts: int = 0,
    life: bytes = b"",
) -> Map:
    """A node joins, or comes back, perhaps at another address.

    `starts` is how often its folder was started, this time included (0: it does not count), and
    `life` names the process. A folder that comes with a number which another process has had is an
    old copy, which lacks what the node has acknowledged since: Rejected.

    The same name with the same disk keeps its id. The same name with another disk is a new node
    with a new id; the old one is no member any more and leaves the partitions at the next
    `placed`. Raises Rejected for a disk under two names (a copied data folder), a disk that comes
    back in another region, and when the ids are used up.
    """
    _check_name("node.name", name)
    _check_name("node.region", region)
    if not disk:
        _refuse("a node without a disk cannot join", "disk")
    if not address:
        _refuse(f"node {name} names no address at which others reach it", "cluster.advertise")
    owner = next((one for one in present.nodes if one.disk == disk), None)
    if owner is not None:
        if owner.name != name:
            _refuse(
                f"this data folder belongs to node {owner.id} ({owner.name}); {name} needs one of "
                "its own, and a copy of a folder is not a second node",
                "node.name",
            )
        if owner.region != region:
            _refuse(
                f"node {name} joined in {owner.region}; to stand in {region} it joins anew with an "
                "empty data folder",
                "node.region",
            )
        if 0 < starts <= owner.starts and life != owner.life:
            _refuse(old_copy(owner, starts - 1), "node.data")
        if starts:
            owner = replace(owner, starts=starts, life=life)
        node = replace(owner, address=address, admin=admin)
        nodes = tuple(node if one.id == node.id else one for one in present.nodes)
        return _checked(present, replace(present, nodes=nodes))
    if present.next_node > NODE_ID_MAX:
        _refuse(f"all {NODE_ID_MAX} node ids were given out; ids are never reused", "node.name")
    node = NodeInfo(present.next_node, name, region, address, disk, admin, starts, life)
    return _checked(
        present,
        replace(
            with_region(present, region),
            next_node=present.next_node + 1,
            nodes=(*(one for one in present.nodes if one.name != name), node),
        ),
    )


def old_copy(node: NodeInfo, starts: int) -> str:
    """Why a folder may not be used that was started so often only."""
    return (
        f"this data folder is an old copy: it was started {starts} times, and node {node.id} "
        f"({node.name}) {node.starts} times. What the node has acknowledged since is not in it: "
        "remove it and start the node again, as a new member"
    )


def with_region(present: Map, name: str, *, off: bool | None = None) -> Map:
    """A region is known; `off` says that it is fenced and powered down, or that it is not."""
    _check_name("node.region", name)
    known = present.region(name)
    if known is None:
        region = Region(name, bool(off))
        return _checked(present, replace(present, regions=(*present.regions, region)))
    region = replace(known, off=known.off if off is None else off)
    regions = tuple(region if one.name == name else one for one in present.regions)
    return _checked(present, replace(present, regions=regions))


def with_keyspace(present: Map, keyspace: Keyspace) -> Map:
    """A keyspace with its partitions; the one for all other keys (`default`) comes first.

    Where partitions stand already they are split at the ends of the new range. What lies between
    moves to the new keyspace with its log, whose voters then change step by step. A keyspace that
    exists just so is left as it is; one that exists otherwise is refused.
    """
    _check_keyspace(present, keyspace)
    known = present.keyspace(keyspace.name)
    if known is not None and replace(known, voices=(), stopped=False) == replace(
        keyspace, voices=(), stopped=False
    ):
        return present
    keyspace = _voiced(present, keyspace)
    if known is not None:
        _refuse(f"the keyspace {known.name} exists, as {known}", "keyspace")
    taken = next((one for one in present.keyspaces if one.prefix == keyspace.prefix), None)
    if taken is not None:
        _refuse(f"the prefix {keyspace.prefix!r} belongs to the keyspace {taken.name}", "prefix")
    if not voters(present, keyspace, ()):
        _refuse(f"no node stands in {keyspace.home}, the home of {keyspace.name}", "home")
    if not present.partitions:
        if keyspace.prefix:
            _refuse(f"the first keyspace is {DEFAULT}, with the empty prefix", "keyspace")
        first = PartitionInfo(present.next_partition, b"", b"", keyspace.name, (), ())
        return _checked(
            present,
            replace(
                present,
                next_partition=present.next_partition + 1,
                keyspaces=(keyspace,),
                partitions=(_founded(placed_partition(present, keyspace, first)),),
            ),
        )
    start, end = keyspace.prefix, after_prefix(keyspace.prefix)
    above = _keyspace_above(present, keyspace)
    # The upper end first: so both new partitions come out of the one that was there.
    cut = _cut(_cut(present, end) if end else present, start)
    keyspaces = (*present.keyspaces, keyspace)
    partitions = tuple(
        placed_partition(present, keyspace, replace(one, keyspace=keyspace.name))
        if one.keyspace == above and start <= one.start and (not end or one.start < end)
        else one
        for one in cut.partitions
    )
    return _checked(present, replace(cut, keyspaces=keyspaces, partitions=partitions))


def with_keyspaces(present: Map, keyspaces: Iterable[Keyspace]) -> Map:
    """Several keyspaces in one step; where they are the first, their partitions begin empty."""
    wanted = present
    for keyspace in sorted(keyspaces, key=lambda one: one.prefix):
        wanted = with_keyspace(wanted, keyspace)
    if not present.partitions:
        first = tuple(_founded(replace(one, origin=0)) for one in wanted.partitions)
        wanted = replace(wanted, partitions=first)
    return _checked(present, wanted)


def split(present: Map, partition: int, key: bytes) -> Map:
    """A partition becomes two: it keeps what is below the key, a new one begins at it.

    A key at which a partition begins already changes nothing, whichever id was asked for.
    """
    if not key or len(key) > KEY_BYTES_MAX:
        _refuse(f"a partition begins at a key of 1 to {KEY_BYTES_MAX} bytes", "key")
    if any(one.start == key for one in present.partitions):
        return present
    found = _partition(present, partition)
    if not found.contains(key):
        right = present.partition_at(key).id
        _refuse(f"the key {key!r} belongs to partition {right}, not to {partition}", "key")
    return _checked(present, _cut(present, key))


def moved(present: Map, partition: int, node: int) -> Map:
    """A node should lead a partition; one that has no vote yet takes the place of a voter. 0: any.

    Raises Rejected for a node that may not vote: outside the home of a keyspace that survives a
    zone, or in a region without a vote of one that survives a region.
    """
    found = _partition(present, partition)
    if node == 0:
        return _checked(present, _replaced(present, replace(found, leader=0)))
    member = present.node(node)
    if member is None:
        _refuse(f"no member has the id {node}", "node")
    if node in found.voters:
        return _checked(present, _replaced(present, replace(found, leader=node)))
    keyspace = present.keyspace(found.keyspace)
    assert keyspace is not None, found
    if keyspace.survive == "zone":
        if member.region != keyspace.home:
            _refuse(
                f"partition {partition} is of {keyspace.name}, whose voters stand in "
                f"{keyspace.home}; node {member.name} stands in {member.region}",
                "node",
            )
        leaves = found.leader or max(found.voters)
    else:
        there = [one for one in found.voters if present.region_of(one) == member.region]
        if not there:
            regions = ", ".join(sorted(present.region_of(one) or "gone" for one in found.voters))
            _refuse(
                f"partition {partition} has no vote in {member.region}: its voters stand in "
                f"{regions}",
                "node",
            )
        leaves = there[0]
    chosen = tuple(sorted({*found.voters, node} - {leaves}))
    wanted = placed_partition(present, keyspace, replace(found, voters=chosen, leader=node))
    return _checked(present, _replaced(present, wanted))


def stopped(present: Map, keyspace: str) -> Map:
    """A keyspace between two homes: from now on nobody takes anything from the old one."""
    if present.keyspace(keyspace) is None:
        _refuse(f"no keyspace is called {keyspace}", "keyspace")
    keyspaces = tuple(
        replace(one, stopped=True) if one.name == keyspace else one for one in present.keyspaces
    )
    return _checked(present, replace(present, keyspaces=keyspaces))


def promoted(
    present: Map,
    lost: str,
    home: str,
    cut: int,
    founder: int = 0,
    *,
    generation: int = 0,
    only: str = "",
) -> Map:
    """The keyspaces at home in a lost region get another home, and their ranges new logs.

    `cut` is the stamp up to which history goes on; everything above it is dropped. Only keyspaces
    that survive a zone are concerned: one that survives a region has its quorum without the lost
    one. The lost region must have been declared off, so that its nodes get no more epochs. A
    region that is home to none of them any more changes nothing. `founder` is the node in the new
    home whose copies reach to the cut; the others take theirs from it (0: all voters have them).
    `generation` is that of the new partitions at least: the incarnation of an automatic promotion,
    which concerns `only` one keyspace, and that one must have been stopped.
    """
    if lost == home:
        _refuse(f"{lost} cannot take over from itself", "home")
    gone = present.region(lost)
    if gone is None or present.region(home) is None:
        _refuse(f"no region is called {lost if gone is None else home}", "home")
    concerned = [
        one
        for one in present.keyspaces
        if one.home == lost and one.survive == "zone" and only in ("", one.name)
    ]
    if not concerned:
        return present
    if not gone.off and not all(one.stopped for one in concerned):
        _refuse(f"{lost} was not declared off: its nodes could go on serving", "region")
    if cut <= 0:
        _refuse(f"a cut is a stamp, not {cut}", "cut")
    keyspaces = {one.name: replace(one, home=home, stopped=False) for one in concerned}
    if not any(one.region == home for one in present.nodes):
        _refuse(f"no node stands in {home}", "home")
    if founder and present.region_of(founder) != home:
        _refuse(f"the founder {founder} does not stand in {home}", "founder")
    following = present.next_partition
    partitions: list[PartitionInfo] = []
    for old in present.partitions:
        if old.keyspace not in keyspaces:
            partitions.append(old)
            continue
        new = PartitionInfo(
            following,
            old.start,
            old.end,
            old.keyspace,
            voters=(founder,) if founder else (),
            learners=(),
            generation=max(old.generation + 1, generation),
            origin=old.id,
            cut=cut,
        )
        new = _founded(placed_partition(present, keyspaces[old.keyspace], new))
        partitions.append(replace(new, founders=(founder,)) if founder else new)
        following += 1
    return _checked(
        present,
        replace(
            present,
            next_partition=following,
            keyspaces=tuple(keyspaces.get(one.name, one) for one in present.keyspaces),
            partitions=tuple(partitions),
        ),
    )


# ------------------------------------------------------------------------------------- parts


def _voiced(present: Map, keyspace: Keyspace) -> Keyspace:
    """A keyspace whose home may be replaced automatically, with a node of each region to say so."""
    if keyspace.promote != "automatic" or keyspace.survive != "zone" or keyspace.voices:
        return keyspace
    voices = [
        min(one.id for one in present.nodes if one.region == region.name)
        for region in present.regions
        if any(one.region == region.name for one in present.nodes)
    ]
    return replace(keyspace, voices=tuple(sorted(voices)))


def _founded(partition: PartitionInfo) -> PartitionInfo:
    """A partition whose log begins with the voters it has now."""
    return replace(partition, founders=partition.voters)


def _cut(present: Map, key: bytes) -> Map:
    """The map with a partition that begins at the key."""
    found = present.partition_at(key)
    if found.start == key:
        return present
    # What a promotion did to the left half is done: the right one comes out of it afterwards.
    right = _founded(replace(found, id=present.next_partition, start=key, origin=found.id, cut=0))
    partitions: Iterable[PartitionInfo] = (
        half
        for one in present.partitions
        for half in ((replace(one, end=key), right) if one.id == found.id else (one,))
    )
    return replace(present, next_partition=present.next_partition + 1, partitions=tuple(partitions))


def _keyspace_above(present: Map, keyspace: Keyspace) -> str:
    """The keyspace whose keys a new one takes."""
    above = [one for one in present.keyspaces if keyspace.prefix.startswith(one.prefix)]
    return max(above, key=lambda one: len(one.prefix)).name


def _partition(present: Map, partition: int) -> PartitionInfo:
    found = present.partition(partition)
    if found is None:
        _refuse(f"no partition has the id {partition}", "partition")
    return found


def _replaced(present: Map, partition: PartitionInfo) -> Map:
    return replace(
        present,
        partitions=tuple(
            partition if one.id == partition.id else one for one in present.partitions
        ),
    )


def _checked(before: Map, after: Map) -> Map:
    """The new map, or the old one itself where nothing changed."""
    wrong = flaw(after)
    assert wrong is None, wrong
    return before if after == before else after


def _check_name(field: str, name: str) -> None:
    if not _NAME.fullmatch(name) or name in RESERVED:
        _refuse(
            f"{field} = {name!r}: letters, digits, dots and dashes, at most 63, and none of "
            f"{', '.join(sorted(RESERVED))}",
            field,
        )


def _check_keyspace(present: Map, keyspace: Keyspace) -> None:
    _check_name("keyspace", keyspace.name)
    if len(keyspace.prefix) > PREFIX_BYTES_MAX:
        _refuse(f"a prefix has at most {PREFIX_BYTES_MAX} bytes", "prefix")
    if (keyspace.name == DEFAULT) != (keyspace.prefix == b""):
        _refuse(f"the keyspace {DEFAULT}, and no other, has the empty prefix", "prefix")
    if keyspace.survive not in {"zone", "region"}:
        _refuse(f"a keyspace survives a zone or a region, not {keyspace.survive!r}", "survive")
    if keyspace.promote not in {"operator", "automatic"}:
        _refuse(f"operator or automatic promotes, not {keyspace.promote!r}", "promote")
    if present.region(keyspace.home) is None:
        known = ", ".join(one.name for one in present.regions) or "none"
        _refuse(f"no region is called {keyspace.home}; there are: {known}", "home")


def _refuse(why: str, field: str) -> NoReturn:
    raise Rejected(why, field=field)
