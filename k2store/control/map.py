"""What the members of a cluster agree on: regions, nodes, keyspaces and partitions, as one value.

::

    keyspaces    fra  prefix "fra/"  survive zone    home fra
                 default  prefix ""  survive region  home iad

    partitions   1 [ "" ──────── "fra/" )   3 [ "fra/" ── "fra0" )   2 [ "fra0" ──────── … )
                   default                    fra                      default
                   voters 1 4 7               voters 1 2 3             voters 1 4 7
                   learners 2 3 5 6 8 9       learners 4 5 6 7 8 9     learners 2 3 5 6 8 9

The partitions cover the one order of keys without gap or overlap. Voters and learners are *wanted*:
the members of a log stand in the log itself and follow one step at a time. A map is never changed
in place; :mod:`k2store.control.transitions` has the steps from one to the next.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import chain, pairwise
from typing import Final, Literal

import msgspec
from msgspec import Struct

from k2store.errors import Corruption, Rejected

FORMAT: Final = 1
"""Of the stored document; a reader refuses one that it does not know."""

NODE_ID_MAX: Final = 1023
"""A node's id is the number of its oracle, for which a stamp has ten bits."""

Survive = Literal["zone", "region"]
Promote = Literal["operator", "automatic"]

DEFAULT: Final = "default"
"""The keyspace of every key that no other one's prefix begins."""


class Region(Struct, frozen=True):
    """A place that fails as a whole. `off`: an operator said so, and its nodes get no epochs."""

    name: str
    off: bool = False


class NodeInfo(Struct, frozen=True):
    """A member. `id` belongs to its name *and* its disk: a node that lost its disk is another one.

    `address` is where the others reach it; `disk` names its data folder; `admin` is the address of
    its HTTP port, or empty. `starts` counts how often its folder was started, and `life` names the
    process that was the last to say so: a folder that has counted less is an old copy.
    """

    id: int
    name: str
    region: str
    address: str
    disk: bytes
    admin: str = ""
    starts: int = 0
    life: bytes = b""


class Keyspace(Struct, frozen=True):
    """A named range of keys, given by what they begin with, and what it has to survive.

    `survive` zone: the voters stand in the region `home`; region: in up to three regions, `home`
    among them. `promote`: who may give a keyspace another home when its own is lost. `voices`:
    with automatic promotion, the nodes that speak for their regions about the home, one each.
    `stopped`: between two homes; nobody takes anything from the old one any more.
    """

    name: str
    prefix: bytes
    survive: Survive
    home: str
    promote: Promote = "operator"
    voices: tuple[int, ...] = ()
    stopped: bool = False


class PartitionInfo(Struct, frozen=True):
    """A range of keys with a log of its own: `start` inclusive, `end` exclusive, b"" for no end.

    `voters` and `learners` are node ids, as wanted; `leader` is the voter that should lead, 0 for
    any. `generation` counts the promotions that this range has seen. `origin` is the partition
    that this one came from, by a split or by a promotion (0: it began empty); after a promotion
    `cut` is the stamp up to which the origin's history goes on here, and 0 otherwise. `founders`
    are the voters it began with: those alone may begin its log, all others wait to be told it.
    """

    id: int
    start: bytes
    end: bytes
    keyspace: str
    voters: tuple[int, ...]
    learners: tuple[int, ...]
    leader: int = 0
    generation: int = 1
    origin: int = 0
    cut: int = 0
    founders: tuple[int, ...] = ()

    def contains(self, key: bytes) -> bool:
        """Whether the key belongs here."""
        return self.start <= key and (not self.end or key < self.end)


class Map(Struct, frozen=True):
    """The whole of it, at one version; `next_partition` and `next_node` were never given out."""

    version: int = 0
    next_partition: int = 1
    next_node: int = 1
    regions: tuple[Region, ...] = ()
    nodes: tuple[NodeInfo, ...] = ()
    keyspaces: tuple[Keyspace, ...] = ()
    partitions: tuple[PartitionInfo, ...] = ()

    def partition_at(self, key: bytes) -> PartitionInfo:
        """The partition of a key; raises Rejected while there are no partitions."""
        if not self.partitions:
            raise Rejected(
                "the cluster has no keyspaces yet; `k2 regions init` makes them", field="key"
            )
        return self.partitions[bisect_right(self.partitions, key, key=_start) - 1]

    def partition(self, partition: int) -> PartitionInfo | None:
        """The partition of that id, if it is in use."""
        return next((one for one in self.partitions if one.id == partition), None)

    def node(self, node: int) -> NodeInfo | None:
        """The member of that id; None for one that never was or is no more."""
        return next((one for one in self.nodes if one.id == node), None)

    def node_named(self, name: str) -> NodeInfo | None:
        """The member of that name."""
        return next((one for one in self.nodes if one.name == name), None)

    def region(self, name: str) -> Region | None:
        """The region of that name."""
        return next((one for one in self.regions if one.name == name), None)

    def region_of(self, node: int) -> str | None:
        """The name of the region in which a member stands."""
        found = self.node(node)
        return None if found is None else found.region

    def keyspace(self, name: str) -> Keyspace | None:
        """The keyspace of that name."""
        return next((one for one in self.keyspaces if one.name == name), None)


def _start(partition: PartitionInfo) -> bytes:
    return partition.start


