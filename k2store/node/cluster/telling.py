"""What a member of a cluster says of itself and of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2store.node.cluster import placing
from k2store.v1 import admin_pb2
from replication import Role

if TYPE_CHECKING:
    from k2store.node.cluster.group import Group
    from k2store.node.cluster.host import ClusterHost

_ROLES = {
    Role.FOLLOWER: admin_pb2.REPLICA_ROLE_FOLLOWER,
    Role.CANDIDATE: admin_pb2.REPLICA_ROLE_CANDIDATE,
    Role.LEADER: admin_pb2.REPLICA_ROLE_LEADER,
}


def describe(host: ClusterHost, status: admin_pb2.GetStatusResponse) -> None:
    """Add the cluster, and to each partition its replica."""
    cluster = status.cluster
    cluster.node = host.node
    cluster.map_version = 0 if host.map is None else host.map.version
    cluster.safe = host.safe()
    cluster.forwarded = host.forwarding.forwarded
    cluster.forwarded_lost = host.forwarding.lost
    cluster.copying = len(host.pulls)
    cluster.unfounded.extend(placing.unfounded(host))
    for link in host.links:
        cluster.peers.add(
            node=link.info.id,
            name=link.info.name,
            region=link.info.region,
            connected=link.up,
            queued_bytes=link.queued_bytes,
        )
    for partition in status.partitions:
        group = host.groups.get(partition.partition)
        if group is not None:
            _replica(host, group, partition)


def _replica(host: ClusterHost, group: Group, told: admin_pb2.PartitionStatus) -> None:
    replica = group.replica
    if not group.leading:
        # Of a copy that only follows, what it shows is what counts.
        told.safe = group.partition.state.shown
    status = told.replica
    status.role = _ROLES[replica.role]
    status.leader = replica.leader or 0
    status.epoch = replica.epoch
    status.applied = replica.applied_lsn
    status.committed = replica.commit_lsn
    position = replica.state.log.position(replica.applied_lsn)
    status.applied_hash = b"" if position is None else position.hash
    status.voters.extend(replica.membership.voters)
    status.learners.extend(replica.membership.learners)
    counters = replica.counters
    status.elections_won = counters.elections_won
    status.epochs_lost = counters.epochs_lost
    status.installs_taken = counters.installs_taken
    if group.leading:
        status.lease_left_ns = replica.lease_end_ns - host.engine.now.hi_ns
        lags = [follower.lag_entries for follower in replica.followers()]
        status.lag = max(lags, default=0)
