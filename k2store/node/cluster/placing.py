"""From the control plane's map to the logs on this node, and from wanted members to real ones.

The map says what is wanted; each log says who its members are. A log begins on its founders alone;
everybody else has an empty one until a leader tells it more. The leader of a partition compares the
members of its log with the wanted ones and changes one voter at a time. Likewise splits: the map
names the new partition, and the leader of the old one writes the split into its log.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from k2store.node.cluster.group import empty_checkpoint, encode_checkpoint
from k2store.node.cluster.turns import first_snapshot
from k2store.node.spaces import SPACE
from mvcc.coordinator import Route
from replication import GENESIS, HASH_BYTES, Membership, Position, Saved, Snapshot
from truetime import Interval

if TYPE_CHECKING:
    from k2store.control.map import Map, PartitionInfo
    from k2store.node.cluster.group import Group
    from k2store.node.cluster.host import ClusterHost
    from mvcc.records import Checkpoint

NOBODY: Final = -1
"""The number of no partition: keys of which this node knows no partition."""
RECONCILE_NS: Final = 250_000_000
"""How often a leader looks whether its log's members are the wanted ones."""
SILENCE_NS: Final = 500_000_000
LAG_ENTRIES: Final = 1_000
"""The lead is given to nobody who was silent for longer, or lacks more entries."""


def set_map(host: ClusterHost, present: Map) -> None:
    """A newer map holds from here on."""
    if host.map is not None and present.version <= host.map.version:
        return
    host.map = present
    host.homes.follow(present)
    host.home_leases.follow(present)
    host.links.follow(present.nodes)
    keyspaces = {one.name: one for one in present.keyspaces}
    host.stopped = {one.id for one in present.partitions if keyspaces[one.keyspace].stopped}
    off = {one.name for one in present.regions if one.off}
    homeless = {
        one.name
        for one in present.keyspaces
        if one.stopped or (one.home in off and one.survive == "zone")
    }
    host.freeze(one.id for one in present.partitions if one.keyspace in homeless)
    known = {one.id for one in present.partitions}
    followed = {one.origin for one in present.partitions if one.cut}
    for number in list(host.groups):
        if number in known or _is_fresh_child(host, number):
            continue
        if number in followed:
            host.retired.add(number)
        else:
            host.end(number)
    _follow_promotions(host)
    _begin_missing(host)
    host.arrange()


def _follow_promotions(host: ClusterHost) -> None:
    """Found the partitions that this node is to found; drop old copies that are needed no more."""
    assert host.map is not None
    for info in host.map.partitions:
        if not info.cut:
            continue
        if host.node in info.founders and info.id not in host.groups:
            found(host, info)
        group = host.groups.get(info.id)
        begun = group is not None and group.replica.state.log.last != GENESIS
        if begun and info.origin in host.groups:
            host.end(info.origin)


def route_of(groups: Sequence[Group]) -> Route:
    """From keys to the partitions of groups in order of key; keys of none lead to `NOBODY`."""
    starts, numbers = [], []
    reached: bytes | None = b""
    for group in groups:
        if reached is not None and reached < group.start:
            starts.append(reached)
            numbers.append(NOBODY)
        starts.append(group.start)
        numbers.append(group.number)
        reached = group.end or None
    if reached is not None:
        starts.append(reached)
        numbers.append(NOBODY)
    return Route(starts, numbers)


def _is_fresh_child(host: ClusterHost, number: int) -> bool:
    """Whether a partition has come out of a split that the own map does not show yet."""
    return host.map is not None and number >= host.map.next_partition