def flaw(present: Map) -> str | None:
    """What is wrong with a map in itself, or None. Whoever stores one asks first."""
    for kind, names in (
        ("region", [one.name for one in present.regions]),
        ("node", [one.name for one in present.nodes]),
        ("keyspace", [one.name for one in present.keyspaces]),
    ):
        if len(set(names)) != len(names):
            return f"two of a kind ({kind}) have one name: {names}"
    return _node_flaw(present) or _keyspace_flaw(present) or _partition_flaw(present)


def _node_flaw(present: Map) -> str | None:
    regions = {one.name for one in present.regions}
    ids = [one.id for one in present.nodes]
    if len(set(ids)) != len(ids):
        return f"two nodes have one id: {ids}"
    if len({one.disk for one in present.nodes}) != len(ids):
        return "two nodes have one disk"
    for node in present.nodes:
        if not 1 <= node.id <= NODE_ID_MAX or node.id >= present.next_node:
            return f"node {node.name} has the id {node.id}, which was not given out"
        if node.region not in regions:
            return f"node {node.name} stands in {node.region}, which is no region"
    return None


def _keyspace_flaw(present: Map) -> str | None:
    regions = {one.name for one in present.regions}
    prefixes = [one.prefix for one in present.keyspaces]
    if len(set(prefixes)) != len(prefixes):
        return "two keyspaces have one prefix"
    for keyspace in present.keyspaces:
        if (keyspace.name == DEFAULT) != (keyspace.prefix == b""):
            return f"the keyspace {keyspace.name} has the prefix {keyspace.prefix!r}"
        if keyspace.home not in regions:
            return f"the keyspace {keyspace.name} is at home in {keyspace.home}, which is no region"
    if present.keyspaces and b"" not in prefixes:
        return f"there is no keyspace {DEFAULT} for the keys that no prefix begins"
    return None


def _partition_flaw(present: Map) -> str | None:
    partitions = present.partitions
    if (not partitions) != (not present.keyspaces):
        return "keyspaces and partitions come together"
    ids = [one.id for one in partitions]
    if len(set(ids)) != len(ids):
        return f"two partitions have one id: {ids}"
    if partitions and (partitions[0].start or partitions[-1].end):
        return "the partitions do not reach from the first key to the last"
    borders = {one.prefix for one in present.keyspaces}
    borders |= {after_prefix(one) for one in borders}
    for left, right in pairwise(partitions):
        if left.end != right.start or not left.start < right.start:
            return f"partitions {left.id} and {right.id} leave a gap or overlap"
    for one in partitions:
        if not 0 < one.id < present.next_partition:
            return f"partition {one.id} has an id that was not given out"
        if one.keyspace != keyspace_of(present, one.start):
            return f"partition {one.id} belongs to {one.keyspace}, its first key does not"
        if any(border != one.start and one.contains(border) for border in borders if border):
            return f"partition {one.id} reaches over the border of a keyspace"
        members = one.voters + one.learners
        if not one.voters or len(set(members)) != len(members):
            return f"partition {one.id} has no voters, or one member twice"
        if not all(0 < member < present.next_node for member in members):
            return f"partition {one.id} has a member that never joined"
        if one.leader and one.leader not in one.voters:
            return f"partition {one.id} wants the leader {one.leader}, who is no voter"
    return None


def keyspace_of(present: Map, key: bytes) -> str | None:
    """The keyspace with the longest prefix that begins a key."""
    fitting = [one for one in present.keyspaces if key.startswith(one.prefix)]
    return max(fitting, key=lambda one: len(one.prefix)).name if fitting else None


def after_prefix(prefix: bytes) -> bytes:
    """The first key after all that begin with a prefix; b"" when there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else b""


def successor_flaw(present: Map, wanted: Map) -> str | None:
    """Why one map may not follow another, versions aside; None when it may."""
    wrong = flaw(wanted)
    if wrong is not None:
        return wrong
    for kind, before, after, known, used in (
        (
            "node",
            present.next_node,
            wanted.next_node,
            {one.id for one in present.nodes},
            {one.id for one in wanted.nodes},
        ),
        (
            "partition",
            present.next_partition,
            wanted.next_partition,
            {one.id for one in present.partitions},
            {one.id for one in wanted.partitions},
        ),
    ):
        if after < before:
            return f"the next {kind} would be {after}, and {before} before: ids are never reused"
        reused = sorted(one for one in used - known if one < before)
        if reused:
            return f"{kind} ids {reused} come back: ids are never reused"
    return None


class _Document(Struct, frozen=True):
    """A map as it is stored and sent: JSON, bytes in base64, so that people can read it."""

    format: int
    map: Map


class _Head(Struct, frozen=True):
    """What is read of a document whose form may be unknown."""

    format: int


def encode(present: Map) -> bytes:
    """A map as a document."""
    return msgspec.json.encode(_Document(FORMAT, present))


def decode(document: bytes) -> Map:
    """The map of a document.

    Raises Corruption when it is damaged, and Rejected when its format is newer than this software.
    """
    try:
        known = msgspec.json.decode(document, type=_Head).format
        if known != FORMAT:
            raise Rejected(
                f"the map has format {known}, this version of k2store knows {FORMAT}: update it",
                field="format",
            )
        found = msgspec.json.decode(document, type=_Document).map
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
    ) as error:  # ValidationError is one
        raise Corruption(f"the map cannot be read: {error}", what="map") from error
    wrong = flaw(found)
    if wrong is not None:
        raise Corruption(f"the map contradicts itself: {wrong}", what="map")
    return found


def members(partition: PartitionInfo) -> tuple[int, ...]:
    """Voters and learners, in the order of their ids."""
    return tuple(sorted(chain(partition.voters, partition.learners)))
