"""From settings to a node's parts: the clock, the store on disk, the engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from k2store.clock import Clock, open_clock
from k2store.config import Settings
from k2store.node.cluster.host import ClusterSettings
from k2store.node.engine import Engine, EngineSettings
from k2store.node.host import Host
from k2store.node.limits import SessionLimits
from k2store.storage import OpenStore, StorageOptions, open_store
from mvcc.state import PartitionSettings
from replication import ReplicaSettings
from truetime import OracleSettings


def clock_of(settings: Settings) -> Clock:
    """The clock that the settings name."""
    clock = settings.clock
    return open_clock(
        clock.source, bound_ns=clock.bound, path=Path(clock.file) if clock.file else None
    )


def store_of(settings: Settings) -> OpenStore:
    """The store of the settings' data folder, made when it is missing."""
    storage = settings.storage
    options = StorageOptions(
        segment_bytes=storage.segment,
        memtable_bytes=storage.write_buffer,
        cache_bytes=storage.cache,
    )
    return open_store(Path(settings.node.data), options)


def engine_settings(settings: Settings) -> EngineSettings:
    """What the engine must know, in its own units."""
    clock, life, limits = settings.clock, settings.transactions, settings.limits
    return EngineSettings(
        name=settings.node.name,
        region=settings.node.region,
        oracle_id=settings.node.oracle,
        oracle=OracleSettings(
            ttl_ns=clock.stamp_ttl,
            ahead_max_ns=clock.ahead_max,
            uncertainty_max_ns=clock.bound_max,
            count_max=clock.stamp_batch,
            reservation_ns=clock.reservation,
        ),
        partition=PartitionSettings(
            ahead_ns_max=clock.ahead_max + life.retry_offset_max,
            slack_ns_min=life.slack_min,
            lifetime_ns_max=life.lifetime_max,
            heartbeat_expiry_ns=life.expiry,
            janitor_idle_ns=life.janitor,
            retention_ns=life.retention,
            scan_rows_max=limits.scan_page,
            deadline_ns_max=limits.deadline_max,
        ),
        limits=SessionLimits(
            key_bytes_max=limits.key,
            value_bytes_max=limits.value,
            operations_max=limits.operations,
            transaction_bytes_max=limits.transaction,
            in_flight_max=limits.in_flight,
            open_transactions_max=limits.open_transactions,
            scan_rows_max=limits.scan_page,
            timeout_ns=min(int(settings.client.deadline), int(limits.deadline_max)),
            timeout_ns_max=limits.deadline_max,
            watches_max=limits.watchers,
            watch_queue_max=limits.watch_queue,
        ),
        heartbeat_ns=life.heartbeat,
        sync=settings.storage.sync,
    )


def cluster_settings(settings: Settings, node: int) -> ClusterSettings:
    """What the section `[cluster]` says, in the host's own units; `node` is the own id."""
    cluster = settings.cluster
    return ClusterSettings(
        node=node,
        replica=ReplicaSettings(
            lease_ns=cluster.lease,
            lease_longest_ns=cluster.lease_longest,
            renew_ns=cluster.renew,
            patience_ns=cluster.patience,
            ahead_max_ns=settings.clock.ahead_max + settings.transactions.retry_offset_max,
        ),
        split_bytes=cluster.split_size,
        close_interval_ns=cluster.close_interval,
    )


def engine_of(
    settings: Settings,
    on_failure: Callable[[BaseException], None] | None = None,
    *,
    store: OpenStore | None = None,
    host: Callable[[Engine], Host] | None = None,
    entropy: Callable[[int], bytes] = os.urandom,
) -> Engine:
    """An engine over the settings' clock and data, recovered and not yet started.

    ``store``: one that is open already. ``host``: where its partitions are kept, other than on
    this node alone. ``entropy`` gives the bytes that name this incarnation.
    """
    clock = clock_of(settings)
    store = store_of(settings) if store is None else store
    try:
        return Engine(
            store,
            clock,
            engine_settings(settings),
            incarnation=entropy(8),
            on_failure=on_failure,
            host=host,
        )
    except BaseException:
        store.close()
        raise