def _begin_missing(host: ClusterHost) -> None:
    assert host.map is not None
    for info in host.map.partitions:
        if info.id in host.groups or host.node not in (
            *info.voters,
            *info.learners,
            *info.founders,
        ):
            continue
        if not _ours_to_begin(host, info) or (info.cut and host.node in info.founders):
            continue
        founder = host.node in info.founders and not info.origin
        membership = Membership(voters=info.founders) if founder else Membership()
        end = _end_at_first(host.map, info)
        state = encode_checkpoint(empty_checkpoint(info.id, info.start, end))
        group = host.begin(info.id, Saved(first_snapshot(GENESIS, membership, state)))
        first = info.leader or _voter_at_home(host.map, info) or info.founders[0]
        if founder and host.node == first:
            host.want_epoch(info.id, group.replica.epoch)


def _end_at_first(whole: Map, info: PartitionInfo) -> bytes:
    """Where a partition ended before its first split: what its log is to be read from.

    A copy that begins after splits reads of them in the log, and has to have what they take away.
    """
    ends = [_end_at_first(whole, one) for one in whole.partitions if _is_part_of(one, info)]
    ends.append(info.end)
    return b"" if b"" in ends else max(ends)


def _is_part_of(one: PartitionInfo, origin: PartitionInfo) -> bool:
    return one.origin == origin.id and not one.cut


def _ours_to_begin(host: ClusterHost, info: PartitionInfo) -> bool:
    """A partition that came out of another is begun here only when that one no longer has it."""
    assert host.map is not None
    origin = host.groups.get(info.origin) if info.origin else None
    if origin is None or info.cut:
        return host.map.partition(info.origin) is None  # else that one is still to come
    # A leader's own border moves before its split stands. Who lives through a split takes over the other
    # half in the same step; who was given a whole state from behind it, even if he leads by now, does not.
    return not origin.is_splitting and bool(origin.end) and origin.end <= info.start


def adopt(host: ClusterHost, parent: Group, child: int, saved: Checkpoint) -> None:
    """A partition has split: the other half begins, on every replica from the same position."""
    known = host.groups.get(child)
    if known is not None:
        if known.replica.state.log.last != GENESIS:
            return  # the split is being replayed
        host.end(child)  # begun empty, before this was known
    # What the child begins with may so far stand in the parent's log alone, and a snapshot of the parent
    # that comes after a crash takes its place.
    parent.partition.state.settle()
    host.engine.settled.flush()
    log = parent.replica.state.log
    membership = log.membership_at(parent.replica.applied_lsn)
    position = beginning(b"split", parent.number, child)
    snapshot = Snapshot(position, membership, saved.closed, encode_checkpoint(saved))
    group = host.begin(child, Saved(snapshot))
    if parent.leading:
        host.want_epoch(child, group.replica.epoch)


def unfounded(host: ClusterHost) -> list[int]:
    """Partitions of a lost home that this node should have founded and has not."""
    partitions = () if host.map is None else host.map.partitions
    return [
        one.id
        for one in partitions
        if one.cut and host.node in one.founders and one.id not in host.groups
    ]


def found(host: ClusterHost, info: PartitionInfo) -> None:
    """This node's copy of a lost home's partition becomes the beginning of another log."""
    old = host.groups.get(info.origin)
    if old is None or old.leading or old.safe() < info.cut:
        return  # `unfounded` tells; the old copy is kept
    saved = replace(old.partition.cut_checkpoint(info.cut, host.engine.now), partition=info.id)
    settled = host.engine.settled
    for versions in list(old.partition.rows_above(info.cut)):
        settled.forget(SPACE, versions)
    settled.flush()  # before the log says so: what was cut off must not come back
    position = beginning(b"promotion", info.origin, info.id)
    snapshot = Snapshot(
        position, Membership(voters=info.founders), saved.closed, encode_checkpoint(saved)
    )
    # First the new one: a crash in between leaves both, and the old one goes at the next look.
    group = host.begin(info.id, Saved(snapshot))
    host.engine.feed.interrupted(info.start, info.end)
    host.want_epoch(info.id, group.replica.epoch)


def beginning(why: bytes, origin: int, number: int) -> Position:
    """Where a log begins that has a history: nowhere that an empty one has ever been."""
    digest = blake2b(b"%s %d %d" % (why, origin, number), digest_size=HASH_BYTES).digest()
    return Position(0, 1, digest)


def follow_map(host: ClusterHost, now: Interval) -> None:
    """One step towards what the map wants, in every partition led here."""
    if host.map is None:
        return
    if host.retired:
        _follow_promotions(host)
    _begin_missing(host)
    for info in host.map.partitions:
        group = host.groups.get(info.id)
        if group is None or not group.serves(now):
            continue
        if now.lo_ns - group.reconciled_ns < RECONCILE_NS:
            continue
        group.reconciled_ns = now.lo_ns
        wanted = _next_members(group.replica.membership, info, host.map)
        if wanted is not None:
            group.replica.change(wanted, now)
        else:
            _next_border(host, group)
            _next_lead(host, group, info)


def _next_members(present: Membership, info: PartitionInfo, whole: Map) -> Membership | None:
    """The membership one step nearer to the wanted one; None when it is reached."""
    alive = {node.id for node in whole.nodes}
    everyone = set(present.everyone)
    missing = {*info.voters, *info.learners} - everyone
    if missing:
        learners = tuple(sorted({*present.learners, *missing}))
        return Membership(present.voters, learners)
    gone = [one for one in present.learners if one not in alive]
    if gone:
        return Membership(present.voters, tuple(one for one in present.learners if one not in gone))
    for voter in info.voters:
        if voter not in present.voters:
            return present.with_voter(voter)
    for voter in present.voters:
        if voter not in info.voters and len(present.voters) > 1:
            return present.with_learner(voter) if voter in alive else present.without(voter)
    return None


def _next_border(host: ClusterHost, group: Group) -> None:
    """Split off what the map gives to another partition, the last part first."""
    assert host.map is not None
    parts = [
        one
        for one in host.map.partitions
        if one.origin == group.number
        and not one.cut
        and group.start < one.start
        and (not group.end or one.start < group.end)
    ]
    if parts and group.quiescent:
        last = max(parts, key=lambda one: one.start)
        if group.partition.split(last.start, last.id):
            host.arrange()


def _next_lead(host: ClusterHost, group: Group, info: PartitionInfo) -> None:
    """Give the lead to whom the map names, or to a voter at home where the log spans regions."""
    assert host.map is not None
    if group.heir:
        return
    wanted = info.leader or _voter_at_home(host.map, info)
    if wanted and wanted != host.node and wanted in _heirs(host, group):
        host.want_hand_over(group.number, wanted)


def bequeath(host: ClusterHost, number: int, heir: int) -> None:
    """Begin to hand the lead of a log to a voter, if that is still possible."""
    group = host.groups.get(number)
    if group is None or not group.leading or group.heir or heir not in _heirs(host, group):
        return
    group.bequeath(heir)
    host.engine.schedule()


def _heirs(host: ClusterHost, group: Group) -> list[int]:
    """The voters that could take the lead at once, the one that lacks least first."""
    fit = [
        follower
        for follower in group.replica.followers()
        if follower.votes
        and follower.known
        and follower.silent_ns < SILENCE_NS
        and follower.lag_entries < LAG_ENTRIES
        and host.links.to(follower.identity) is not None
        and not host.draining(follower.identity)
    ]
    return [one.identity for one in sorted(fit, key=lambda one: (one.lag_entries, one.identity))]


def bequeath_all(host: ClusterHost) -> bool:
    """Begin to hand over every lead that somebody could take; whether there are such still."""
    going_on = False
    for group in host.groups.values():
        if not group.leading:
            continue
        heirs = _heirs(host, group)
        if heirs and not group.heir:
            group.bequeath(heirs[0])
        going_on = going_on or bool(heirs)
    return going_on


def _voter_at_home(whole: Map, info: PartitionInfo) -> int:
    keyspace = whole.keyspace(info.keyspace)
    if keyspace is None or keyspace.survive != "region":
        return 0
    at_home = [one for one in info.voters if whole.region_of(one) == keyspace.home]
    return at_home[0] if at_home else 0
